"""Sound of every kind -> 16 kHz as librosa; features as the authors' package."""

import tracemalloc
import warnings

import av
import numpy as np
import pytest
import soundfile
from python_speech_features import mfcc as whole_mfcc

from input_pipeline.clip import InputError
from input_pipeline.media import audio, container, features
from tests.input_pipeline.whole_files import windows

SOUNDS = ["audio_sample", "clip44k"]


def chirp(rate, seconds=1.0, channels=1):
    """A rising tone, other channels softer; band-limited below 3.5 kHz."""
    t = np.arange(round(rate * seconds)) / rate
    tone = 0.5 * np.sin(2 * np.pi * (200 * t + 1500 * t**2))
    return (tone[:, None] * 0.5 ** np.arange(channels)).astype(np.float32)


# Reading


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_reading_equals_librosa(tmp_path, rate, channels):
    import librosa

    soundfile.write(tmp_path / "a.wav", chirp(rate, 1.3, channels), rate, "PCM_16")
    expected, _ = librosa.load(tmp_path / "a.wav", sr=16000)
    got = audio.read_audio(tmp_path / "a.wav")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_reading_equals_the_reference(reference, tmp_path):
    stored = reference("preprocess_audio_clip44k.npz")
    rate = int(stored["original_sr"])
    for original, expected in [
        (stored["original_samples_int16"], stored["samples_16k"]),
        (stored["stereo_original_int16"], stored["stereo_16k"]),
    ]:
        soundfile.write(tmp_path / "a.wav", original, rate)
        got = audio.read_audio(tmp_path / "a.wav")
        np.testing.assert_allclose(got, expected, atol=2e-6)
        np.testing.assert_array_equal(audio.from_array(original, rate), got)


@pytest.mark.parametrize("block", [1, 1000, 65536])
def test_samples_do_not_depend_on_the_block_size(monkeypatch, block):
    sound = chirp(44100, 0.5)[:, 0]
    expected = audio.from_array(sound, 44100)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", block)
    np.testing.assert_allclose(audio.from_array(sound, 44100), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "FLOAT", 1e-4),
        ("a.wav", "PCM_24", 1e-4),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.03),
        ("a.mp3", "MPEG_LAYER_III", 0.03),
    ],
)
def test_every_format_gives_the_same_sound(tmp_path, name, subtype, tolerance):
    soundfile.write(tmp_path / name, chirp(48000, 1, 2), 48000, subtype=subtype)
    got = audio.read_audio(tmp_path / name)[:16000]
    inside = slice(800, 15200)  # codecs ring at the ends
    expected = chirp(16000)[:, 0] * 0.75  # the mean of 1 and 1/2
    assert np.sqrt(np.mean((got - expected)[inside] ** 2)) < tolerance


def test_the_sound_of_a_video_is_read(shared):
    reader = audio.AudioReader(shared("data", "grid", "s11", "bbae2n.mpg"))
    assert (reader.rate, reader.channels) == (44100, 2)
    blocks = list(reader.blocks())
    assert all(b.dtype == np.float32 and b.shape[1] == 2 for b in blocks)
    assert len(np.concatenate(blocks)) / 44100 == pytest.approx(2.978, abs=0.03)
    samples = audio.read_audio(reader.path)
    assert len(samples) == -(-len(np.concatenate(blocks)) * 16000 // 44100)
    assert 0.01 < np.abs(samples).max() <= 1
    assert len(np.concatenate(list(reader.blocks()))) == len(np.concatenate(blocks))


def test_long_sound_is_never_held_at_its_own_rate(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 48000, 2) as file:
        for _ in range(180):
            file.write(np.zeros((48000, 2)))
    tracemalloc.start()
    samples = audio.read_audio(tmp_path / "a.wav")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * samples.nbytes  # the original is 6 times as large


@pytest.mark.parametrize("channels", [1, 2])
def test_of_a_sound_that_is_too_long_no_more_is_decoded(
    tmp_path, monkeypatch, channels
):
    soundfile.write(tmp_path / "a.wav", chirp(16000, 4, channels), 16000)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 4000)
    reader, decoded = audio.AudioReader(tmp_path / "a.wav", most=2), []
    whole = reader._read

    def counted():
        for block in whole():
            decoded.append(len(block))
            yield block

    reader._read = counted
    with pytest.raises(InputError, match=r"a\.wav is longer than 2 s; cut it"):
        list(reader.mono_16k())
    assert sum(decoded) == 2 * 16000 + 4000
    as_long = audio.AudioReader(tmp_path / "a.wav", most=4)
    np.testing.assert_array_equal(
        audio.joined(as_long.mono_16k()), audio.read_audio(tmp_path / "a.wav")
    )


def test_integers_are_scaled_by_their_range():
    sound = chirp(16000)[:, 0]
    for dtype in (np.int16, np.int32):
        integers = np.round(sound * -float(np.iinfo(dtype).min)).astype(dtype)
        got = audio.from_array(integers, 16000)
        np.testing.assert_allclose(got, sound, atol=1e-4)
    stereo = np.stack([sound, sound / 3], 1)
    np.testing.assert_allclose(
        audio.from_array(stereo, 16000), sound * (2 / 3), atol=1e-6
    )


# Refusals


def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    for name, message in [
        ("none.wav", "no such file"),
        ("", "is a folder"),
        ("empty.wav", "is empty"),
        ("text.wav", "not a sound or video file that can be read"),
    ]:
        with pytest.raises(InputError, match=message):
            audio.read_audio(tmp_path / name)


