"""An experiment: everything that decides what a training run computes.

    python main.py train --config=vg_grid --config.optimizer.clip_norm=1

The defaults are the authors' settings (docs/reference.md, section 2) where this
project's own do not differ from theirs; a file of configs/ says only what it changes.
Importing this module imports neither jax nor flax.
"""

import dataclasses
import difflib
import functools
import math
import os
from dataclasses import field
from typing import Any

from input_pipeline.clip import CROP_SIZE, InputError
from input_pipeline.training_data.augment import Strength
from jax_atvg.models.sizes import (
    PRECISIONS,
    AtNetSizes,
    DiscriminatorSizes,
    MouthDiscriminatorSizes,
    VgNetSizes,
)


@dataclasses.dataclass
class AtLoss:
    """target: "coefficients" (the authors'), or "landmarks": their error, the mouth's
    points weighted by mouth_weight, plus velocity_weight times that of their
    frame-to-frame differences.  closed_weight: how much more frames with closed lips
    weigh than others, 0: as much."""

    target: str = "coefficients"
    mouth_weight: float = 1.0
    velocity_weight: float = 0.0
    closed_weight: float = 0.0


@dataclasses.dataclass
class GanLoss:
    """pixel_weight: lambda.  dynamic: weigh the pixel loss by attention + beta; else
    plain L1.  score, landmark: the terms of D_s and D_p.
    landmark_on_generated: train D_p on generated frames as well, as the authors' code
    does; the paper trains it on real ones.  mouth_weight, eyes_weight: of the pixels
    around them in the pixel loss.  mouth_score, mouth_features: weights of the hinge
    loss and of feature matching, both of the discriminator of mouths; 0 and 0: there is
    none.  pixel_steps: so many first steps train on the pixel loss alone."""

    pixel_weight: float = 10.0
    beta: float = 0.5
    dynamic: bool = True
    score: bool = True
    landmark: bool = True
    landmark_on_generated: bool = False
    mouth_weight: float = 1.0
    eyes_weight: float = 1.0
    mouth_score: float = 0.0
    mouth_features: float = 0.0
    pixel_steps: int = 0

    @property
    def judges_mouths(self) -> bool:
        """Whether there is a discriminator of mouths."""
        return bool(self.mouth_score or self.mouth_features)


