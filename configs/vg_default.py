"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

    python main.py train --config=vg_default --config.init=default_model/bundle \\
        --workdir=runs/vg_default --data_dir=DATA

Hardware: one CPU core, about one step a second.  Data, score: docs/default_model.md.
"""

from jax_atvg.training.config import (
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Mix,
    MouthDiscriminatorSizes,
    Optimizer,
    Strength,
    VgNetSizes,
)


def get_config() -> Experiment:
    """Many clips of few frames a step: different faces teach more than more frames of
    one, and BatchNorm's running statistics fit them all.  Half of the examples are
    portraits.  First on the pixels alone; then a discriminator of mouths gives the lips
    and teeth their texture."""
    return Experiment(
        network="vg",
        batch_size=6,
        steps=4400,
        save_every=250,
        validate_every=1500,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        mouth_discriminator=MouthDiscriminatorSizes(width=32, side=48),
        gan_loss=GanLoss(
            dynamic=False,
            mouth_weight=16.0,
            mouth_score=0.3,
            mouth_features=20.0,
            score=False,
            landmark=False,
            pixel_steps=2000,
        ),
        optimizer=Optimizer(learning_rate=3e-4, schedule="wsd", warmup=100),
        data=Data(
            num_frames=4,
            mix=Mix(grid=2.0, folder=1.0, portraits=3.0),
            balance="sqrt",
            validation_clips=12,
            augment=Strength(
                mirror=0.5,
                rotation=4.0,
                scale=0.04,
                shift=3.0,
                warp=2.0,
                keep_shape=0.7,
                gain=0.15,
                tint=0.12,
                offset=0.06,
                gamma=0.2,
                saturation=0.3,
                first_photo=0.6,
            ),
        ),
    )
