"""AT-net of the default bundle: four networks of one LSTM layer, 32 coefficients.

    python main.py train --config=at_default --workdir=runs/at_default --data_dir=DATA

DATA holds the corpora grid and folder.  Hardware: one CPU core, 5 to 7 steps a second.
Data, score: docs/default_model.md.
"""

from jax_atvg.training.config import (
    AtLoss,
    AtNetSizes,
    Data,
    Experiment,
    Mix,
    Optimizer,
    Strength,
)


def get_config() -> Experiment:
    """Coefficients are relative to those of the photo's face with its lips closed: a
    new face keeps its shape, and lips that the photo shows open may close.  Faces and
    mouths of more shapes than the data have, voices, microphones, noise and rooms: what
    a network that is to hear strangers must not depend on."""
    return Experiment(
        network="at",
        batch_size=16,
        steps=14000,
        at_net=AtNetSizes(
            example_widths=(64, 64),
            audio_widths=(),
            fc_widths=(512, 256),
            lstm_width=256,
            lstm_layers=1,
            relative=True,
            from_rest=True,
            members=4,
            doubt=4.0,
        ),
        at_loss=AtLoss(
            target="landmarks",
            mouth_weight=30.0,
            velocity_weight=2.0,
            closed_weight=1.5,
        ),
        optimizer=Optimizer(learning_rate=1e-3, b1=0.9, schedule="cosine"),
        data=Data(
            num_coefficients=32,
            mix=Mix(grid=2.0, folder=1.0),
            balance="sqrt",
            augment=Strength(
                mirror=0.5,
                rotation=4.0,
                scale=0.04,
                shift=3.0,
                warp=3.0,
                mouth_width=0.2,
                mouth_rise=5.0,
                mouth_curl=3.0,
                keep_shape=0.5,
                noise=0.3,
                tempo=0.2,
                voice=0.1,
                channel=0.5,
                background=0.1,
                room=0.5,
                first_photo=0.6,
            ),
        ),
    )
