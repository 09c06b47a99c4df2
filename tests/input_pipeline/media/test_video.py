"""Frames and sound on one clock, and the way into a file and back."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.media import audio, video
from tests.input_pipeline.made_files import (
    flash_and_click,
    make,
    numbered,
    numbers,
    seen_and_heard,
)
from tests.input_pipeline.whole_files import read_video

# Reading


def test_a_grid_clip_is_75_frames_and_three_seconds(shared):
    path = shared("data", "grid", "s11", "bbae2n.mpg")
    clip = read_video(path)
    assert clip.frames.shape == (75, 288, 360, 3)
    assert clip.frames.flags.c_contiguous
    assert clip.samples.shape == (48000,)
    alone = audio.read_audio(path)  # 2.978 s: the tail is padded
    np.testing.assert_allclose(clip.samples[: len(alone)], alone, atol=1e-6)
    np.testing.assert_array_equal(clip.samples[len(alone) :], 0)


def test_frames_at_25_come_back_one_by_one(tmp_path):
    path = make(tmp_path / "a.mp4", numbered(60))
    np.testing.assert_array_equal(numbers(video.read_frames(path)), range(60))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "rate", [10, 12.5, 24, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001)]
)
def test_another_rate_gives_the_frame_nearest_in_time(tmp_path, rate, suffix):
    rate = Fraction(rate)
    count = 90
    path = make(tmp_path / f"a.{suffix}", numbered(count), rate)
    got = numbers(video.read_frames(path))
    assert len(got) == round(count / rate * 25)
    ahead = got / float(rate) - np.arange(len(got)) / 25
    early, late = min(0.5 / rate, 0.02), max(0.5 / rate, 1 / rate - 0.02)
    assert ahead[got < count - 1].max() <= early + 1e-3  # Matroska counts ms
    assert -ahead[got < count - 1].min() <= late + 1e-3
    assert (np.diff(got) >= 0).all()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "mov", "flv"])
@pytest.mark.parametrize("fps", [25, 30])
def test_reading_may_begin_anywhere(tmp_path, suffix, fps):
    path = make(tmp_path / f"a.{suffix}", numbered(160), 25)
    whole = list(video.read_frames(path, fps))
    for first in (1, 30, 77, len(whole) - 2):
        part = list(video.read_frames(path, fps, first))
        assert len(part) == len(whole) - first
        for a, b in zip(part, whole[first:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_rate_of_a_recording_whose_file_does_not_know_it(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mkv", numbered(40), 25)
    assert video.frame_rate(path) == 25
    monkeypatch.setattr(video, "FRAME_RATES", (26, 120))
    with pytest.raises(InputError, match="25 frames a second; 26 to 120 can be kept"):
        video.frame_rate(path)


def test_of_two_equally_near_frames_the_earlier_is_shown():
    timed = [(0.02 * n, n) for n in range(-1, 10)]
    zero = [(time + 0.02, n) for time, n in timed]
    assert list(video._nearest(zero, 0.02))[:3] == [-1, 1, 3]
    between = [(-0.02 + 0.04 * n, n) for n in range(4)]  # ticks lie half way
    assert list(video._nearest(between, 0.04))[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("starts", "kept"),
    [((0, 0), True), ((0.4, 0), True), ((0, 0.4), True), ((1, 1.3), True)],
)
def test_sound_and_frames_stay_together_whichever_starts_first(tmp_path, starts, kept):
    frames, sound = flash_and_click(25, 40)
    frame_start, sound_start = starts
    shifted = np.roll(sound, round(16000 * (frame_start - sound_start)))
    path = make(tmp_path / "a.mkv", frames, 25, shifted, frame_start, sound_start)
    clip = read_video(path)
    assert clip.frames.shape[0] == 75
    assert clip.samples.shape == (48000,)
    flash, click = seen_and_heard(clip)
    assert flash == 1.6
    assert abs(click - flash) < 0.01


@pytest.mark.parametrize("rate", [30, Fraction(30000, 1001), 50])
def test_resampled_frames_stay_with_the_sound(tmp_path, rate):
    frames, sound = flash_and_click(Fraction(rate), 48)
    flash, click = seen_and_heard(
        read_video(make(tmp_path / "a.mkv", frames, rate, sound))
    )
    assert abs(click - flash) < 0.5 / 25 + 0.01


def test_a_phone_video_is_turned_upright(tmp_path):
    upright = np.zeros((64, 48, 3), np.uint8)
    upright[:32], upright[32:] = (200, 30, 30), (30, 30, 200)
    lying = np.ascontiguousarray(np.rot90(upright))  # to be turned clockwise
    path = make(tmp_path / "a.mp4", [lying] * 3)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    turn = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = turn.tobytes()
    path.write_bytes(data)
    got = next(video.read_frames(path)).astype(int)
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 5


def test_what_cannot_be_read_is_an_input_error(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name, message in [
        ("none.mp4", "no such file"),
        ("", "is a folder"),
        ("text.mp4", "not a video file that can be read"),
    ]:
        with pytest.raises(InputError, match=message):
            read_video(tmp_path / name)
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16000)
    with pytest.raises(InputError, match="no video in the file"):
        read_video(tmp_path / "a.wav")
    with pytest.raises(InputError, match="no sound"):
        read_video(make(tmp_path / "a.mp4", numbered(5)))


def test_damage_is_an_input_error(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mkv", numbered(30), sound=np.zeros(19200, np.float32))

    def fail(*_):
        raise av.FFmpegError(1, "broken")
        yield

    monkeypatch.setattr(video, "_nearest", fail)
    with pytest.raises(InputError, match=r"damaged after 0 frames \(broken\)"):
        list(video.read_frames(path))
    monkeypatch.setattr(video, "_nearest", lambda *_: iter(()))
    with pytest.raises(InputError, match="has no frames"):
        list(video.read_frames(path))
    monkeypatch.setattr(av, "AudioResampler", lambda *_, **__: Broken())
    with pytest.raises(InputError, match=r"sound is damaged \(broken\)"):
        video.read_sound(path)


class Broken:
    def resample(self, _):
        raise av.FFmpegError(1, "broken")


def test_frames_are_read_without_holding_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    path = make(tmp_path / "a.mp4", [noise] * 100)
    tracemalloc.start()
    assert sum(1 for _ in video.read_frames(path)) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * noise.nbytes


# Writing


def tone(rate, seconds, channels=1):
    t = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * t)[:, None] * 0.5 ** np.arange(channels)
    return wave.astype(np.float32)


def test_colours_come_back_within_three_levels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (12, 3))
    colours[:5] = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    with video.VideoWriter(tmp_path / "a.mp4") as writer:
        for colour in colours:
            writer.write(np.full((48, 64, 3), colour, np.uint8))
    for colour, frame in zip(
        colours, video.read_frames(tmp_path / "a.mp4"), strict=True
    ):
        assert np.abs(frame - colour).max() <= 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.colorspace == 1  # BT.709, tagged: every player agrees
        assert context.color_range == 1
        assert context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_the_sound_goes_along_and_ends_with_the_frames(tmp_path, rate, channels):
    sound = tone(rate, 2.5, channels)
    with video.VideoWriter(
        tmp_path / "a.mp4", (rate, iter(np.array_split(sound, 7)))
    ) as writer:
        for frame in numbered(50):
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        picture, track = container.streams.video[0], container.streams.audio[0]
        assert picture.average_rate == 25
        assert float(picture.duration * picture.time_base) == pytest.approx(2)
        assert float(track.duration * track.time_base) == pytest.approx(2, abs=0.04)
        assert track.channels == min(channels, 2) if channels < 6 else 1
        assert track.rate == (rate if rate in video.AAC_RATES else 48000)
    expected = audio.from_array(sound[: 2 * rate], rate)[1600:30000]
    got = read_video(tmp_path / "a.mp4").samples[1600:30000]
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05  # half a sample off: 0.03


def test_written_flash_and_click_come_back_together(tmp_path):
    frames, sound = flash_and_click(25, 40)
    with video.VideoWriter(tmp_path / "a.mp4", (16000, [sound[:, None]])) as writer:
        for frame in frames:
            writer.write(frame)
    flash, click = seen_and_heard(read_video(tmp_path / "a.mp4"))
    assert flash == 1.6
    assert abs(click - flash) < 0.01


def test_a_short_sound_and_none_at_all_are_fine(tmp_path):
    for sound in [None, (16000, iter([])), (16000, [tone(16000, 0.3)])]:
        with video.VideoWriter(tmp_path / "a.mp4", sound) as writer:
            for frame in numbered(20):
                writer.write(frame)
        assert sum(1 for _ in video.read_frames(tmp_path / "a.mp4")) == 20


def test_odd_sides_repeat_their_last_line(tmp_path):
    frame = np.full((33, 65, 3), 90, np.uint8)
    frame[:, 64], frame[32] = 200, 200
    with video.VideoWriter(tmp_path / "a.mp4") as writer:
        for _ in range(3):
            writer.write(frame)
    got = next(video.read_frames(tmp_path / "a.mp4"))
    assert got.shape == (34, 66, 3)
    expected = np.pad(frame, ((0, 1), (0, 1), (0, 0)), "edge")
    assert np.abs(got.astype(int) - expected).mean() < 3


def test_the_comment_is_carried_and_the_index_comes_first(tmp_path):
    comment = '{"made by": "a model, ätsch", "seed": 3}' * 50
    with video.VideoWriter(tmp_path / "a.mp4", comment=comment) as writer:
        writer.write(numbered(1)[0])
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == comment
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_sound_is_pulled_as_the_frames_go(tmp_path):
    pulled = []

    def endless():
        while True:
            pulled.append(len(pulled))
            yield np.zeros((1600, 1), np.float32)

    with video.VideoWriter(tmp_path / "a.mp4", (16000, endless())) as writer:
        for count, frame in enumerate(numbered(50), start=1):
            writer.write(frame)
            assert len(pulled) * 1600 <= count * 640 + 2 * 1600


def test_an_exception_leaves_nothing_and_an_older_file_untouched(tmp_path):
    (tmp_path / "a.mp4").write_text("older")
    with (
        pytest.raises(RuntimeError, match="stop"),
        video.VideoWriter(tmp_path / "a.mp4", (16000, [tone(16000, 1)])) as writer,
    ):
        for frame in numbered(60):  # enough for the encoder to let some out
            writer.write(frame)
        assert len(list(tmp_path.glob("a.partial.*.mp4"))) == 1
        raise RuntimeError("stop")
    with (
        pytest.raises(InputError, match="write frames of one size"),
        video.VideoWriter(tmp_path / "a.mp4") as writer,
    ):
        writer.write(np.zeros((16, 16, 3), np.uint8))
        writer.write(np.zeros((16, 18, 3), np.uint8))
    with (
        pytest.raises(InputError, match="no frame was written"),
        video.VideoWriter(tmp_path / "a.mp4"),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "older"


def test_an_impossible_place_is_refused_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="its folder does not exist"):
        video.VideoWriter(tmp_path / "none" / "a.mp4")
    with pytest.raises(InputError, match="is a folder"):
        video.VideoWriter(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        video.VideoWriter(tmp_path / "a.mp4")
