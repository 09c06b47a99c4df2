"""Looking at a training state: the validation split's loss, and a picture."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from input_pipeline.clip import EvaluationBatch
from input_pipeline.faces.drawing import draw_lines
from input_pipeline.faces.landmarks import to_pixels
from input_pipeline.media.image import to_u8
from jax_atvg.sharding import replicated, split, to_devices
from jax_atvg.training.losses import landmark_distance
from jax_atvg.training.state import AtNets, AtState, VgState
from jax_atvg.training.train_step import Nets, State


def variables_of(state: State) -> dict[str, Any]:
    """What is evaluated and exported: AT-net, or VG-net without its discriminator."""
    return (state.net if isinstance(state, AtState) else state.vg).variables


def validator(nets: Nets, mesh: Mesh) -> Callable[[State, Iterable], float]:
    """(state, pass over the split) -> the split's loss, every valid frame alike.

    AT-net: mean squared error of the coefficients, or the landmarks' distance, as it is
    trained.  VG-net: mean |v^ - v|.
    """

    def sums(variables, batch: EvaluationBatch):
        if isinstance(nets, AtNets):
            inputs = batch.at
            output = nets.net.apply(variables, inputs.example, inputs.audio)
            error = output.coefficients - inputs.coefficients
            if nets.loss.target == "landmarks":
                moved = error @ nets.pca.components.T
                error = landmark_distance(moved, nets.loss.mouth_weight)
            else:
                error = jnp.mean(error**2, -1)
        else:
            inputs = batch.vg
            output = nets.vg_net.apply(
                variables, inputs.image, inputs.landmarks, inputs.example
            )
            error = jnp.mean(jnp.abs(output.frames - inputs.frames), (2, 3, 4))
        valid = batch.frame_valid * batch.valid[:, None]
        return jnp.sum(jnp.where(valid > 0, error, 0.0)), jnp.sum(valid)

    if one_clip_at_a_time(nets):
        return by_itself(jax.jit(sums))
    whole = replicated(mesh)
    compiled = jax.jit(sums, in_shardings=(whole, split(mesh)), out_shardings=whole)

    def score(state: State, batches: Iterable) -> float:
        total = count = 0.0
        for batch in batches:
            error, valid = compiled(variables_of(state), to_devices(batch, mesh))
            total, count = total + float(error), count + float(valid)
        return total / count

    return score


def one_clip_at_a_time(nets: Nets) -> bool:
    """Whether clips of one batch would be mixed: by a recurrence over the batch."""
    return not isinstance(nets, AtNets) and nets.vg_net.recurrence == "batch"


def by_itself(sums: Callable) -> Callable[[State, Iterable], float]:
    """The score of batches of one clip, each process's on its first device."""

    def score(state: State, batches: Iterable) -> float:
        variables, totals = jax.device_get(variables_of(state)), np.zeros(2)
        for batch in batches:
            totals += jax.device_get(sums(variables, batch))
        if jax.process_count() > 1:
            totals = multihost_utils.process_allgather(totals).sum(0)
        return float(totals[0] / totals[1])

    return score


def picture(nets: Nets, state: State, batch) -> np.ndarray | None:
    """u8: the batch's first clip, four of its frames a column: photo, target,
    generated, attention, colour, landmarks.  None for AT-net."""
    if not isinstance(state, VgState):
        return None
    variables = jax.device_get(variables_of(state))
    image, landmarks, example = (
        x[:1] for x in (batch.image, batch.landmarks, batch.example)
    )
    output = jax.jit(nets.vg_net.apply)(variables, image, landmarks, example)
    frames, attention, color = jax.device_get(output[:3])
    columns = []
    for t in np.linspace(0, frames.shape[1] - 1, 4).astype(int):
        face = np.repeat(2 * attention[0, t] - 1, 3, -1)
        rows = [image[0], batch.frames[0, t], frames[0, t], face, color[0, t]]
        drawn = draw_lines(to_pixels(landmarks[0, t]), frames.shape[2])
        columns.append(np.concatenate([*map(to_u8, rows), drawn]))
    return np.concatenate(columns, 1)
