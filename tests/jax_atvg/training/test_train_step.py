"""What is compiled for a mesh of several devices."""

import contextlib
import functools
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs import smoke
from input_pipeline.clip import InputError
from input_pipeline.training_data import loader
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg import sharding
from jax_atvg.ahead_of_time import cost as compiling
from jax_atvg.models import convolutions
from jax_atvg.training import gan_step, train_step
from jax_atvg.training.config import Data, DiscriminatorSizes, Experiment, VgNetSizes


def tiny_gan(batch_size: int, frames: int = 2, width: int = 2) -> Experiment:
    return Experiment(
        batch_size=batch_size,
        vg_net=VgNetSizes(width=width, num_blocks=1),
        discriminator=DiscriminatorSizes(width=4, fc_width=4, lstm_width=4),
        data=Data(num_frames=frames),
    )


def largest_of_dropout(program: str) -> int:
    """Elements of the largest array that a device holds for its dropout masks."""
    made = re.compile(r"= \(?\w+\[([\d,]*)\].*op_name=\"[^\"]*dropout", re.IGNORECASE)
    shapes = [found[1] for found in map(made.search, program.splitlines()) if found]
    return max(math.prod(map(int, filter(None, s.split(",")))) for s in shapes)


@pytest.mark.parametrize("key", ["ours", "rbg"])
def test_every_device_draws_its_own_part_of_the_dropout_mask(key, monkeypatch):
    """An `rbg` key would have every device draw the masks of all: the control."""
    devices, frames, width = 8, 2, 2
    if key == "rbg":
        monkeypatch.setattr(
            gan_step, "stream", lambda seed, *_: jax.random.key(seed, impl="rbg")
        )
    experiment = tiny_gan(devices, frames, width)
    step = train_step.build(experiment, sharding.data_mesh(jax.devices()[:devices]))
    state = jax.eval_shape(step.init, 0)
    with convolutions.form("native"):  # compiles sooner
        program = step.step.lower(state, step.shapes, 0).compile().as_text()
    mask = frames * 8 * 8 * 8 * width  # of one clip
    assert largest_of_dropout(program) == (mask if key == "ours" else devices * mask)


# --- BatchNorm over the clips of one device ---


def test_a_virtual_batch_on_one_device_needs_no_sums_over_all():
    """AT-net on four devices, two clips each: five layers of BatchNorm, twice.  Over
    the clips of two devices the sums are theirs, and no audio is sent either."""
    experiment, reduced = smoke.get_config("at"), {}
    for size in (0, 2, 4):
        experiment.virtual_batch_size = size
        cost = compiling.compile_step(experiment, jax.devices()[:4], 2)
        assert set(cost.collectives) == {"all-reduce"}
        reduced[size], _ = cost.collectives["all-reduce"]
    assert reduced[2] == reduced[0] - 2 * 5
    assert reduced[4] >= reduced[0]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_virtual_batches_do_not_depend_on_the_devices(size):
    """Half of a device's clips, all of them, those of two devices."""
    clips, experiment = SyntheticClips(8, 32), smoke.get_config("at")
    experiment.batch_size, experiment.virtual_batch_size = 8, size
    pca = clips.pca(experiment.data.num_coefficients)
    batches = loader.training_batches(
        clips, "at", batch_size=8, seed=0, pca=pca, num_frames=4
    )
    with contextlib.closing(batches):
        batch = next(batches)
    found = []
    for devices in (1, 4):
        mesh = sharding.data_mesh(jax.devices()[:devices])
        built = train_step.build(experiment, mesh, pca)
        state, losses = built.step(built.init(0), sharding.to_devices(batch, mesh), 0)
        found.append((losses, state.net.batch_stats))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4), *found)


@pytest.mark.parametrize(("size", "nearest"), [(3, "2 or 4"), (5, "4 or 8"), (16, "8")])
def test_virtual_batches_that_do_not_fill_the_batch_name_sizes_that_work(size, nearest):
    experiment = Experiment(batch_size=8, virtual_batch_size=size)
    with pytest.raises(
        InputError,
        match=rf"virtual_batch_size={size} must divide config.batch_size=8; try "
        rf"{nearest}$",
    ):
        train_step.build(experiment, sharding.data_mesh())


# --- the optimiser's state split over the devices (ZeRO-1) ---


@pytest.fixture(scope="module")
def split_and_whole():
    """shard -> (AT-net's state after three steps on eight devices, the step's cost).
    The smallest arrays are split, too."""
    clips = SyntheticClips(8, 32)
    experiment = smoke.get_config("at")
    experiment.batch_size, experiment.optimizer.learning_rate = 8, 1e-3
    pca = clips.pca(experiment.data.num_coefficients)
    mesh = sharding.data_mesh()

    def trained(shard: bool):
        experiment.optimizer.shard = shard
        built = train_step.build(experiment, mesh, pca)
        batches = loader.training_batches(
            clips, "at", batch_size=8, seed=0, pca=pca, num_frames=4
        )
        state = built.init(0)
        for _ in range(3):
            batch = sharding.to_devices(next(batches), mesh)
            state, _ = built.step(state, batch, 0)
        batches.close()
        return state, compiling.compile_step(experiment, jax.devices(), 1, pca)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_step, "SPLIT_FROM", 0)
        return {shard: trained(shard) for shard in (False, True)}


