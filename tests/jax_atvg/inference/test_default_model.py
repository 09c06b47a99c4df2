"""The bundle that comes with the program, on the photo and speech of `make demo`."""

import pathlib

import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.faces import landmarks
from input_pipeline.faces.landmarks import opening
from input_pipeline.media.image import to_float
from jax_atvg.evaluation.scores import correlation, mouth_box
from jax_atvg.inference.animate import read_speech, read_subject, talk
from jax_atvg.inference.bundle import load_bundle
from jax_atvg.inference.networks import Networks
from jax_atvg.resources import DEFAULT_BUNDLE
from tests.conftest import ROOT

MOST_BYTES = 24e6
SPEECH = ROOT / "demo" / "speech.flac"


@pytest.fixture(scope="module")
def networks():
    return Networks(load_bundle(DEFAULT_BUNDLE))


def spoken(networks, speech):
    """(points of every frame in crop pixels, frames in [-1,1], the photo's crop)."""
    subject = read_subject(astronaut(), networks.bundle, "largest")
    made = list(talk(networks, subject.photo, read_speech(speech)))
    points = landmarks.to_pixels(np.stack([p.landmarks for p in made]))
    frames = to_float(np.stack([p.frames for p in made]))
    return points.reshape(-1, 68, 2), frames, np.asarray(subject.photo.image[0])


def loudness(count):
    """Of the demo's speech, one value a frame: logarithm of the energy."""
    import soundfile

    samples, rate = soundfile.read(SPEECH)
    per_frame = np.resize(samples, count * rate // 25).reshape(count, -1)
    return np.log(np.mean(per_frame**2, -1) + 1e-6)


def test_it_is_small_and_says_what_it_is():
    folder = pathlib.Path(DEFAULT_BUNDLE)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < MOST_BYTES
    card = (folder.parent / "README.md").read_text()
    for needed in ("GRID", "CC BY 4.0", "Cooke", "consent", "docs/default_model.md"):
        assert needed in card


def test_the_lips_follow_the_sound_and_the_picture_follows_the_lips(networks):
    points, frames, photo = spoken(networks, SPEECH)
    assert len(frames) == pytest.approx(6.25 * 25, abs=1)
    lips = opening(points)
    assert lips.std() > 0.7
    assert correlation(lips, loudness(len(lips))) > 0.3
    change = np.abs(frames - photo).mean((0, 3))
    rows, columns = mouth_box(points)
    forehead = change[:24, 40:88].mean()
    assert change[rows, columns].mean() > 3 * forehead
    assert np.abs(frames).mean((1, 2, 3)).min() > 0.05  # no frame is grey


def test_silence_leaves_the_lips_almost_still(networks):
    rate = 16000
    silence = np.random.default_rng(0).normal(0, 1e-4, 2 * rate).astype(np.float32)
    still, talking = (
        opening(spoken(networks, speech)[0]).std()
        for speech in ((silence, rate), SPEECH)
    )
    assert still < talking / 3
