"""An experiment, as a file in `configs/` describes it.

    python main.py train --config=configs/vg_grid.py --config.optimizer.clip_norm=1

The defaults are the authors' settings (reference section 2) where this project's own do
not differ from theirs; a config file says only what it changes.
"""

import dataclasses
import functools
from dataclasses import field
from typing import Any

from input_pipeline.clip import InputError


@dataclasses.dataclass
class AtNetSizes:
    """See models/at_net.py.  audio_widths=(): no convolutions.  members: of an average
    that is trained as one; of runs that are not, `export` makes one."""

    example_widths: tuple[int, ...] = (256, 512)
    audio_widths: tuple[int, ...] = (64, 128, 256, 256, 512)
    fc_widths: tuple[int, ...] = (2048, 256)
    lstm_width: int = 256
    lstm_layers: int = 3
    relative: bool = False
    members: int = 1


@dataclasses.dataclass
class VgNetSizes:
    """See models/vg_net.py.  compose=False draws every pixel anew (ablation)."""

    recurrence: str = "time"
    width: int = 64
    num_blocks: int = 9
    dropout: float = 0.5
    compose: bool = True
    remat: bool = False


@dataclasses.dataclass
class DiscriminatorSizes:
    """See models/discriminator.py."""

    width: int = 64
    fc_width: int = 512
    lstm_width: int = 256
    lstm_layers: int = 3
    spectral_norm: bool = False


@dataclasses.dataclass
class AtLoss:
    """target: "coefficients" (the authors'), or "landmarks": their error, the mouth's
    points weighted by mouth_weight, plus velocity_weight times that of their
    frame-to-frame differences."""

    target: str = "coefficients"
    mouth_weight: float = 1.0
    velocity_weight: float = 0.0


@dataclasses.dataclass
class GanLoss:
    """pixel_weight: lambda.  texture_weight: tau, of losses.texture_loss, 0 for none.
    dynamic: weigh the pixel loss by attention + beta; else plain L1.  score, landmark:
    the terms of D_s and D_p.  mouth_weight: of the mouth's pixels.  pixel_steps: so
    many first steps train on the pixel and texture losses alone."""

    pixel_weight: float = 10.0
    texture_weight: float = 0.0
    beta: float = 0.5
    dynamic: bool = True
    score: bool = True
    landmark: bool = True
    mouth_weight: float = 1.0
    pixel_steps: int = 0


@dataclasses.dataclass
class Optimizer:
    """Adam.  schedule: "constant"; "cosine" down to zero at the last step; "wsd":
    constant, then over the last fifth linearly down to zero.  warmup: steps of linear
    rise before.  clip_norm: of the whole gradient, 0 for none.
    accumulate: batches a step's gradient is averaged over.  shard: every device keeps
    its own part of the optimiser's state (ZeRO-1); the same numbers, less memory."""

    learning_rate: float = 2e-4
    b1: float = 0.5
    b2: float = 0.999
    schedule: str = "constant"
    warmup: int = 0
    clip_norm: float = 0.0
    accumulate: int = 1
    shard: bool = False


@dataclasses.dataclass
class Augment:
    """How strongly training examples are changed: see input_pipeline/training_data/augment.py."""

    mirror: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    warp: float = 0.0
    mouth_width: float = 0.0
    mouth_rise: float = 0.0
    mouth_curl: float = 0.0
    keep_shape: float = 0.0
    smile: float = 0.0
    gain: float = 0.0
    tint: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    teeth: float = 0.0
    noise: float = 0.0
    tempo: float = 0.0
    voice: float = 0.0
    first_photo: float = 0.0


@dataclasses.dataclass
class Data:
    """num_frames: of a window.  num_coefficients: K.  balance: "clips", "speakers"
    (every speaker as often) or "sqrt", half-way.  validation_clips: scored in training,
    0 for all."""

    num_frames: int = 16
    num_coefficients: int = 6
    balance: str = "clips"
    augment: Augment = field(default_factory=Augment)
    validation_clips: int = 64
    num_threads: int = 8
    num_workers: int = 0
    synthetic: int = 0  # so many drawn clips instead of a data folder


