"""AT-net for one CPU: an eighth of the original's convolutions, one LSTM layer.

    python main.py train --config=at_small --workdir=runs/at \\
        --data_dir=~/atvg_data

Hardware: 2 CPU cores, about 5 steps a second. Score, with squares in place of the
landmarks' distances in the loss, after the first 1000 of 3000 steps, boost 1, on 12 of
GRID's validation clips: mouth LMD 0.70 px (the photo's own: 1.11, another clip's sound:
0.87), r of the opening .80 (another clip's sound: .51).
"""

from jax_atvg.training.config import AtLoss, AtNetSizes, Experiment, Optimizer


def get_config() -> Experiment:
    """The loss is on landmarks, the mouth's weighted, with their velocity."""
    return Experiment(
        network="at",
        batch_size=16,
        steps=3000,
        at_net=AtNetSizes(
            example_widths=(64, 64),
            audio_widths=(8, 16, 32, 32, 64),
            fc_widths=(256, 128),
            lstm_width=128,
            lstm_layers=1,
        ),
        at_loss=AtLoss(target="landmarks", mouth_weight=4.0, velocity_weight=2.0),
        optimizer=Optimizer(learning_rate=1e-3, b1=0.9, schedule="cosine"),
    )
