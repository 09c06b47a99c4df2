"""Builds the training step of an experiment: a jitted function with its shardings.

`train` and `compile` use the same builder, so that what `compile` reports is what runs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from input_pipeline.clip import (
    CROP_SIZE,
    NUM_POINTS,
    WINDOW_ROWS,
    WINDOW_SIZE,
    AtBatch,
    Colour,
    InputError,
    Pca,
    VgBatch,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.layers import BatchNorm, Norm
from jax_atvg.models.mouth_discriminator import MouthDiscriminator
from jax_atvg.models.precision import traced
from jax_atvg.models.vg_net import VGNet
from jax_atvg.sharding import check_batch_size, replicated, split, split_evenly
from jax_atvg.training.at_step import at_step
from jax_atvg.training.config import Experiment, flatten
from jax_atvg.training.gan_step import gan_step, pixel_step
from jax_atvg.training.optim import make_optimizer
from jax_atvg.training.rng import init_key
from jax_atvg.training.state import AtNets, AtState, VgNets, VgState

# Elements; gathering a smaller array takes longer to begin than to send.
SPLIT_FROM = 2**16

Nets = AtNets | VgNets
State = AtState | VgState
Step = Callable[[State, Any, int], tuple[State, dict[str, jax.Array]]]


class TrainStep(NamedTuple):
    """init(seed) -> state.  step, warm_up: (state, batch, seed) -> (state, losses); the
    state is donated.  warm_up serves the first `warm_up_steps`.

    shapes: of a global batch.  All are jitted over the mesh: batches split over "data",
    the state as `sharding` says: on every device, but for the optimisers' where
    config.optimizer.shard splits it.
    """

    nets: Nets
    init: Callable[[int], State]
    step: Step
    warm_up: Step
    warm_up_steps: int
    shapes: AtBatch | VgBatch
    sharding: State  # its leaves are NamedShardings

    def at(self, step: int) -> Step:
        return self.warm_up if step < self.warm_up_steps else self.step


def build(experiment: Experiment, mesh: Mesh, pca: Pca | None = None) -> TrainStep:
    """The training step of an experiment on a mesh.  pca: needed by AT-net's loss on
    landmarks.

    InputError: the batch does not divide by the devices, or not into virtual ones.
    """
    check_batch_size(experiment.batch_size, mesh)
    check_virtual_batches(experiment)
    nets = make_nets(experiment, pca)
    if experiment.optimizer.shard:
        nets = with_whole_updates(nets, mesh)
    shapes = batch_shapes(experiment, experiment.batch_size)
    whole, rows = replicated(mesh), split(mesh)

    def start(seed) -> State:
        return initial_state(nets, shapes, seed)

    state = state_sharding(jax.eval_shape(start, 0), mesh, experiment.optimizer.shard)
    options = compiler_options(experiment, mesh.devices.flat[0].platform)

    def compiled(step) -> Step:
        return jax.jit(
            traced(mesh, nets.precision, functools.partial(step, nets)),
            in_shardings=(state, rows, whole),
            out_shardings=(state, whole),
            donate_argnums=0,
            compiler_options=options,
        )

    gan = experiment.network == "vg"
    return TrainStep(
        nets,
        jax.jit(start, out_shardings=state),
        compiled(gan_step if gan else at_step),
        compiled(pixel_step if gan else at_step),
        experiment.gan_loss.pixel_steps if gan else 0,
        shapes,
        state,
    )


def compiler_options(experiment: Experiment, platform: str) -> dict[str, Any]:
    """What XLA is told beside the program.  On GPUs it adds a gradient's parts in any
    order, and measures anew which kernel is the fastest, unless it is told not to."""
    if not experiment.deterministic or platform in ("cpu", "tpu"):
        return {}
    return {"xla_gpu_deterministic_ops": True}


def check_virtual_batches(experiment: Experiment) -> None:
    """InputError, with the nearest sizes that work, unless they fill the batch."""
    size, whole = experiment.virtual_batch_size, experiment.batch_size
    if size and whole % size:
        divisors = [n for n in range(1, whole + 1) if whole % n == 0]
        nearest = [n for n in divisors if n < size][-1:]
        nearest += [n for n in divisors if n > size][:1]
        raise InputError(
            f"config.virtual_batch_size={size} must divide config.batch_size={whole}; "
            f"try {' or '.join(map(str, nearest))}"
        )


def state_sharding(shapes: State, mesh: Mesh, shard_optimizer: bool) -> State:
    """The sharding of every array of the state.

    With the optimiser's state split, every device computes the updates whose moments
    it has, and they are gathered: ZeRO's first stage (Rajbhandari et al. 2020).
    """

    def of(path, leaf) -> NamedSharding:
        optimizer = any(getattr(key, "name", None) == "opt_state" for key in path)
        if shard_optimizer and optimizer and leaf.size >= SPLIT_FROM:
            return split_evenly(mesh, leaf.shape)
        return replicated(mesh)

    return jax.tree.map_with_path(of, shapes)


def with_whole_updates(nets: Nets, mesh: Mesh) -> Nets:
    """Gradients come to the optimisers, and updates from them, whole on every device:
    else XLA computes with parts of the parameters and sends activations for it."""

    def whole(tree):
        return jax.lax.with_sharding_constraint(tree, replicated(mesh))

    def enclosed(optimizer: optax.GradientTransformation):
        def update(gradients, state, params=None):
            updates, state = optimizer.update(whole(gradients), state, params)
            return whole(updates), state

        return optimizer._replace(update=update)

    optimizers = {
        name: enclosed(value)
        for name, value in vars(nets).items()
        if isinstance(value, optax.GradientTransformation)
    }
    return dataclasses.replace(nets, **optimizers)


def make_nets(experiment: Experiment, pca: Pca | None = None) -> Nets:
    """The experiment's networks and optimisers."""

    def attributes(sizes) -> dict[str, Any]:
        """A config file may hold lists; networks are hashable."""
        flat = flatten(sizes)
        return {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}

    optimizer = functools.partial(make_optimizer, experiment.optimizer)
    steps, norm = experiment.steps, norm_over(experiment.virtual_batch_size)
    if experiment.network == "at":
        net = ATNet(
            num_coefficients=experiment.data.num_coefficients,
            norm=norm,
            **attributes(experiment.at_net),
        )
        adam = optimizer(steps, net.members)
        return AtNets(net, adam, experiment.at_loss, pca, experiment.precision)
    return VgNets(
        VGNet(image_size=CROP_SIZE, norm=norm, **attributes(experiment.vg_net)),
        Discriminator(norm=norm, **attributes(experiment.discriminator)),
        optimizer(steps),
        optimizer(max(steps - experiment.gan_loss.pixel_steps, 1)),
        experiment.gan_loss,
        experiment.precision,
        MouthDiscriminator(**attributes(experiment.mouth_discriminator)),
    )


