"""What a container says is honoured: stamps, tracks, channels, pixels, colours."""

import subprocess
import sys
import time
import wave
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import soundfile

from input_pipeline.clip import InputError
from input_pipeline.media import audio, container, hdr, video
from tests.input_pipeline.made_files import (
    flash_and_click,
    make,
    numbered,
    numbers,
    seen_and_heard,
)
from tests.input_pipeline.whole_files import read_video


def tone(pitch, seconds=1.0, rate=16000):
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def pitch_of(samples, rate=16000):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


# Time stamps


def test_an_earlier_picture_stays_while_a_video_pauses(tmp_path):
    frames, sound = flash_and_click(25, 40)
    stamps = [t / 25 if t < 40 else t / 25 + 0.8 for t in range(75)]
    sound = np.concatenate([np.zeros(12800, np.float32), sound])
    clip = read_video(make(tmp_path / "a.mkv", frames, 25, sound, stamps=stamps))
    flash, click = seen_and_heard(clip)
    assert len(clip.frames) == 95
    assert flash == 2.4
    assert abs(click - flash) < 0.01


def test_lost_sound_is_silence_and_what_follows_stays_in_place(tmp_path):
    frames, sound = flash_and_click(25, 60)
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(sound))
    sound = np.where(sound == 0, noise, sound).astype(np.float32)
    parts = [(0.0, sound[:16000]), (1.15, sound[18400:])]
    clip = read_video(make(tmp_path / "a.mkv", frames, 25, parts))
    flash, click = seen_and_heard(clip)
    assert abs(click - flash) < 0.01
    np.testing.assert_array_equal(clip.samples[16000:18400], 0)
    np.testing.assert_allclose(clip.samples[18400:], sound[18400:], atol=1e-4)


def test_of_sound_that_overlaps_the_surplus_is_left_out(tmp_path):
    frames, sound = flash_and_click(25, 60)
    parts = [(0.0, sound[:16000]), (0.9, sound[14400:])]
    clip = read_video(make(tmp_path / "a.mkv", frames, 25, parts))
    flash, click = seen_and_heard(clip)
    assert abs(click - flash) < 0.01


def test_stamps_that_jump_end_with_one_line_at_once(tmp_path):
    stamps = [t / 25 + 3600 * (t >= 20) for t in range(40)]
    path = make(tmp_path / "a.mkv", numbered(40), 25, tone(300), stamps=stamps)
    begin = time.perf_counter()
    with pytest.raises(InputError, match=r"jump 3600.0 s ahead after 0.8 s"):
        list(video.read_frames(path))
    parts = [(0.0, tone(300)), (3600.0, tone(300))]
    path = make(tmp_path / "b.mkv", numbered(40), 25, parts)
    with pytest.raises(InputError, match=r"jump 3599.0 s ahead after 1.0 s"):
        video.read_sound(path)
    assert time.perf_counter() - begin < 30


def test_joined_files_whose_stamps_start_again_are_refused_by_name(tmp_path):
    part = make(tmp_path / "a.ts", numbered(75), 25, tone(300, 3.0))
    whole = tmp_path / "b.ts"
    whole.write_bytes(part.read_bytes() * 2)
    for read in (lambda p: list(video.read_frames(p)), video.read_sound):
        with pytest.raises(InputError, match=r"the time stamps go back by [23]\.. s"):
            read(whole)


def test_pictures_without_stamps_continue_those_before():
    class Picture:
        def __init__(self, time):
            self.time = time

    times = [5.0, None, None, 5.12, None]
    got = container.timed_pictures(map(Picture, times), 25.0, "a")
    np.testing.assert_allclose([t for t, _ in got], [0, 0.04, 0.08, 0.12, 0.16])


# Sound


