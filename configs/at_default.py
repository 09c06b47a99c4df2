"""AT-net of the default bundle: the sound as numbers, one LSTM layer, 32 coefficients.

    python main.py train --config=at_default --workdir=runs/at_default \\
        --data_dir=~/atvg_data

Hardware: one CPU core, 40 to 70 steps a second.  Score: docs/default_model.md.
"""

from jax_atvg.training.config import (
    AtLoss,
    AtNetSizes,
    Data,
    Experiment,
    Optimizer,
    Strength,
)


def get_config() -> Experiment:
    """Coefficients are relative to the photo's: a new face keeps its shape."""
    return Experiment(
        network="at",
        batch_size=16,
        steps=9000,
        at_net=AtNetSizes(
            example_widths=(64, 64),
            audio_widths=(),
            fc_widths=(256, 128),
            lstm_width=128,
            lstm_layers=1,
            relative=True,
        ),
        at_loss=AtLoss(target="landmarks", mouth_weight=30.0, velocity_weight=2.0),
        optimizer=Optimizer(learning_rate=1e-3, b1=0.9, schedule="cosine"),
        data=Data(
            num_coefficients=32,
            balance="sqrt",
            augment=Strength(
                mirror=0.5,
                rotation=4.0,
                scale=0.04,
                shift=3.0,
                noise=0.3,
                tempo=0.2,
                voice=0.1,
                first_photo=0.6,
            ),
        ),
    )