def test_a_split_optimiser_takes_the_same_steps(split_and_whole):
    (whole, _), (parts, _) = split_and_whole[False], split_and_whole[True]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_device_keeps_an_eighth_of_what_divides(split_and_whole):
    state, _ = split_and_whole[True]
    for leaf in jax.tree.leaves(state.net.opt_state):
        own = leaf.addressable_shards[0].data.size
        divides = any(n % 8 == 0 for n in leaf.shape)
        assert own == leaf.size // (8 if divides else 1)
    for leaf in jax.tree.leaves((state.net.params, state.net.batch_stats)):
        assert leaf.sharding.spec == PartitionSpec()


def test_the_memory_saved_shows_in_what_compile_reports(split_and_whole):
    """Seven eighths of two moments, where an axis divides by eight."""
    (whole, cost), (parts, less) = split_and_whole[False], split_and_whole[True]
    saved = sum(
        leaf.nbytes - leaf.addressable_shards[0].data.nbytes
        for leaf in jax.tree.leaves(parts.net.opt_state)
    )
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(whole.net.opt_state))
    assert saved > 0.5 * moments
    assert cost.arguments - less.arguments == pytest.approx(saved, rel=0.02)


def test_what_is_split_is_gathered_once_and_nothing_else(split_and_whole):
    """And the gradients are summed as they are without."""
    (_, cost), (parts, less) = split_and_whole[False], split_and_whole[True]
    moments = jax.tree.leaves(parts.net.opt_state)
    pieces = [x for x in moments if not x.sharding.is_fully_replicated]
    gathers, size = less.collectives["all-gather"]
    assert gathers <= len(pieces) / 2  # two moments of an array
    assert size == sum(x.nbytes for x in pieces) / 2
    assert less.collectives["all-reduce"] == cost.collectives["all-reduce"]


def test_a_split_optimiser_leaves_the_networks_whole(monkeypatch):
    """The generator is judged by the updated discriminator: not by parts of it."""
    monkeypatch.setattr(train_step, "SPLIT_FROM", 1000)
    experiment, devices = tiny_gan(4), jax.devices()[:4]
    costs = []
    for shard in (False, True):
        experiment.optimizer.shard = shard
        with convolutions.form("native"):  # compiles sooner
            costs.append(compiling.compile_step(experiment, devices, 1))
    built = train_step.build(experiment, sharding.data_mesh(devices))
    state = jax.eval_shape(built.init, 0)
    split = [
        x
        for net in (state.vg, state.disc)
        for x in jax.tree.leaves(net.params)
        if x.size >= 1000
    ]
    gathered = len(split), sum(4 * x.size for x in split)
    assert costs[1].collectives == costs[0].collectives | {"all-gather": gathered}


def test_small_arrays_are_not_split():
    experiment = Experiment(network="at", batch_size=8)
    experiment.optimizer.shard = True
    built = train_step.build(experiment, sharding.data_mesh())
    state = jax.eval_shape(built.init, 0).net.opt_state
    sizes = [x.size for x in jax.tree.leaves(state)]
    places = jax.tree.leaves(built.sharding.net.opt_state)
    whole = [n for n, x in zip(sizes, places, strict=True) if x.is_fully_replicated]
    assert 0 < max(whole) < train_step.SPLIT_FROM
    assert sum(whole) < 0.02 * sum(sizes)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), PartitionSpec()),
        ((7,), PartitionSpec()),
        ((16,), PartitionSpec("data")),
        ((3, 3, 16, 64), PartitionSpec(None, None, None, "data")),
        ((24, 7), PartitionSpec("data")),
        ((0, 8), PartitionSpec(None, "data")),
    ],
)
def test_the_longest_axis_that_divides_is_split(shape, spec):
    assert sharding.split_evenly(sharding.data_mesh(), shape).spec == spec


# --- what XLA is told ---


def test_a_deterministic_run_asks_gpus_for_it_and_no_other_platform():
    experiment = smoke.get_config("at")
    assert not train_step.compiler_options(experiment, "cuda")
    experiment.deterministic = True
    asked = {"xla_gpu_deterministic_ops": True}
    for platform, options in {
        "cuda": asked,
        "gpu": asked,
        "cpu": {},
        "tpu": {},
    }.items():
        assert train_step.compiler_options(experiment, platform) == options


def test_what_xla_is_told_reaches_it(monkeypatch):
    """The CPU's compiler knows the GPU's option, but not one that does not exist."""
    experiment, told = smoke.get_config("at"), {"xla_gpu_deterministic_ops": True}
    monkeypatch.setattr(train_step, "compiler_options", lambda *_: told)
    pca = SyntheticClips(2, 8).pca(experiment.data.num_coefficients)

    def compiled():
        step = train_step.build(experiment, sharding.data_mesh(jax.devices()[:1]), pca)
        state = jax.eval_shape(step.init, 0)
        return step.step.lower(state, step.shapes, 0).compile()

    assert compiled().cost_analysis()
    told["xla_gpu_no_such_option"] = True
    with pytest.raises(Exception, match="No such compile option"):
        compiled()
