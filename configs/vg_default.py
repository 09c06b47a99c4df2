"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

    python main.py train --config=configs/vg_default.py --workdir=runs/vg_default \\
        --data_dir=~/atvg_data

Hardware: 2 CPU cores, 2 steps a second.  Score: docs/default_model.md.
"""

from jax_atvg.config import (
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Optimizer,
    VgNetSizes,
)


def get_config() -> Experiment:
    """Many clips of few frames a step: different faces teach more than more frames of
    one, and BatchNorm's running statistics fit them all.  No discriminator: the texture
    loss keeps the lips sharp."""
    return Experiment(
        network="gan",
        batch_size=6,
        steps=12_000,
        save_every=500,
        validate_every=1000,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        gan_loss=GanLoss(texture_weight=5.0, mouth_weight=8.0, pixel_steps=12_000),
        optimizer=Optimizer(learning_rate=5e-4, schedule="wsd"),
        data=Data(num_frames=3, balance="sqrt", augment=True, validation_clips=12),
    )
