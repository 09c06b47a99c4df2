"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

Five stages, each from the bundle of the one before (--config.init):

    python main.py train --config=configs/vg_default.py:plain \\
        --workdir=runs/vg_plain --data_dir=DATA
    python main.py train --config=configs/vg_default.py:faces \\
        --config.init=bundles/plain --workdir=runs/vg_faces --data_dir=DATA
    python main.py train --config=configs/vg_default.py:smiles \\
        --config.init=bundles/faces --workdir=runs/vg_smiles --data_dir=DATA
    python main.py train --config=configs/vg_default.py:photos \\
        --config.init=bundles/smiles --workdir=runs/vg_photos --data_dir=DATA
    python main.py train --config=configs/vg_default.py:sharp \\
        --config.init=bundles/photos --workdir=runs/vg_sharp --data_dir=DATA

Hardware: 2 CPU cores, 1 to 2 steps a second.  Score, and the commands between these:
docs/default_model.md.
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

STAGES = {"plain": 6000, "faces": 3250, "smiles": 1700, "photos": 1500, "sharp": 3000}


def get_config(stage: str = "sharp") -> Experiment:
    """Many clips of few frames a step: different faces teach more than more frames of
    one, and BatchNorm's running statistics fit them all.  No discriminator: the texture
    loss keeps the lips sharp.

    plain: the pixel loss.  faces: with the texture loss, on faces and mouths of more
    shapes and colours.  smiles: with brighter teeth, and the learning rate down to 0.
    photos: half of the faces as they are, a third of the photos smiling.  sharp: with
    more of the texture loss; down to 0 again.
    InputError: no such stage.
    """
    if stage not in STAGES:
        raise InputError(f"vg_default:{stage}: choose one of {', '.join(STAGES)}")
    config = Experiment(
        network="gan",
        batch_size=6,
        steps=STAGES[stage],
        save_every=250,
        validate_every=1500,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        gan_loss=GanLoss(mouth_weight=8.0),
        optimizer=Optimizer(learning_rate=5e-4, schedule="wsd"),
        data=Data(num_frames=3, balance="sqrt", validation_clips=12),
    )
    config.gan_loss.pixel_steps = config.steps
    config.data.augment = augment = Augment(
        mirror=0.5,
        rotation=4.0,
        scale=0.04,
        shift=3.0,
        gain=0.15,
        offset=0.06,
        gamma=0.2,
        saturation=0.3,
    )
    if stage != "plain":
        config.optimizer.warmup = 100
        config.gan_loss.texture_weight = 5.0
        augment.warp, augment.tint = 2.0, 0.12
        augment.mouth_width, augment.mouth_rise, augment.mouth_curl = 0.3, 7.0, 3.0
    if stage in ("faces", "photos"):
        config.optimizer.schedule = "constant"
    if stage in ("smiles", "photos", "sharp"):
        augment.teeth = 0.9
    if stage in ("photos", "sharp"):
        config.gan_loss.texture_weight = {"photos": 8.0, "sharp": 16.0}[stage]
        augment.keep_shape, augment.smile = 0.5, 1.0
    return config
