"""A talker's frames are those of the whole recording, however it comes."""

import pathlib

import numpy as np
import pytest
import skimage.data

from input_pipeline.clip import InputError
from input_pipeline.media.audio import read_audio
from jax_atvg.inference import animate
from jax_atvg.inference.live import Talker, warm_up
from jax_atvg.inference.networks import as_networks
from jax_atvg.resources import DEFAULT_BUNDLE
from tests.small_bundle import photo, small_bundle, speech

pytestmark = pytest.mark.usefixtures("as_users_run_it")
SECONDS, RATE = 1.4, 44100
RESAMPLER_MS = 42  # by which the resampler is late, at most, at this rate


@pytest.fixture(scope="module")
def sound():
    return speech(SECONDS, RATE)


@pytest.fixture(scope="module")
def whole(as_users_run_it, alone, sound):
    return animate.animate(photo(), (sound, RATE), alone)


def said(talker, sound, sizes):
    """The frames of pushes of these sizes, again and again, and of the end."""
    frames, at = [], 0
    while at < len(sound):
        for size in sizes:
            frames.append(talker.push(sound[at : at + size]))
            at += size
    return np.concatenate([*frames, talker.flush()])


@pytest.mark.parametrize(
    "sizes",
    [(1 << 20,), (RATE // 25,), (997, 1, 0, 12000), (5 * RATE // 25, 300)],
    ids=["at once", "frame by frame", "odd", "some"],
)
def test_any_division_gives_animates_frames(alone, whole, sound, sizes):
    frames = said(Talker(photo(), alone, rate=RATE), sound, sizes)
    np.testing.assert_array_equal(frames, whole)


def test_a_frame_comes_when_its_sound_is_there(alone, sound):
    """Frame t, which begins at 40 t ms, hears until 175 ms later."""
    talker, seen = Talker(photo(), alone, rate=RATE), 0

    def complete(milliseconds):
        return max(0, (milliseconds - 175) // 40 + 1)

    for now in range(10, int(1000 * SECONDS), 10):
        samples = sound[(now - 10) * RATE // 1000 : now * RATE // 1000]
        seen += len(talker.push(samples))
        assert complete(now - RESAMPLER_MS) <= seen <= complete(now)


def test_after_the_end_another_recording_begins(alone, whole, sound):
    talker = Talker(photo(), alone, rate=RATE)
    first, second = (said(talker, sound, (3000,)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    talker.push(sound[:1000])
    with pytest.raises(InputError, match="280 ms is the least"):
        talker.flush()
    np.testing.assert_array_equal(said(talker, sound, (9000,)), whole)


def test_the_whole_picture(alone, sound):
    expected = animate.animate(photo(), (sound, RATE), alone, full_frame=True)
    talker = Talker(photo(), alone, rate=RATE, full_frame=True)
    assert talker.push(sound[:10]).shape == (0, *expected.shape[1:])
    frames = np.concatenate([talker.push(sound[10:]), talker.flush()])
    np.testing.assert_array_equal(frames, expected)


def test_two_talkers_share_networks_and_nothing_else(alone, whole, sound):
    one, other = (Talker(photo(), alone, rate=RATE) for _ in range(2))
    frames = []
    for at in range(0, len(sound), 4000):
        frames.append(one.push(sound[at : at + 4000]))
        other.push(sound[::-1][at : at + 4000].copy())
    np.testing.assert_array_equal(np.concatenate([*frames, one.flush()]), whole)


@pytest.mark.parametrize("recurrence", ["batch", "none"])
def test_networks_without_a_recurrence_over_time(sound, recurrence):
    bundle = small_bundle(recurrence=recurrence)
    expected = animate.animate(photo(), (sound, RATE), bundle)
    frames = said(Talker(photo(), bundle, rate=RATE), sound, (7000,))
    np.testing.assert_array_equal(frames, expected)


def test_after_the_warm_up_nothing_is_compiled(alone, sound, compilations):
    """Neither for the frames of a part of a call nor for those after a whole one."""
    warm_up(alone, animate.read_subject(photo(), alone.bundle).photo)
    talker = Talker(photo(), alone, rate=RATE)
    before = len(compilations)
    said(talker, sound, (RATE // 25,))
    assert before and len(compilations) == before


def test_what_cannot_be_used_is_told(three, alone):
    with pytest.raises(InputError, match="networks of batch_size=3: a talker has one"):
        Talker(photo(), three)
    with pytest.raises(InputError, match="rate=0; give samples a second"):
        Talker(photo(), alone, rate=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        Talker(photo(), alone).push(np.array([np.nan]))


def test_the_default_models_frames_are_animates():
    """Of the demo's photo and sentence, a word at a time."""
    image = pathlib.Path(skimage.data.__path__[0]) / "astronaut.png"
    sound = read_audio("demo/speech.flac")[: 2 * 16000]
    networks = as_networks(DEFAULT_BUNDLE)
    expected = animate.animate(image, (sound, 16000), networks)
    frames = said(Talker(image, networks), sound, (4800, 640, 7000))
    np.testing.assert_array_equal(frames, expected)