def test_a_change_from_mono_to_stereo_and_of_the_rate_is_followed(tmp_path):
    """As in joined AAC: the speech keeps its pitch and its length."""
    whole = tmp_path / "a.aac"
    for rate, channels, pitch in ((22050, 1, 300), (44100, 2, 700), (16000, 1, 500)):
        part = tmp_path / "part.aac"
        with av.open(str(part), "w", format="adts") as file:
            layout = "mono" if channels == 1 else "stereo"
            track = file.add_stream("aac", rate, layout=layout)
            samples = np.tile(tone(pitch, 1.0, rate), (channels, 1)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
            frame.sample_rate = rate
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
        with whole.open("ab") as file:
            file.write(part.read_bytes())
    reader = audio.AudioReader(whole)
    assert (reader.rate, reader.channels) == (22050, 1)
    samples = audio.read_audio(whole)
    assert len(samples) == pytest.approx(3 * 16000, abs=0.3 * 16000)
    for second, pitch in enumerate((300, 700, 500)):
        begin = round((second + 0.3) * len(samples) / 3)
        assert abs(pitch_of(samples[begin : begin + 8000]) - pitch) < 5


@pytest.mark.parametrize("channels", [3, 6, 7, 8, 16])
def test_many_channels_are_mixed_to_one(tmp_path, channels):
    each = np.tile(tone(440), (channels, 1)).T
    soundfile.write(tmp_path / "a.wav", each, 16000)
    reader = audio.AudioReader(tmp_path / "a.wav")
    assert reader.channels == 1
    (mixed,) = np.concatenate(list(reader.blocks())).T
    assert len(mixed) == 16000
    factor = mixed @ each[:, 0] / (each[:, 0] @ each[:, 0])
    np.testing.assert_allclose(mixed, factor * each[:, 0], atol=1e-3)
    assert 0.1 < factor <= 1.01  # neither lost nor clipped


def test_ffmpeg_knows_that_speech_is_in_the_centre_of_5_1(tmp_path):
    names = ["FL", "FR", "FC", "LFE", "BL", "BR"]
    gains = {}
    for i, name in enumerate(names):
        each = np.zeros((16000, 6), np.float32)
        each[:, i] = tone(440)
        with av.open(str(tmp_path / "a.flac"), "w") as file:
            track = file.add_stream("flac", 16000, layout="5.1")
            whole = np.round(each.reshape(1, -1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(whole, "s16", "5.1")
            frame.sample_rate = 16000
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
        gains[name] = np.abs(audio.read_audio(tmp_path / "a.flac")[2000:9000]).max()
    assert gains["LFE"] == 0
    assert gains["FC"] == max(gains.values())
    assert gains["FC"] == pytest.approx(np.sqrt(2) * gains["FL"], rel=0.01)
    assert gains["BL"] == pytest.approx(gains["FL"] / np.sqrt(2), rel=0.01)


def test_of_opposite_channels_the_louder_one_is_heard(tmp_path):
    speech = tone(440)
    soundfile.write(tmp_path / "a.wav", np.stack([-0.9 * speech, speech], 1), 16000)
    got = audio.read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(got, speech, atol=1e-3)
    opposite = np.stack([speech, -speech], 1)
    np.testing.assert_allclose(audio.from_array(opposite, 16000), speech, atol=1e-6)
    half = np.stack([speech, np.zeros_like(speech)], 1)  # one side only: the mean
    np.testing.assert_allclose(audio.from_array(half, 16000), speech / 2, atol=1e-6)


def test_a_wav_from_a_stream_whose_header_says_0_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440), 16000, "PCM_16")
    data = bytearray(path.read_bytes())
    size = data.index(b"data") + 4
    data[4:8] = data[size : size + 4] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_allclose(audio.read_audio(path), tone(440), atol=1e-3)


def test_what_no_header_tells_is_one_line(tmp_path):
    (tmp_path / "a.raw").write_bytes(np.arange(30000, dtype=np.int16).tobytes())
    with pytest.raises(InputError, match=r"a\.raw: "):
        audio.read_audio(tmp_path / "a.raw")
    soundfile.write(tmp_path / "b.wav", tone(440), 16000)
    (tmp_path / "b.wav").rename(tmp_path / "b.raw")  # a known header, another name
    np.testing.assert_allclose(
        audio.read_audio(tmp_path / "b.raw"), tone(440), atol=1e-3
    )


def test_floats_that_hold_integers_are_refused(tmp_path):
    loud = (tone(440) * 32767).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", loud, 16000, "FLOAT")
    with pytest.raises(InputError, match=r"samples reach 163\d\d; .* by .* 32768"):
        audio.read_audio(tmp_path / "a.wav")
    with pytest.raises(InputError, match="samples reach"):
        audio.from_array(loud, 16000)
    audio.from_array(tone(440) * 3, 16000)  # overdriven, but samples


def test_a_rate_that_no_sound_has_is_refused(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(2)
        file.writeframes(bytes(20000))
    with pytest.raises(InputError, match="2 samples a second"):
        audio.AudioReader(tmp_path / "a.wav")


def test_damaged_mp3_says_nothing_of_its_own(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(440, 3.0), 16000)
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    (tmp_path / "a.mp3").write_bytes(data)
    code = "import sys; from input_pipeline.media import audio\n"
    code += "audio.read_audio(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mp3")],
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_track_with_speech_is_taken_or_the_one_asked_for(tmp_path):
    path = make(tmp_path / "a.mkv", numbered(25), 25, tone(440), tracks=2)
    reader = audio.AudioReader(path)
    assert reader.track == 2
    assert reader.note == (
        f"{path}: sound track 2 of 2 is taken, the first that is not silent; "
        "--track chooses another"
    )
    assert audio.hear_file(path).note == reader.note
    np.testing.assert_allclose(video.read_sound(path)[0], tone(440), atol=1e-3)
    assert not video.read_sound(path, 1)[0].any()
    assert not audio.AudioReader(path, 2).note
    with pytest.raises(InputError, match="no sound track 3; it has 2; choose"):
        audio.AudioReader(path, 3)
    silent = make(tmp_path / "b.mkv", numbered(25), 25, 0 * tone(440), tracks=2)
    assert audio.AudioReader(silent).track == 1


