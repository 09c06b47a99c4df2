"""What benchmarks/accelerator.py measures: its programs, each compiled once."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Compiled, compiled
from configs import at_grid, smoke, vg_default, vg_grid
from jax_atvg.inference.torch_import import convert
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.precision import cast_variables, traced
from jax_atvg.models.sizes import PRECISIONS
from jax_atvg.models.vg_net import VGNet
from jax_atvg.sharding import data_mesh
from jax_atvg.training.config import Experiment, Mix
from jax_atvg.training.train_step import TrainStep
from tests import formula

# --- training ---


def experiments(small: bool) -> dict[str, Experiment]:
    """The training runs whose steps are measured."""
    change, default = dataclasses.replace, vg_default.get_config()
    if small:
        vg, augment = smoke.get_config("vg"), default.data.augment
        data = change(vg.data, augment=augment, num_frames=2, num_workers=2)
        vg = change(vg, data=data)
        return {"gan": vg, "at": smoke.get_config("at"), "default": vg}
    data = change(default.data, num_frames=8, mix=Mix())
    default = change(default, batch_size=16, data=data)
    return {"gan": vg_grid.get_config(), "at": at_grid.get_config(), "default": default}


class Step(NamedTuple):
    """A compiled training step.  batch: of noise."""

    experiment: Experiment
    built: TrainStep
    batch: Any
    made: Compiled


MADE: dict[str, Any] = {}  # several parts take the same, or its failure
MAKING = collections.defaultdict(threading.Lock)


def once(name: str, make: Callable[[], Any]) -> Any:
    with MAKING[name]:
        if name not in MADE:
            try:
                MADE[name] = make()
            except Exception as error:
                MADE[name] = error
        if isinstance(MADE[name], Exception):
            raise MADE[name]
        return MADE[name]


def step_of(name: str, precision: str, small: bool) -> Step:
    experiment = dataclasses.replace(experiments(small)[name], precision=precision)

    def make() -> Step:
        built, batch = measuring.training_step(experiment)
        state = jax.eval_shape(built.init, experiment.seed)
        made = compiled(built.step, state, batch, experiment.seed)
        return Step(experiment, built, batch, made)

    return once(f"step of {experiment}", make)


def start_of(name: str, small: bool) -> Any:
    """A run's first state, on the device; the same in every precision."""
    experiment = experiments(small)[name]

    def make() -> tuple[Any, Any]:
        built, _ = measuring.training_step(experiment)
        return jax.device_get(built.init(experiment.seed)), built.sharding

    state, sharding = once(f"start of {experiment}", make)
    # A step is given the state for good: it must not be the memory of the one kept.
    return jax.device_put(state, sharding, may_alias=False)


# --- networks ---


def inference(net, precision: str):
    """A network, jitted, whose parameters are cast already."""
    return jax.jit(traced(data_mesh(jax.devices()[:1]), precision, net.apply))


def cases() -> dict[str, tuple]:
    """(network, its inputs, {our output: theirs in tests/data}), by the names of
    torch_import.  VG-net's recurrence is over time."""
    x = formula.inputs()
    image, frames = (np.moveaxis(p, -3, -1) for p in (x.vg_image, x.disc_frames))
    drawn = "frames", "attention", "color", "landmark_attention"
    at, vg = {"coefficients": "at/output"}, {name: f"vg_time/{name}" for name in drawn}
    disc = {name: f"disc/{name}" for name in ("score", "landmarks")}
    return {
        "at_net": (ATNet(), (x.at_example, x.at_audio), at),
        "vg_net": (VGNet(), (image, x.vg_landmarks, x.vg_example), vg),
        "discriminator": (Discriminator(), (frames, x.disc_example), disc),
    }


def compared(small: bool) -> list[tuple[str, str]]:
    """(precision, network).  AT-net alone where it is to be quick: the authors'
    networks are large."""
    names = [name for name in cases() if name == "at_net" or not small]
    return list(itertools.product(PRECISIONS, names))


def authors(precision: str, name: str) -> tuple[Compiled, tuple]:
    """A network of the authors' sizes, and its arguments: weights by the formula."""
    net, inputs, _ = cases()[name]
    variables = once(name, lambda: convert(name, formula.state_dict(name)))
    args = cast_variables(variables, precision), *inputs
    make = functools.partial(compiled, inference(net, precision), *args)
    return once(f"{name} {precision}", make), args


# --- all of them ---

STACK = 2**28  # bytes of each thread: libtpu overflows the usual 8 MB on large networks

TRAINING = {  # part: (the run, the precision)
    "gan_bfloat16": ("gan", "bfloat16"),
    "gan_default": ("gan", "default"),
    "default_step": ("default", "bfloat16"),
    "at_step": ("at", "default"),
}


def compile_side_by_side(parts: Sequence[str], small: bool) -> None:
    """Compiles what the parts will need: XLA leaves Python to others meanwhile.  Which
    failed is told by the parts that need it."""
    jobs = []
    for part in parts:
        if part in TRAINING:
            name, precision = TRAINING[part]
            jobs.append(functools.partial(step_of, name, precision, small))
            jobs.append(functools.partial(start_of, name, small))
        if part == "parity":
            jobs += [functools.partial(authors, *which) for which in compared(small)]
    usual = threading.stack_size(STACK)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        concurrent.futures.wait([pool.submit(job) for job in jobs])
    threading.stack_size(usual)
