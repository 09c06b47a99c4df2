"""Both networks over whole clips: from photo and sound, and from true landmarks.

Letters: B clips, T frames, S the networks' picture size; points are pixels of the
128x128 crop.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.clip import CROP_SIZE, NUM_POINTS
from input_pipeline.faces import align
from input_pipeline.training_data import sampling
from jax_atvg.evaluation.metrics import Frames, Points
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.predict import Photo, spoken_landmarks
from jax_atvg.sharding import data_mesh, replicated, split

CHUNK = 16  # frames a call of the networks makes


class Take(NamedTuple):
    """A clip made ready.  sound, other_sound (another clip's; None: there is none):
    f32[T,28,12]."""

    frames: Frames
    points: Points
    sound: np.ndarray
    other_sound: np.ndarray | None


class Made(NamedTuple):
    """What the networks make of a take: at: f64[T,68,2], and frames, by mode;
    attention of end_to_end: u8[T,128,128].  Of landmarks alone: {} and None."""

    at: dict[str, Points]
    frames: dict[str, Frames]
    attention: np.ndarray | None


class Networks:
    """Both networks, compiled for one shape: B clips, CHUNK frames.

    Clips of any length pass in chunks with the recurrences' state; what pads them is
    cut off.  batch_size is raised to a multiple of the mesh's devices.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 1, mesh: Mesh | None = None):
        mesh = mesh or data_mesh(jax.local_devices())
        if bundle.vg_net.recurrence == "batch":  # the authors': clips would mix
            mesh, batch_size = data_mesh(mesh.devices.ravel()[:1]), 1
        self.bundle, self.mesh = bundle, mesh
        self.batch_size = -(-max(batch_size, 1) // mesh.size) * mesh.size
        self.weights = jax.device_put(bundle.variables, replicated(mesh))
        self.seconds, self.made, self.warm = 0.0, 0, False

    def __call__(self, takes: list[Take], landmarks_only: bool = False) -> list[Made]:
        """landmarks_only: no frames, no attention; VG-net rests."""
        bundle, count = self.bundle, len(takes)
        takes = takes + takes[-1:] * (self.batch_size - count)
        image = sampling.to_float(
            np.stack([resized(take.frames[:1], self.size)[0] for take in takes])
        )
        inverse = align.invert(bundle.landmark_to_crop)
        truth = [flat(align.transform(inverse, take.points)) for take in takes]
        first = np.stack([p[0] for p in truth])
        photo = Photo(image, *bundle.recognise(first))
        face = photo.image, photo.landmarks

        def speak(sounds):
            spoken = self._run("at_net", (photo.coefficients,), sounds)[0]
            return spoken_landmarks(bundle.pca, bundle.boost, spoken, photo)

        if not self.warm:  # compiled before it is timed
            self.warm = True
            short = speak([take.sound[:1] for take in takes])
            if not landmarks_only:
                self._run("vg_net", face, short)
        begin = time.perf_counter()
        spoken, drawn = {"": speak([take.sound for take in takes])}, {}
        if not landmarks_only:
            drawn["end_to_end"] = self._run("vg_net", face, spoken[""])
        self.seconds += time.perf_counter() - begin
        self.made += spoken[""].shape[1] * self.batch_size
        if all(take.other_sound is not None for take in takes):
            spoken["_shuffled"] = speak([take.other_sound for take in takes])
        if not landmarks_only:
            drawn["teacher"] = self._run("vg_net", (image, first), truth)
            if "_shuffled" in spoken:
                drawn["end_to_end_shuffled"] = self._run(
                    "vg_net", face, spoken["_shuffled"]
                )

        def made(row: int, length: int) -> Made:
            at = {
                f"at{name}": align.transform(
                    bundle.landmark_to_crop, p[row, :length].reshape(-1, NUM_POINTS, 2)
                )
                for name, p in spoken.items()
            }
            frames = {
                name: resized(pictures[row, :length], CROP_SIZE)
                for name, (pictures, _) in drawn.items()
            }
            if landmarks_only:
                return Made(at, frames, None)
            attention = drawn["end_to_end"][1][row, :length]
            return Made(at, frames, resized(attention, CROP_SIZE))

        return [made(row, len(take.frames)) for row, take in enumerate(takes[:count])]

    @property
    def size(self) -> int:
        return self.bundle.vg_net.image_size

    def _run(self, name: str, photo: tuple, sequences) -> list[np.ndarray]:
        """One network over sequences f32[T,...] of any lengths -> arrays [B,T,...]."""
        network = getattr(self.bundle, name)
        step, state_sharding = compiled(network, self.mesh)
        inputs = padded(sequences)
        first = inputs[:, :CHUNK]
        shapes = jax.eval_shape(step, self.weights[name], photo, first, None)[-1]
        state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        state = jax.device_put(state, state_sharding)
        parts = []
        for start in range(0, inputs.shape[1], CHUNK):
            window = inputs[:, start : start + CHUNK]
            arrays, state = step(self.weights[name], photo, window, state)
            parts.append(jax.device_get(arrays))
        return [np.concatenate(part, axis=1) for part in zip(*parts, strict=True)]

    def pace(self) -> dict[str, Any]:
        """Frames of end_to_end a second, from sound to pictures (or to landmarks, where
        those are all) on the host."""
        return {
            "frames_per_second": round(self.made / max(self.seconds, 1e-9), 2),
            "device": f"{self.mesh.size} x {self.mesh.devices.flat[0].device_kind}",
        }


@functools.cache
def compiled(network, mesh: Mesh):
    """(a jitted step: variables, photo, inputs, state -> ([outputs], state); how its
    state lies on the devices)."""
    whole, rows = replicated(mesh), split(mesh)
    at = hasattr(network, "lstm_width")
    state_sharding = NamedSharding(mesh, PartitionSpec(None, "data")) if at else rows

    def speak(variables, photo, audio, state):
        spoken = network.apply(variables, *photo, audio, state=state)
        return [spoken.coefficients], spoken.state

    def draw(variables, photo, points, state):
        image, example = photo
        drawn = network.apply(variables, image, points, example, state=state)
        attention = to_u8(2 * drawn.attention[..., 0] - 1)
        return [to_u8(drawn.frames), attention], drawn.state

    step = jax.jit(
        speak if at else draw,
        in_shardings=(whole, rows, rows, state_sharding),
        out_shardings=(rows, state_sharding),
    )
    return step, state_sharding


def to_u8(x):
    """[-1, 1] -> 0..255, as `animate` does, on the device."""
    return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)


def padded(sequences) -> np.ndarray:
    """f32[T,...] of any lengths -> f32[B,T',...], T' whole chunks; last rows repeat."""
    longest = -(-max(map(len, sequences)) // CHUNK) * CHUNK
    rows = np.arange(longest)
    return np.stack([x[np.minimum(rows, len(x) - 1)] for x in sequences])


def flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(len(points), -1).astype(np.float32)


def resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """u8[T,H,W] or u8[T,H,W,3] -> the same at size x size."""
    import cv2

    if pictures.shape[1] == size:
        return pictures
    how = cv2.INTER_AREA if pictures.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(x, (size, size), interpolation=how) for x in pictures])