# Pictures


def test_pixels_that_are_not_square_become_square(tmp_path):
    for aspect, shape in ((Fraction(4, 3), (64, 128)), (Fraction(1, 2), (128, 96))):
        path = make(tmp_path / "a.mp4", numbered(3), sample_aspect_ratio=aspect)
        frames = list(video.read_frames(path))
        assert frames[0].shape[:2] == shape
        small = [cv2.resize(f, (96, 64), interpolation=cv2.INTER_AREA) for f in frames]
        np.testing.assert_array_equal(numbers(small), range(3))


def test_a_picture_of_another_size_on_the_way_is_refused_by_name(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", 25, pix_fmt="yuvj420p")
        stream.width, stream.height = 96, 64
        for t in range(20):
            width = 96 if t < 10 else 48
            jpeg = cv2.imencode(".jpg", np.full((64, width, 3), 90, np.uint8))[1]
            packet = av.Packet(jpeg.tobytes())
            packet.stream, packet.pts, packet.dts = stream, t, t
            packet.time_base = Fraction(1, 25)
            file.mux(packet)
    with pytest.raises(InputError, match=r"from 96x64 to 48x64 at 0\.4 s; split"):
        list(video.read_frames(path))


def test_a_picture_of_more_than_64_megapixels_is_not_decoded():
    container.check_size(8000, 8000, "a")
    with pytest.raises(InputError, match="8001x8000 pixels; 64 million are the most"):
        container.check_size(8001, 8000, "a")


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_high_dynamic_range_looks_as_on_an_ordinary_screen(tmp_path, transfer):
    """Grey of a fifth of white, white, and ten times white, as the standard codes
    them; a red of BT.709 is that of BT.2020's primaries mixed."""
    light = np.array([[0.2] * 3, [1.0] * 3, [10.0] * 3, [0.627, 0.0691, 0.0164]])
    codes = coded(light * np.array([[1], [1], [1], [0.8]]) * hdr.WHITE, transfer)
    patches = np.repeat(np.repeat(codes, 32, 0)[None], 64, 0)
    deep = np.round(65535 * patches).astype(np.uint16)
    path = make(
        tmp_path / "a.mkv",
        [deep] * 3,
        pix_fmt="yuv444p10le",
        codec="ffv1",
        color_trc=transfer,
        color_primaries=9,
        colorspace=9,
        color_range=1,
    )
    frame = next(video.read_frames(path)).astype(int)
    got = frame[32, 16::32]
    grey = 255 * 0.2 ** (1 / 2.2)
    assert np.abs(got[0] - grey).max() <= 3
    assert (got[1] >= 230).all()  # squeezed only a little
    assert (got[2] >= 250).all()
    assert got[3, 0] > 220
    assert got[3, 1:].max() < 30


def coded(light, transfer):
    """cd/m2 -> PQ's or HLG's code: the inverse of what is tested, from the standard."""
    if transfer == hdr.PQ:
        y = (light / 10000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    luminance = light @ np.array([0.2627, 0.6780, 0.0593])
    scene = light / 1000 * (luminance[:, None] / 1000) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def test_the_standards_own_values():
    np.testing.assert_allclose(hdr.hlg_light(np.array([0.5, 1.0])), [1 / 12, 1.0], 1e-6)
    signal = np.array([0.0, 0.5081, 0.7518])
    np.testing.assert_allclose(hdr.pq_light(signal), [0, 100, 1000], rtol=2e-3)
    np.testing.assert_allclose(hdr.TO_BT709 @ np.ones(3), 1, atol=1e-3)
    light = np.linspace(0, 10, 1000, dtype=np.float32)
    squeezed = hdr.squeezed(light)
    assert (np.diff(squeezed) >= 0).all()
    assert (np.diff(squeezed) <= np.diff(light) + 1e-6).all()
    assert squeezed.max() <= 1


# Nothing else is opened


def test_a_list_of_other_files_is_not_followed(tmp_path):
    speech = tmp_path / "secret.wav"
    soundfile.write(speech, tone(440), 16000)
    (tmp_path / "a.ffconcat").write_text(
        f"ffconcat version 1.0\nfile '{speech.name}'\n"
    )
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{speech.name}\n#EXT-X-ENDLIST\n"
    )
    for name in ("a.ffconcat", "a.m3u8"):
        with pytest.raises(InputError, match="can be read"):
            audio.AudioReader(tmp_path / name)
    for name in (f"concat:{speech}", f"file:{speech}", "http://localhost/a.wav"):
        with pytest.raises(InputError, match="no such file"):
            audio.AudioReader(name)
