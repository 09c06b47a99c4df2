"""Looking at a training state: the validation split's loss, and a picture."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from input_pipeline.clip import EvaluationBatch, VgBatch
from input_pipeline.faces.drawing import draw_lines
from input_pipeline.faces.landmarks import to_pixels
from input_pipeline.media.image import to_u8
from jax_atvg.models.precision import cast_variables, traced
from jax_atvg.sharding import on_one_device, replicated, split, to_devices
from jax_atvg.training.losses import landmark_distance
from jax_atvg.training.pictures import with_float_pictures
from jax_atvg.training.state import AtNets, AtState
from jax_atvg.training.train_step import Nets, State

COLUMNS = 4  # frames in a picture


def variables_of(state: State) -> dict[str, Any]:
    """What is evaluated and exported: AT-net, or VG-net without its discriminator."""
    return (state.net if isinstance(state, AtState) else state.vg).variables


def validator(
    nets: Nets, mesh: Mesh, options: Mapping[str, Any] | None = None
) -> Callable[[State, Iterable], float]:
    """(state, pass over the split) -> the split's loss, every valid frame alike.

    AT-net: mean squared error of the coefficients, or the landmarks' distance, as it is
    trained.  VG-net: mean |v^ - v|.

    The clips of a batch are spread over the mesh, unless they would be mixed: then
    every process scores its own, one a batch, on its first device.
    options: what XLA is told, see train_step.compiler_options.
    """
    alone, whole = one_clip_at_a_time(nets), replicated(mesh)
    shardings = {"in_shardings": (whole, whole, split(mesh)), "out_shardings": whole}
    shardings = {} if alone else shardings

    def added(totals: Float[Array, "2"], variables, batch: EvaluationBatch):
        variables = cast_variables(variables, nets.precision)
        error = frame_errors(nets, variables, batch)
        valid = batch.frame_valid * batch.valid[:, None]
        error = jnp.where(valid > 0, error, 0.0)
        return totals + jnp.stack([error.sum(), valid.sum()])

    function = traced(mesh, nets.precision, added)
    compiled = jax.jit(function, compiler_options=dict(options or {}), **shardings)

    def score(state: State, batches: Iterable) -> float:
        variables, totals = variables_of(state), np.zeros(2, np.float32)
        if alone:
            variables = on_one_device(variables)
        for batch in batches:
            before = totals
            placed = batch if alone else to_devices(batch, mesh)
            totals = compiled(totals, variables, placed)
            jax.block_until_ready(before)  # else all batches could wait on the device
        totals = np.asarray(totals)
        if alone and jax.process_count() > 1:
            totals = multihost_utils.process_allgather(totals).sum(0)
        return float(totals[0] / totals[1])

    return score


def one_clip_at_a_time(nets: Nets) -> bool:
    """Whether clips of one batch would be mixed: by a recurrence over the batch."""
    return not isinstance(nets, AtNets) and nets.vg_net.recurrence == "batch"


def frame_errors(nets: Nets, variables, batch: EvaluationBatch) -> Float[Array, "B T"]:
    """The error of every frame, also of those that only fill the batch."""
    if isinstance(nets, AtNets):
        inputs = batch.at
        output = nets.net.apply(variables, inputs.example, inputs.audio)
        error = output.coefficients - inputs.coefficients
        if nets.loss.target == "landmarks":
            with jax.default_matmul_precision("highest"):
                moved = error @ nets.pca.components.T
            return landmark_distance(moved, nets.loss.mouth_weight)
        return jnp.mean(error**2, -1)
    inputs = with_float_pictures(batch.vg)
    output = nets.vg_net.apply(
        variables, inputs.image, inputs.landmarks, inputs.example
    )
    return jnp.mean(jnp.abs(output.frames - inputs.frames), (2, 3, 4))


def painter(nets: Nets, mesh: Mesh) -> Callable[[State, VgBatch], np.ndarray | None]:
    """(state, batch) -> u8: the batch's first clip, four of its frames a column: photo,
    target, generated, attention, colour, landmarks.  None for AT-net.

    Compiled when it is first called.  One process's, on its first device.  mesh: that
    of the training.
    """

    def paint(variables, batch: VgBatch) -> UInt8[Array, "H W 3"]:
        """All but the landmarks."""
        batch = with_float_pictures(batch)
        variables = cast_variables(variables, nets.precision)
        output = nets.vg_net.apply(
            variables, batch.image, batch.landmarks, batch.example
        )
        columns = []
        for t in shown(batch):
            face = jnp.repeat(2 * output.attention[0, t] - 1, 3, -1)
            made = output.frames[0, t], face, output.color[0, t]
            rows = batch.image[0], batch.frames[0, t], *made
            columns.append(jnp.concatenate(rows))
        return to_u8(jnp.concatenate(columns, 1))

    compiled = jax.jit(traced(mesh, nets.precision, paint))

    def picture(state: State, batch) -> np.ndarray | None:
        if isinstance(nets, AtNets):
            return None
        variables, batch = on_one_device((variables_of(state), batch))
        first = jax.tree.map(lambda x: x[:1], batch)
        painted, landmarks = compiled(variables, first), np.asarray(first.landmarks[0])
        drawn = [
            draw_lines(to_pixels(landmarks[t]), batch.frames.shape[2])
            for t in shown(first)
        ]
        return np.concatenate([painted, np.concatenate(drawn, 1)])

    return picture


def shown(batch: VgBatch) -> list[int]:
    """Which frames a picture shows, evenly spread."""
    return np.linspace(0, batch.frames.shape[1] - 1, COLUMNS).astype(int).tolist()
