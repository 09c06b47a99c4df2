"""A studio with small networks, and what visitors bring."""

import numpy as np
import pytest
import skimage.data
import soundfile
from PIL import Image

from jax_atvg.inference.networks import Networks
from jax_atvg.web.studio import Limits, Studio
from tests.small_bundle import small_bundle, speech

SECONDS = 0.6


@pytest.fixture(scope="session")
def brought(tmp_path_factory):
    """A folder with face.png, two.png (two faces, the right one grey), speech.wav and
    long.wav."""
    folder = tmp_path_factory.mktemp("brought")
    face = skimage.data.astronaut()
    Image.fromarray(face).save(folder / "face.png")
    head = face[:300, 60:360]
    grey = np.repeat(head.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    Image.fromarray(np.concatenate([head, grey], 1)).save(folder / "two.png")
    soundfile.write(folder / "speech.wav", speech(SECONDS, 16000), 16000)
    soundfile.write(folder / "long.wav", speech(3.0, 16000), 16000)
    return folder


@pytest.fixture(scope="session")
def networks():
    return Networks(small_bundle())


@pytest.fixture
def studio(networks, tmp_path):
    return Studio(networks, tmp_path, Limits(megabytes=2, seconds=2, waiting=1))
