"""VG-net of the default bundle: three eighths of the original's widths, four blocks.

Six stages, each but the first from the bundle of the one before:

    python main.py train --config=vg_default:plain \\
        --workdir=runs/vg_plain --data_dir=DATA
    python main.py train --config=vg_default:faces \\
        --config.init=bundles/plain --workdir=runs/vg_faces --data_dir=DATA

and so on; all commands, and the score: docs/default_model.md.
Hardware: 2 CPU cores, 1 to 2 steps a second.
"""

from typing import NamedTuple

from input_pipeline.clip import InputError
from jax_atvg.training.config import (
    Data,
    DiscriminatorSizes,
    Experiment,
    GanLoss,
    Optimizer,
    Strength,
    VgNetSizes,
)


class Stage(NamedTuple):
    """What it does not say is as in the stages before it."""

    steps: int
    schedule: str
    texture_weight: float


STAGES = {
    "plain": Stage(6000, "wsd", 0.0),
    "faces": Stage(3250, "constant", 5.0),
    "smiles": Stage(1700, "wsd", 5.0),
    "photos": Stage(4000, "wsd", 6.0),
    "lips": Stage(1000, "constant", 12.0),
    "windows": Stage(1200, "wsd", 18.0),
}


def get_config(stage: str = "windows") -> Experiment:
    """Many clips of few frames a step: different faces teach more than more frames of
    one, and BatchNorm's running statistics fit them all.  No discriminator: the texture
    loss keeps the lips sharp.

    From faces on: faces and mouths of more shapes and colours.  From smiles on:
    brighter teeth.  photos: most of the faces as they are, a third of the photos
    smiling, plain L1, which did no worse in docs/results.md.  From lips on: every clip
    once an epoch, the mouth counts twice as much, most photos are their clip's first
    frame, where lips rest.  windows: fewer clips a step, of more frames each.
    InputError: no such stage.
    """
    if stage not in STAGES:
        raise InputError(f"vg_default:{stage}: choose one of {', '.join(STAGES)}")
    steps, schedule, texture_weight = STAGES[stage]
    config = Experiment(
        network="vg",
        batch_size=6,
        steps=steps,
        save_every=250,
        validate_every=1500,
        image_every=500,
        vg_net=VgNetSizes(width=24, num_blocks=4, dropout=0.0),
        discriminator=DiscriminatorSizes(
            width=16, fc_width=128, lstm_width=64, lstm_layers=1
        ),
        gan_loss=GanLoss(
            mouth_weight=8.0, texture_weight=texture_weight, pixel_steps=steps
        ),
        optimizer=Optimizer(learning_rate=5e-4, schedule=schedule),
        data=Data(num_frames=3, balance="sqrt", validation_clips=12),
    )
    config.data.augment = augment = Strength(
        mirror=0.5,
        rotation=4.0,
        scale=0.04,
        shift=3.0,
        gain=0.15,
        offset=0.06,
        gamma=0.2,
        saturation=0.3,
    )
    so_far = list(STAGES)[: list(STAGES).index(stage) + 1]
    if "faces" in so_far:
        config.optimizer.warmup = 100
        augment.warp, augment.tint = 2.0, 0.12
        augment.mouth_width, augment.mouth_rise, augment.mouth_curl = 0.3, 7.0, 3.0
    if "smiles" in so_far:
        augment.teeth = 0.9
    if "photos" in so_far:
        augment.keep_shape, augment.smile = 0.7, 1.0
        config.gan_loss.dynamic = False
    if "lips" in so_far:
        augment.keep_shape, augment.first_photo = 0.85, 0.6
        config.gan_loss.mouth_weight = 16.0
        config.data.balance = "clips"
    if "windows" in so_far:
        config.batch_size, config.data.num_frames = 3, 8
    return config