@dataclasses.dataclass
class Experiment:
    """network: "at" or "gan".  batch_size: clips a step, over all devices; BatchNorm
    sees all of them, or virtual_batch_size of them at a time.  compute: "float32" or
    "bfloat16"; parameters and statistics are float32.  ema: decay of the generator's
    averaged copy, 0 for none; evaluation and export use it.  *_every: in steps.  keep:
    newest checkpoints, beside the best.  init: a bundle whose network the run begins
    with, "" for random values."""

    network: str = "gan"
    init: str = ""
    seed: int = 0
    steps: int = 100_000
    batch_size: int = 16
    virtual_batch_size: int = 0
    compute: str = "float32"
    ema: float = 0.0
    report_every: int = 50
    image_every: int = 1000
    save_every: int = 1000
    validate_every: int = 1000
    keep: int = 3
    at_net: AtNetSizes = field(default_factory=AtNetSizes)
    vg_net: VgNetSizes = field(default_factory=VgNetSizes)
    discriminator: DiscriminatorSizes = field(default_factory=DiscriminatorSizes)
    at_loss: AtLoss = field(default_factory=AtLoss)
    gan_loss: GanLoss = field(default_factory=GanLoss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    data: Data = field(default_factory=Data)


CHOICES = {
    "network": ("at", "gan"),
    "compute": ("float32", "bfloat16"),
    "vg_net.recurrence": ("time", "batch", "none"),
    "at_loss.target": ("coefficients", "landmarks"),
    "optimizer.schedule": ("constant", "cosine", "wsd"),
    "data.balance": ("clips", "sqrt", "speakers"),
}
AT_LEAST = {
    "steps": 1,
    "batch_size": 1,
    "virtual_batch_size": 0,
    "seed": 0,
    "report_every": 1,
    "image_every": 1,
    "save_every": 1,
    "validate_every": 1,
    "keep": 1,
    "at_net.members": 1,
    "vg_net.num_blocks": 0,
    "vg_net.width": 2,
    "optimizer.accumulate": 1,
    "optimizer.learning_rate": 0.0,
    "optimizer.clip_norm": 0.0,
    "optimizer.warmup": 0,
    "data.num_frames": 1,
    "data.num_coefficients": 1,
    "data.synthetic": 0,
    "gan_loss.pixel_steps": 0,
    **{f"data.augment.{one.name}": 0.0 for one in dataclasses.fields(Augment)},
}
BELOW_ONE = (
    "ema",
    "vg_net.dropout",
    "optimizer.b1",
    "optimizer.b2",
    "data.augment.teeth",
)
AT_MOST_ONE = tuple(
    f"data.augment.{name}" for name in ("mirror", "keep_shape", "smile", "first_photo")
)


def validate(experiment: Experiment) -> None:
    """InputError that names the first field out of its range."""
    values = flatten(experiment)
    for name, choices in CHOICES.items():
        if values[name] not in choices:
            raise InputError(
                f"config.{name}={values[name]!r}: choose one of {', '.join(choices)}"
            )
    for name, least in AT_LEAST.items():
        if values[name] < least:
            raise InputError(f"config.{name}={values[name]}: must be {least} at least")
    for name in BELOW_ONE:
        if not 0 <= values[name] < 1:
            raise InputError(f"config.{name}={values[name]}: must be in [0, 1)")
    for name in AT_MOST_ONE:
        if values[name] > 1:
            raise InputError(f"config.{name}={values[name]}: must be 1 at most")
    if experiment.network == "gan" and not (
        experiment.gan_loss.pixel_weight
        or experiment.gan_loss.texture_weight
        or experiment.gan_loss.score
        or experiment.gan_loss.landmark
    ):
        raise InputError("config.gan_loss: every term is off; leave one on")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"optimizer.learning_rate": 2e-4, ...}: every leaf under its dotted name."""
    flat = {}
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{one.name}.")
        else:
            flat[prefix + one.name] = value
    return flat


def from_flat(flat: dict[str, Any]) -> Experiment:
    """The inverse of flatten, also of what JSON made of it.

    InputError: a name that no experiment has, one that is missing, a wrong type.
    """
    experiment = Experiment()
    defaults = flatten(experiment)
    unknown, missing = sorted(flat.keys() - defaults), sorted(defaults.keys() - flat)
    if unknown or missing:
        named = [f"unknown {name}" for name in unknown]
        named += [f"without {name}" for name in missing]
        raise InputError(f"config: {', '.join(named)}; give every field of config.py")
    for name, default in defaults.items():
        value = tuple(flat[name]) if isinstance(flat[name], list) else flat[name]
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            kind = type(default).__name__
            raise InputError(f"config.{name}={value!r}: must be {kind}; correct it")
        *groups, last = name.split(".")
        setattr(functools.reduce(getattr, groups, experiment), last, value)
    return experiment


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two flat configs disagree on: ["seed=0 (now 1)", ...]; as JSON knows it."""

    def plain(value):
        return list(value) if isinstance(value, tuple) else value

    return [
        f"{name}={plain(old.get(name))} (now {plain(new.get(name))})"
        for name in sorted(old | new)
        if plain(old.get(name)) != plain(new.get(name))
    ]