def test_a_picture_has_no_sound(tmp_path):
    from input_pipeline.media.image import write_image

    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="no sound in the file"):
        audio.AudioReader(tmp_path / "a.png")


def test_damage_in_the_middle_is_an_input_error(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", chirp(16000), 16000)
    reader = audio.AudioReader(tmp_path / "a.wav")

    def broken():
        yield np.zeros((5, 1), np.float32)
        raise soundfile.LibsndfileError(1)

    reader._read = broken
    with pytest.raises(InputError, match="damaged"):
        list(reader.blocks())


def test_a_decoder_that_cannot_be_opened_is_an_error_of_ffmpeg(tmp_path):
    """Whatever PyAV says of the packets after the first."""
    path = tmp_path / "a.flac"
    soundfile.write(path, chirp(16000, 8.0), 16000)
    data = bytearray(path.read_bytes())
    data[8:12] = b"\x10\x01\0\0"  # blocks of 4097 samples at least and 0 at most
    path.write_bytes(data)
    with container.open_media(path, "a sound") as media:
        stream = container.sound_stream(media, path)
        with pytest.raises(av.InvalidDataError):
            list(container.decodable(media, stream))


def test_short_broken_and_rateless_sound_is_refused(tmp_path):
    with pytest.raises(InputError, match="279 ms of sound; 280 ms is the least"):
        audio.from_array(np.zeros(4479, np.float32)[:4464], 16000)
    audio.check_audio(np.zeros(4480, np.float32))
    with pytest.raises(InputError, match="me: 0 ms"):
        audio.check_audio(np.zeros(0, np.float32), "me")
    with pytest.raises(InputError, match="rate=0"):
        audio.from_array(np.zeros(9), 0)
    sound = chirp(48000, 3)
    sound[100_000], sound[100_007] = np.nan, np.inf
    message = "2 samples are NaN or infinite, the first at sample 100000, 2\\.083 s"
    with pytest.raises(InputError, match=message):
        audio.from_array(sound, 48000)
    soundfile.write(tmp_path / "a.wav", sound, 48000, "FLOAT")
    with pytest.raises(InputError, match=message):
        audio.read_audio(tmp_path / "a.wav")


def test_silence_is_below_minus_sixty_decibels():
    assert audio.is_silent(np.full(100, 0.0009, np.float32))
    assert not audio.is_silent(np.array([0, -0.0011], np.float32))
    assert audio.is_silent(np.zeros(0, np.float32))


# Features


@pytest.mark.parametrize("name", SOUNDS)
def test_mfcc_equals_the_authors(reference, name):
    stored = reference(f"preprocess_audio_{name}.npz")
    samples = stored["samples_16k"]
    np.testing.assert_allclose(
        features.mfcc(samples), stored["mfcc_unpadded"], atol=1e-3
    )
    padded = np.pad(samples.astype(np.float64), 1920)
    np.testing.assert_allclose(
        features.mfcc(padded), stored["mfcc_padded"], atol=1e-5, rtol=1e-6
    )


@pytest.mark.parametrize("length", [0, 1, 399, 400, 401, 560, 561, 8000, 8123])
def test_mfcc_in_blocks_equals_mfcc_at_once(monkeypatch, length):
    samples = np.random.default_rng(0).normal(size=length)
    if not length:
        assert features.mfcc(samples).shape == (1, 13)
        return
    expected = whole_mfcc(samples, 16000, winstep=0.01).astype(np.float32)
    for rows in (1, 2, 7, 6000):
        monkeypatch.setattr(features, "BLOCK_ROWS", rows)
        np.testing.assert_allclose(
            features.mfcc(samples), expected, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", SOUNDS)
def test_windows_equal_the_authors(reference, name):
    stored = reference(f"preprocess_audio_{name}.npz")
    got = audio.hear([stored["samples_16k"]]).windows
    assert len(got) == round(len(stored["samples_16k"]) / 640)
    theirs = stored["windows"]  # theirs end one window early
    np.testing.assert_allclose(got[: len(theirs)], theirs, atol=1e-4)


def test_window_t_is_rows_4t_to_4t_plus_27_without_the_energy():
    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    rows = features.mfcc(np.pad(samples, 1920))
    got = audio.hear([samples]).windows
    assert got.shape == (25, 28, 12)
    for t in range(24):
        np.testing.assert_array_equal(got[t], rows[4 * t : 4 * t + 28, 1:])


def test_silence_follows_the_end_of_the_sound():
    """The last window reaches 0.12 s beyond it."""
    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    got, expected = audio.hear([samples]).windows, windows(samples, 40)
    np.testing.assert_array_equal(got, expected[:25])
    np.testing.assert_array_equal(expected[30], expected[39])


def test_windows_are_a_view_that_costs_no_memory():
    samples = np.random.default_rng(0).normal(size=16000 * 60).astype(np.float32)
    got = audio.hear([samples]).windows
    assert got.shape == (1500, 28, 12)
    first, second = got[0], got[1]
    assert np.shares_memory(first, second)
    assert not got.flags.writeable


def test_features_are_finite_for_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(audio.hear([np.zeros(16000, np.float32)]).windows).all()


def test_unsigned_samples_have_silence_in_the_middle_of_their_range():
    """As 8-bit WAV files are read by scipy."""
    wave = np.sin(np.arange(16000) / 50)
    signed = audio.from_array(np.round(127 * wave).astype(np.int8), 16000)
    unsigned = audio.from_array((128 + np.round(127 * wave)).astype(np.uint8), 16000)
    np.testing.assert_allclose(unsigned, signed, atol=1e-6)
    assert abs(unsigned.mean()) < 0.02
