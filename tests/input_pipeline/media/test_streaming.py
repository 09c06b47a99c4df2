"""Sound that is still being recorded is heard as the whole recording is."""

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.media import audio
from input_pipeline.media.streaming import SoundStream

RATES = (16000, 44100, 48000, 8000)


def recording(rate, seconds=1.3):
    random = np.random.default_rng(rate)
    return (0.2 * random.normal(size=int(seconds * rate))).astype(np.float32)


def streamed(samples, rate, sizes):
    """The windows that come back for pushes of these sizes, again and again."""
    stream, parts, at = SoundStream(rate), [], 0
    while at < len(samples):
        for size in sizes:
            parts.append(stream.push(samples[at : at + size]))
            at += size
    return np.concatenate([*parts, stream.close()])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sizes", [(1 << 20,), (640,), (1, 0, 977, 12), (4096, 31)])
def test_any_division_gives_the_windows_of_the_whole(rate, sizes):
    samples = recording(rate)
    whole = audio.hear([audio.from_array(samples, rate)]).windows
    np.testing.assert_array_equal(streamed(samples, rate, sizes), whole)


def test_integers_and_channels_are_taken_as_from_arrays():
    samples = (recording(16000)[:, None] * [20000, 9000]).astype(np.int16)
    whole = audio.hear([audio.from_array(samples, 16000)]).windows
    np.testing.assert_array_equal(streamed(samples, 16000, (500,)), whole)


def test_of_opposite_channels_the_mean_is_heard_and_not_the_louder_one_as_in_a_whole():
    samples = recording(16000)[:, None] * np.float32([1, -1])
    heard = streamed(samples, 16000, (500,))
    nothing, louder = (
        audio.hear([sound]).windows
        for sound in (np.zeros_like(samples[:, 0]), audio.from_array(samples, 16000))
    )
    np.testing.assert_array_equal(heard, nothing)
    assert (heard != louder).any()


def test_a_window_comes_as_soon_as_its_sound_is_there():
    """That of frame t ends 2800 samples after the frame begins: it looks 135 ms beyond
    the frame's own 40 ms."""
    stream, samples, seen = SoundStream(), recording(16000), 0
    for at in range(0, 16000, 160):
        seen += len(stream.push(samples[at : at + 160]))
        heard = at + 160
        assert seen == max(0, (heard - 2800) // 640 + 1)


def test_memory_does_not_grow():
    stream = SoundStream(48000)
    for _ in range(100):
        stream.push(recording(48000, 0.5))
    assert len(stream.features) < 28 + 4 and len(stream.rows.kept) < 1000


def test_bad_sound_is_told_at_once_and_not_taken():
    stream, good = SoundStream(), recording(16000)
    first = stream.push(good[:8000])
    for bad, message in (
        (
            np.array([0.0, np.nan]),
            "1 samples are NaN or infinite, the first at sample 8",
        ),
        (np.full(4, 300.0), "samples reach 300"),
    ):
        with pytest.raises(InputError, match=message):
            stream.push(bad)
    got = np.concatenate([first, stream.push(good[8000:]), stream.close()])
    np.testing.assert_array_equal(got, audio.hear([good]).windows)
    with pytest.raises(InputError, match="rate=0"):
        SoundStream(0)
    short = SoundStream()
    short.push(good[:100])
    with pytest.raises(InputError, match="280 ms is the least"):
        short.close()
