"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

    python main.py train --config=configs/vg_default.py:first \\
        --workdir=runs/vg_first --data_dir=~/atvg_data
    python main.py export --at=runs/at_default --vg=runs/vg_first --checkpoint=newest \\
        --data_dir=~/atvg_data --out=bundles/first
    python main.py train --config=configs/vg_default.py --config.init=bundles/first \\
        --workdir=runs/vg_default --data_dir=~/atvg_data

Hardware: 2 CPU cores, 1 to 2 steps a second.  Score: docs/default_model.md.
"""

from input_pipeline.clip import InputError
from jax_atvg.config import (
    Augment,
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Optimizer,
    VgNetSizes,
)


def get_config(stage: str = "second") -> Experiment:
    """Many clips of few frames a step: different faces teach more than more frames of
    one, and BatchNorm's running statistics fit them all.  No discriminator: the texture
    loss keeps the lips sharp.

    first: the pixel loss on faces as they are.  second: goes on from there with the
    texture loss, on faces and mouths of more shapes and colours.
    InputError: no such stage.
    """
    if stage not in ("first", "second"):
        raise InputError(f"vg_default:{stage}: choose first or second")
    config = Experiment(
        network="gan",
        batch_size=6,
        steps=6000,
        save_every=250,
        validate_every=1500,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        gan_loss=GanLoss(mouth_weight=8.0, pixel_steps=6000),
        optimizer=Optimizer(learning_rate=5e-4, schedule="wsd"),
        data=Data(num_frames=3, balance="sqrt", validation_clips=12),
    )
    config.data.augment = Augment(
        mirror=0.5,
        rotation=4.0,
        scale=0.04,
        shift=3.0,
        gain=0.15,
        offset=0.06,
        gamma=0.2,
        saturation=0.3,
    )
    if stage == "second":
        config.steps = config.gan_loss.pixel_steps = 4800
        config.optimizer.warmup = 100
        config.gan_loss.texture_weight = 5.0
        augment = config.data.augment
        augment.warp, augment.tint = 2.0, 0.12
        augment.mouth_width, augment.mouth_rise, augment.mouth_curl = 0.3, 7.0, 3.0
    return config
