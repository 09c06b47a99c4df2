"""AT-net as a listener: how far a mouth should be open, by the sound alone."""

import functools
import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from input_pipeline.clip import CROP_SIZE, Clip
from input_pipeline.faces.landmarks import as_points, opening
from input_pipeline.training_data import sampling
from jax_atvg.inference.bundle import existing
from jax_atvg.inference.networks import Networks, as_networks
from jax_atvg.inference.predict import Photo


class BundleListener(NamedTuple):
    """Hears with the AT-net of a bundle: see input_pipeline.preparation.sync.

    bundle: its folder.  Every process that calls it reads the bundle once.
    """

    bundle: str

    def __call__(self, clip: Clip) -> Float32[np.ndarray, "T"]:
        """The opening of the mouth in every frame of the clip, that of a face with the
        clip's median landmarks which says what is heard.  InputError: no such bundle.
        """
        networks = _networks(self.bundle)
        shape = np.median(sampling.flat_landmarks(clip), 0)[None]
        coefficients, landmarks, own = networks.bundle.recognise(shape)
        nothing = np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.float32)
        photo = Photo(nothing, coefficients, landmarks, own)
        windows = np.ascontiguousarray(sampling.audio_windows(clip))
        return opening(as_points(networks.speak(photo, windows[None])[0]))

    def key(self) -> str:
        """A hash of the bundle's files.  InputError: no such bundle."""
        return _hash(self.bundle)


@functools.cache
def _networks(bundle: str) -> Networks:
    return as_networks(bundle)


@functools.cache
def _hash(bundle: str) -> str:
    digest = hashlib.sha256()
    folder = existing(bundle)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
