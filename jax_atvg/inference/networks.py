"""Runs both networks, on one or several devices, over recordings of any length.

Frames are processed in chunks of one fixed length, each beginning with the recurrences'
state after the one before: memory on the devices does not grow with the recording, and
one compiled program serves every length.

Letters: B clips, T frames, K coefficients, S the networks' picture size.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8

from input_pipeline.media.image import to_u8
from jax_atvg.inference.bundle import Bundle, load_bundle
from jax_atvg.inference.predict import (
    Photo,
    Prediction,
    State,
    Weights,
    first_state,
    predict,
    spoken_landmarks,
)
from jax_atvg.models.layers import LstmState
from jax_atvg.sharding import data_mesh, replicated, split

CHUNK = 16  # frames per call of the networks


class Networks:
    """A bundle's networks with their weights on the devices of a mesh.

    bundle: the given one without its variables, so that their memory is freed as soon
    as the caller drops it.  batch_size: B, clips per call, raised to a multiple of the
    mesh's devices.  mesh: this process's first device unless given.  A recurrence over
    the batch, as in the authors' code, would mix clips: then B is 1, on one device.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 1, mesh: Mesh | None = None):
        mesh = mesh or data_mesh(jax.local_devices()[:1])
        if bundle.vg_net.recurrence == "batch":
            mesh, batch_size = data_mesh(mesh.devices.ravel()[:1]), 1
        self.mesh = mesh
        self.batch_size = -(-max(batch_size, 1) // mesh.size) * mesh.size
        self.bundle = dataclasses.replace(bundle, variables={})
        self.sizes = bundle.at_net, bundle.vg_net
        weights = Weights(
            bundle.variables["at_net"],
            bundle.variables["vg_net"],
            bundle.pca,
            bundle.boost,
        )
        self.weights = jax.device_put(weights, replicated(mesh))

    def predict(
        self, photo: Photo, windows: Float32[np.ndarray, "B T 28 12"], still: bool
    ) -> Iterator[Prediction]:
        """Runs both networks; yields a Prediction per chunk, in numpy, without a state.

        windows: MFCC.  still: the face keeps the photo's landmarks, whatever the sound.
        """
        step = compiled_predict(*self.sizes, self.mesh, still)
        state = self._first_state()
        photo = jax.device_put(photo, split(self.mesh))

        def run(window, state):
            prediction = step(self.weights, photo, window, state)
            return prediction._replace(state=None), prediction.state

        return in_chunks(run, windows, state)

    def speak(
        self, photo: Photo, windows: Float32[np.ndarray, "B T 28 12"]
    ) -> Float32[np.ndarray, "B T 136"]:
        """Runs AT-net alone; returns the landmarks of every frame.  windows: MFCC."""
        step = compiled_speak(self.bundle.at_net, self.mesh)
        run = functools.partial(step, self.weights, photo)
        parts = in_chunks(run, windows, self._first_state().at_net)
        return np.concatenate(list(parts), axis=1)

    def draw(
        self,
        image: Float32[np.ndarray, "B S S 3"],
        example: Float32[np.ndarray, "B 136"],
        landmarks: Float32[np.ndarray, "B T 136"],
    ) -> tuple[UInt8[np.ndarray, "B T S S 3"], UInt8[np.ndarray, "B T S S"]]:
        """Runs VG-net alone; returns (frames, attention), 0..255.

        image: the photo, in [-1,1].  example: the photo's landmarks.
        """
        step = compiled_draw(self.bundle.vg_net, self.mesh)
        run = functools.partial(step, self.weights.vg_net, image, example)
        parts = list(in_chunks(run, landmarks, self._first_state().vg_net))
        frames, attention = zip(*parts, strict=True)
        return np.concatenate(frames, axis=1), np.concatenate(attention, axis=1)

    def _first_state(self) -> State:
        zeros = first_state(*self.sizes, self.batch_size)
        return jax.device_put(zeros, state_sharding(self.mesh))


def as_networks(bundle: Bundle | Networks | str | pathlib.Path) -> Networks:
    """The Networks of a bundle or of its folder; Networks are returned as they are."""
    if isinstance(bundle, (str, pathlib.Path)):
        bundle = load_bundle(bundle)
    return bundle if isinstance(bundle, Networks) else Networks(bundle)


def in_chunks(
    step: Callable[[Any, Any], tuple[Any, Any]],
    sequence: Float32[np.ndarray, "B T *rest"],
    state: Any,
) -> Iterator[Any]:
    """Applies `step` to a sequence chunk by chunk; yields its arrays, on the host.

    step(CHUNK frames of the sequence, state) -> (arrays [B,CHUNK,...], next state).
    The last chunk is filled up by repeating the last frame, and the surplus results are
    cut off.  The devices compute a chunk while the caller works on the one before.
    """
    total, under_way = sequence.shape[1], None

    def fetch(arrays: Any, count: int) -> Any:
        return jax.tree.map(lambda x: x[:, :count], jax.device_get(arrays))

    for start in range(0, total, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), total - 1)
        arrays, state = step(sequence[:, rows], state)
        if under_way is not None:
            yield fetch(*under_way)
        under_way = arrays, min(CHUNK, total - start)
    yield fetch(*under_way)


# --- the compiled programs ---


def state_sharding(mesh: Mesh) -> State:
    """The recurrences' state: the axis of the clips is split over all devices."""
    second_axis = NamedSharding(mesh, PartitionSpec(None, "data"))
    return State(LstmState(second_axis, second_axis), split(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """On a CPU, the schedule that transforms each kernel (models/cpu/winograd.py) just
    before it is used.  XLA's default schedule transforms all of them first and holds
    the results: 290 MB at the original's width."""
    if mesh.devices.flat[0].platform != "cpu":
        return None
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@functools.cache
def compiled_predict(at_net, vg_net, mesh: Mesh, still: bool):
    """(weights, photo, windows, state) -> Prediction, compiled at the first call."""
    whole, rows, state = replicated(mesh), split(mesh), state_sharding(mesh)
    return jax.jit(
        functools.partial(predict, at_net, vg_net, still),
        in_shardings=(whole, rows, rows, state),
        out_shardings=Prediction(rows, rows, rows, rows, state),
        compiler_options=compiler_options(mesh),
    )


@functools.cache
def compiled_speak(at_net, mesh: Mesh):
    """(weights, photo, windows, state) -> (landmarks, state)."""
    whole, rows, state = replicated(mesh), split(mesh), state_sharding(mesh).at_net

    def speak(weights: Weights, photo: Photo, audio, state):
        spoken = at_net.apply(weights.at_net, photo.coefficients, audio, state=state)
        landmarks = spoken_landmarks(
            weights.pca, weights.boost, spoken.coefficients, photo
        )
        return landmarks, spoken.state

    return jax.jit(
        speak,
        in_shardings=(whole, rows, rows, state),
        out_shardings=(rows, state),
        compiler_options=compiler_options(mesh),
    )


@functools.cache
def compiled_draw(vg_net, mesh: Mesh):
    """(variables, image, example, landmarks, state) -> ((frames, attention), state)."""
    whole, rows = replicated(mesh), split(mesh)

    def draw(variables, image, example, landmarks, state):
        drawn = vg_net.apply(variables, image, landmarks, example, state=state)
        attention = to_u8(2 * drawn.attention[..., 0] - 1)
        return (to_u8(drawn.frames), attention), drawn.state

    return jax.jit(
        draw,
        in_shardings=(whole, rows, rows, rows, rows),
        out_shardings=((rows, rows), rows),
        compiler_options=compiler_options(mesh),
    )