@functools.cache  # networks are equal where their norms are
def norm_over(virtual_batch_size: int) -> Norm:
    """BatchNorm over so many clips at a time, 0 for all of them."""
    if not virtual_batch_size:
        return BatchNorm
    return functools.partial(BatchNorm, virtual_batch_size=virtual_batch_size)


def batch_shapes(experiment: Experiment, batch_size: int) -> AtBatch | VgBatch:
    """The shapes of a batch of the experiment, as ShapeDtypeStructs."""
    frames, size, points = experiment.data.num_frames, CROP_SIZE, 2 * NUM_POINTS
    k = experiment.data.num_coefficients

    def shape(*rest: int, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((batch_size, *rest), dtype)

    if experiment.network == "at":
        return AtBatch(
            shape(k), shape(frames, WINDOW_ROWS, WINDOW_SIZE), shape(frames, k)
        )
    colour = None
    if experiment.data.augment.changes_colour:
        colour = Colour(shape(), shape(3), shape(), shape(), shape())
    return VgBatch(
        shape(size, size, 3, dtype=jnp.uint8),
        shape(points),
        shape(frames, size, size, 3, dtype=jnp.uint8),
        shape(frames, points),
        colour,
    )


def initial_state(nets: Nets, shapes: AtBatch | VgBatch, seed) -> State:
    """The state before the first step.  It depends on the seed and the networks alone,
    not on the batch size or the number of frames."""
    keys = jax.random.split(init_key(seed))

    def zeros(x, *axes: int):
        size = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
        return jnp.zeros(size)  # f32, also of pictures, which come as bytes

    if isinstance(nets, AtNets):
        example, audio = zeros(shapes.example, 0), zeros(shapes.audio, 0, 1)
        return nets.start(nets.net.init(keys[0], example, audio))
    image, example = zeros(shapes.image, 0), zeros(shapes.example, 0)
    frames, landmarks = zeros(shapes.frames, 0, 1), zeros(shapes.landmarks, 0, 1)
    mouth = None
    if nets.loss.judges_mouths:
        side = nets.mouth_discriminator.side
        key = jax.random.fold_in(keys[1], 1)
        mouth = nets.mouth_discriminator.init(key, jnp.zeros((1, side, side, 3)))
    return nets.start(
        nets.vg_net.init(keys[0], image, landmarks, example),
        nets.discriminator.init(keys[1], frames, example),
        mouth,
    )