@dataclasses.dataclass
class Optimizer:
    """Adam.  schedule: "constant"; "cosine" down to zero at the last step; "wsd":
    constant, then over the last fifth linearly down to zero.  warmup: updates of linear
    rise before.  clip_norm: of the whole gradient of a network, with at_net.members of
    each by itself; 0 for none.
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
class Mix:
    """Shares of the corpora in the examples, in any unit, of those that `prepare` put
    into one data_dir.  All zeros: no shares, and all clips are alike; AT-net then does
    without the portraits.  Otherwise a corpus with 0 is left out."""

    grid: float = 0.0
    lrw: float = 0.0
    folder: float = 0.0
    portraits: float = 0.0

    def shares(self) -> dict[str, float]:
        """{corpus: its share}, without those that are left out."""
        return {name: share for name, share in vars(self).items() if share}


@dataclasses.dataclass
class Data:
    """What a run reads.

    num_frames: of a window.  num_coefficients: K, of the landmarks' PCA.  mix: how much
    of each corpus.  balance, within a corpus if they are mixed: "clips" shows every
    clip once an epoch; "speakers" every speaker as often as any
    other; "sqrt" lies half-way.  augment: how strongly examples are changed.
    validation_clips: how many are scored during training, 0 for all.
    num_workers: processes beside the training one that make its batches; -1: one for
    each usable core but one, at most 15 for each device, and none on fewer than four
    cores; 0: none, num_threads threads of the training one do.
    synthetic: so many drawn clips in place of a dataset, 0 for none.
    """

    num_frames: int = 16
    num_coefficients: int = 6
    mix: Mix = field(default_factory=Mix)
    balance: str = "clips"
    augment: Strength = field(default_factory=Strength)
    validation_clips: int = 64
    num_threads: int = 8
    num_workers: int = -1
    synthetic: int = 0


@dataclasses.dataclass
class Experiment:
    """One training run.

    network: "at" trains AT-net, "vg" VG-net with its discriminator.  init: a bundle
    whose network the run begins with, "" for random values.  seed: of everything
    random. steps: how many in all.  batch_size: clips a step, over all devices.
    virtual_batch_size: BatchNorm sees so many clips at a time, 0 for the whole batch.
    precision: "highest", "default" or "bfloat16", in which the networks multiply, see
    models/precision.py.  deterministic: the same bits in every run on the same GPUs,
    at the price of slower kernels; on CPUs and TPUs they are the same without.
    report_every, image_every, save_every, validate_every: in
    steps.  keep: how many of the newest checkpoints stay, beside the best one.
    report_to: where scalars and pictures go, see reporting.py.
    """

    network: str = "vg"
    init: str = ""
    seed: int = 0
    steps: int = 100_000
    batch_size: int = 16
    virtual_batch_size: int = 0
    precision: str = "default"
    deterministic: bool = False
    report_every: int = 50
    image_every: int = 1000
    save_every: int = 1000
    validate_every: int = 1000
    keep: int = 3
    report_to: tuple[str, ...] = ("jsonl", "tensorboard")
    at_net: AtNetSizes = field(default_factory=AtNetSizes)
    vg_net: VgNetSizes = field(default_factory=VgNetSizes)
    discriminator: DiscriminatorSizes = field(default_factory=DiscriminatorSizes)
    mouth_discriminator: MouthDiscriminatorSizes = field(
        default_factory=MouthDiscriminatorSizes
    )
    at_loss: AtLoss = field(default_factory=AtLoss)
    gan_loss: GanLoss = field(default_factory=GanLoss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    data: Data = field(default_factory=Data)


CHOICES = {
    "network": ("at", "vg"),
    "precision": PRECISIONS,
    "vg_net.recurrence": ("time", "batch", "none"),
    "at_loss.target": ("coefficients", "landmarks"),
    "optimizer.schedule": ("constant", "cosine", "wsd"),
    "data.balance": ("clips", "sqrt", "speakers"),
}
REPORTERS = ("jsonl", "tensorboard", "wandb")  # see reporting.py
# Whole numbers are 1 at least, except these.
AT_LEAST = {
    "seed": 0,
    "virtual_batch_size": 0,
    "vg_net.width": 2,
    "vg_net.num_blocks": 0,
    "mouth_discriminator.side": 8,
    "gan_loss.pixel_steps": 0,
    "optimizer.warmup": 0,
    "data.validation_clips": 0,
    "data.num_threads": 0,
    "data.num_workers": -1,
    "data.synthetic": 0,
}
MOST = 2**31 - 1  # JAX counts, and makes keys, with 32 bits and a sign
AT_MOST = {
    "mouth_discriminator.side": CROP_SIZE,
    **{f"data.augment.{name}": 1.0 for name in ("mirror", "keep_shape", "first_photo")},
}
BELOW_ONE = ("vg_net.dropout", "optimizer.b1", "optimizer.b2")


def validate(experiment: Experiment) -> None:
    """Checks every field; `init` may be a path, of which the text is kept.

    InputError: names the first attribute that is no field, a field that is of another
    type or out of its range, or losses of VG-net of which some steps have none.
    """
    check_names(experiment, Experiment())
    if isinstance(experiment.init, os.PathLike):
        experiment.init = os.fspath(experiment.init)
    defaults = flatten(Experiment())
    for name, value in flatten(experiment).items():
        if name in CHOICES and value not in CHOICES[name]:
            raise InputError(
                f"config.{name}={value!r}: choose one of {', '.join(CHOICES[name])}"
            )
        if name != "report_to" and (rule := broken_rule(name, value, defaults[name])):
            raise InputError(f"config.{name}={value!r}: must be {rule}")
    names = experiment.report_to
    if (
        not isinstance(names, (tuple, list))
        or any(name not in REPORTERS for name in names)
        or len(set(names)) < len(names)
    ):
        raise InputError(
            f"config.report_to={names!r}: choose among {', '.join(REPORTERS)}, each "
            "once, as ('jsonl', 'wandb')"
        )
    if "jsonl" not in names:
        raise InputError(
            f"config.report_to={names!r}: must have 'jsonl', which tells the best "
            "checkpoint; add it"
        )
    loss = experiment.gan_loss
    if experiment.network != "vg" or loss.pixel_weight:
        return
    if not (loss.score or loss.landmark or loss.judges_mouths):
        raise InputError("config.gan_loss: every term is off; leave one on")
    if loss.pixel_steps:
        raise InputError(
            f"config.gan_loss.pixel_steps={loss.pixel_steps}: must be 0 where "
            "pixel_weight is 0, as these steps have no other loss; correct one of them"
        )


def check_names(config: Any, default: Any, prefix: str = "") -> None:
    """InputError: config or a group of it has an attribute that is no field, or
    something else is in a group's place."""
    for name, value in vars(config).items():
        if name not in vars(default):
            raise InputError(no_such_field(prefix + name))
        group = getattr(default, name)
        if dataclasses.is_dataclass(group):
            if type(value) is not type(group):
                kind = type(group).__name__
                raise InputError(
                    f"config.{prefix}{name}={value!r}: must be of the class {kind} of "
                    "jax_atvg/training/config.py; set its fields one by one"
                )
            check_names(value, group, f"{prefix}{name}.")


def no_such_field(name: str) -> str:
    """What is said of a dotted name that no experiment has, with one that is alike."""
    alike = difflib.get_close_matches(name, flatten(Experiment()), 1)
    meant = f"; config.{alike[0]} meant?" if alike else ""
    return (
        f"config.{name}: no such field{meant}; jax_atvg/training/config.py explains "
        "them"
    )


def broken_rule(name: str, value: Any, default: Any) -> str:
    """What a field must be and is not, "" if all is right.  Its default says whether it
    is a text, a switch, a whole number, any number or several whole numbers."""
    kind = type(default)
    if kind is tuple:
        whole = isinstance(value, (tuple, list)) and all(
            type(one) is int and 1 <= one <= MOST for one in value
        )
        return "" if whole else "whole numbers from 1 on, as (64, 128)"
    if kind is bool:
        return "" if type(value) is bool else "True or False"
    if kind is str:
        return "" if type(value) is str else 'a text, "" for none'
    if type(value) not in (int, kind):
        return "a whole number" if kind is int else "a number"
    if name in BELOW_ONE:
        return "" if 0 <= value < 1 else "in [0, 1)"
    if kind is float and not 0 <= value < math.inf:  # which NaN is not either
        return "0.0 at least, and finite"
    if kind is int and value < (least := AT_LEAST.get(name, 1)):
        return f"{least} at least"
    if value > (most := AT_MOST.get(name, MOST if kind is int else math.inf)):
        return f"{most} at most"
    return ""


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


def beside_defaults(experiment: Experiment) -> str:
    """ "network=at, seed=1": what the experiment sets otherwise than the defaults."""
    defaults = flatten(Experiment())
    idle = (
        "vg_net.",
        "discriminator.",
        "mouth_discriminator.",
        "gan_loss.",
    )  # the other network's
    if experiment.network == "vg":
        idle = ("at_net.", "at_loss.")
    changed = {
        name: value
        for name, value in flatten(experiment).items()
        if value != defaults[name] and not name.startswith(idle)
    }
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or "nothing"
