"""Runs both networks over whole clips, in all modes that the evaluation scores.

Letters: B clips, T frames, S the networks' picture size; points are pixels of the
128x128 crop.
"""

import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline.clip import CROP_SIZE
from input_pipeline.faces import align
from input_pipeline.faces.landmarks import as_points
from input_pipeline.media.image import to_float, to_size
from jax_atvg.evaluation.dubbing import dubbed
from jax_atvg.evaluation.metrics import Frames, Points
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.dub import check_dubs
from jax_atvg.inference.networks import Networks
from jax_atvg.inference.predict import Photo
from jax_atvg.sharding import data_mesh

# Clips at a time, for each device.  One clip does not keep an accelerator busy.
CPU_CLIPS, CLIPS = 1, 16


class Take(NamedTuple):
    """A clip, decoded.

    sound: MFCC windows, f32[T,28,12].  other_sound: those of another clip; None if
    there is no other clip.
    """

    frames: Frames
    points: Points
    sound: np.ndarray
    other_sound: np.ndarray | None


class Made(NamedTuple):
    """What the networks generate for one clip.

    at: landmarks by mode, f64[T,68,2].  frames: by mode, u8[T,128,128,3].  attention:
    that of end_to_end, u8[T,128,128].  With landmarks_only the latter are {} and None.
    """

    at: dict[str, Points]
    frames: dict[str, Frames]
    attention: np.ndarray | None


class Synthesis:
    """Runs the networks over batches of clips, in all modes, and measures their speed.

    batch_size: clips at a time, raised to a multiple of the mesh's devices; 0 for
    CPU_CLIPS or CLIPS on each of them, and no more than `count`, how many there are in
    all.  mesh: all devices of this process unless given.
    precision: see models/precision.py.  dub: every clip is dubbed, too.
    end_to_end_only: of the modes of frames, none but this (and dub).
    """

    def __init__(
        self,
        bundle: Bundle,
        batch_size: int = 0,
        mesh: Mesh | None = None,
        precision: str = "default",
        dub: bool = False,
        end_to_end_only: bool = False,
        count: int = sys.maxsize,
    ):
        self.end_to_end_only = end_to_end_only
        mesh = mesh or data_mesh(jax.local_devices())
        self.device = mesh.devices.flat[0]
        each = CPU_CLIPS if self.device.platform == "cpu" else CLIPS
        batch_size = batch_size or min(each * mesh.size, count)
        self.networks = Networks(bundle, batch_size, mesh, precision)
        self.bundle, self.batch_size = self.networks.bundle, self.networks.batch_size
        self.seconds, self.made, self.warm = 0.0, 0, False
        self.dubbing = None
        if dub:  # one clip at a time
            check_dubs(self.bundle)
            single = self.networks
            if self.batch_size > 1:
                single = Networks(bundle, 1, data_mesh([self.device]), precision)
            self.dubbing = single

    def __call__(self, takes: list[Take], landmarks_only: bool = False) -> list[Made]:
        """A Made for each clip, of which there are batch_size at most.

        landmarks_only: VG-net is not run; there are no frames and no attention.
        """
        bundle, networks, count = self.bundle, self.networks, len(takes)
        takes = takes + takes[-1:] * (self.batch_size - count)
        size = bundle.vg_net.image_size
        image = to_float(np.stack([resized(x.frames[:1], size)[0] for x in takes]))
        inverse = align.invert(bundle.landmark_to_crop)
        truth = padded([flat(align.transform(inverse, x.points)) for x in takes])
        photo = Photo(image, *bundle.recognise(truth[:, 0]))

        def speak(sounds):
            return networks.speak(photo, padded(sounds))

        def draw(landmarks):
            return networks.draw(photo.image, photo.landmarks, landmarks)

        if not self.warm:  # compile before anything is timed
            self.warm = True
            short = speak([take.sound[:1] for take in takes])
            if not landmarks_only:
                draw(short)
        begin = time.perf_counter()
        spoken, drawn = {"": speak([take.sound for take in takes])}, {}
        if not landmarks_only:
            drawn["end_to_end"] = draw(spoken[""])
        self.seconds += time.perf_counter() - begin
        self.made += sum(len(take.frames) for take in takes[:count])
        if all(take.other_sound is not None for take in takes):
            spoken["_shuffled"] = speak([take.other_sound for take in takes])
        if not (landmarks_only or self.end_to_end_only):
            drawn["teacher"] = networks.draw(image, truth[:, 0], truth)
            if "_shuffled" in spoken:
                drawn["end_to_end_shuffled"] = draw(spoken["_shuffled"])

        def made(row: int, length: int) -> Made:
            at = {
                f"at{name}": align.transform(
                    bundle.landmark_to_crop, as_points(p[row, :length])
                )
                for name, p in spoken.items()
            }
            frames = {
                name: resized(pictures[row, :length], CROP_SIZE)
                for name, (pictures, _) in drawn.items()
            }
            if landmarks_only:
                return Made(at, frames, None)
            if self.dubbing is not None:
                take = takes[row]
                sounds = {"dub": take.sound, "dub_shuffled": take.other_sound}
                frames |= {
                    name: dubbed(self.dubbing, take.frames, take.points, sound)
                    for name, sound in sounds.items()
                    if sound is not None
                }
            attention = drawn["end_to_end"][1][row, :length]
            return Made(at, frames, resized(attention, CROP_SIZE))

        return [made(row, len(take.frames)) for row, take in enumerate(takes[:count])]

    def pace(self) -> dict[str, Any]:
        """The speed so far, in frames per second, and the devices.

        Only mode end_to_end is timed: from sound to frames on the host (with
        landmarks_only, to landmarks).  On a CPU, processes that score frames meanwhile
        make it slower.
        """
        mesh = self.networks.mesh
        return {
            "frames_per_second": round(self.made / max(self.seconds, 1e-9), 2),
            "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
        }


def padded(sequences) -> np.ndarray:
    """Stacks sequences f32[T,...]: f32[B,T',...], with T' the largest T.

    Shorter ones repeat their last row.
    """
    rows = np.arange(max(map(len, sequences)))
    return np.stack([x[np.minimum(rows, len(x) - 1)] for x in sequences])


def flat(points: np.ndarray) -> np.ndarray:
    """f[T,68,2] -> f32[T,136]."""
    return points.reshape(len(points), -1).astype(np.float32)


def resized(pictures: np.ndarray, size: int) -> np.ndarray:
    """Resizes pictures, u8[T,H,W] or u8[T,H,W,3], to size x size pixels."""
    if pictures.shape[1] == size:
        return pictures
    return np.stack([to_size(x, size) for x in pictures])
