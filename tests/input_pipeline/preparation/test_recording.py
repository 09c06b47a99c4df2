"""One video becomes clips: one clock, a still crop, and a reason for every reject."""

import errno
from fractions import Fraction

import cv2
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import align, detection, landmarks
from input_pipeline.media import video
from input_pipeline.preparation import recording, sound
from input_pipeline.preparation.recording import Options, prepare_clip
from tests.input_pipeline import face_videos
from tests.input_pipeline.face_videos import hum, picture, source, write
from tests.input_pipeline.made_files import make
from tests.input_pipeline.whole_files import read_video, windows

GRID = ["s1/bbaf2n", "s11/bbae2n", "s26/lrbi7p", "s31/bgix8n"]


def only(prepared):
    """The one clip or the one reject that came out."""
    (one,) = [*prepared.clips, *prepared.rejects]
    return one


def grid(shared, name):
    path = shared("data", "grid", f"{name}.mpg")
    return source(path), Options()


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


# One clock


@pytest.mark.parametrize(
    ("rate", "step"), [(25, 5), (Fraction(30000, 1001), 6), (30, 6)]
)
def test_a_flash_is_in_the_frame_whose_mfcc_rows_hear_its_click(tmp_path, rate, step):
    """Each flash lasts one source frame; its click begins with it and lasts 1 ms."""
    still = picture()
    matrix = align.align(detection.photo_points(still))
    x, y = align.transform(matrix, np.array([[0.0, 100.0], [14.0, 114.0]])).T.round()
    flash = still.copy()
    flash[int(y[0]) : int(y[1]), int(x[0]) : int(x[1])] = 255
    flashes = range(2 * step, 14 * step, step)
    frames = [flash if n in flashes else still for n in range(int(3 * rate))]
    sound = np.zeros(48000, np.float32)
    for n in flashes:
        click = round(16000 * n / rate)
        sound[click : click + 16] = 0.8
    clip = only(
        prepare_clip(source(make(tmp_path / "a.mkv", frames, rate, sound)), Options())
    )
    corner = np.array([decode(jpeg)[102:112, 2:12].mean() for jpeg in clip.frames])
    seen = np.flatnonzero(corner > 190) / 25
    # Row r of the clip hears the 25 ms from 10 r - 120 ms on; a click is in 2 or 3.
    loud = recording.runs(clip.mfcc[:, 0] > clip.mfcc[:, 0].min() + 3)
    heard = [np.mean([10 * r - 120 + 12.5 for r in range(*run)]) for run in loud]
    assert len(seen) == len(heard) == len(flashes)
    assert np.abs(1000 * seen - heard).max() <= 10


def test_a_clip_hears_what_animate_hears(shared):
    """For a whole file the rows are those of its sound, to the last bit."""
    one, options = grid(shared, GRID[1])
    clip = only(prepare_clip(one, options))
    expected = windows(read_video(one.path).samples, len(clip.frames))
    assert clip.mfcc.shape == (4 * 75 + 24, 13)
    for t in range(75):
        np.testing.assert_array_equal(clip.mfcc[4 * t : 4 * t + 28, 1:], expected[t])


def test_rows_of_a_cut_are_those_of_the_whole():
    """A piece hears its real neighbours; outside the recording there is nothing."""
    samples = np.random.default_rng(0).normal(0, 0.1, 64000).astype(np.float32)
    whole = sound.rows_of_frames(samples, 0.0, 0, 100)
    part = sound.rows_of_frames(samples, 0.0, 30, 20)
    np.testing.assert_allclose(part, whole[120 : 120 + 104], atol=1e-5)
    late = sound.rows_of_frames(samples, 0.4, 10, 100)
    np.testing.assert_array_equal(late, whole)
    early = sound.rows_of_frames(samples, -0.4, 0, 90)
    np.testing.assert_allclose(early[12:], whole[52:], atol=1e-5)


# The crop


def path_length(matrices):
    """How far points fixed in the scene move in the crop, in pixels a frame: those in
    the crop's corners in the first frame, where turning and scaling count the most."""
    corners = np.array([[0, 0], [127, 0], [0, 127], [127, 127.0]])
    fixed = align.transform(matrices[0], corners)
    seen = align.transform(align.invert(matrices), fixed)
    return np.linalg.norm(np.diff(seen, axis=0), axis=2).mean()


def test_a_fixed_point_of_the_scene_jitters_at_most_a_third_of_a_pixel(shared):
    smoothed, per_frame = [], []
    for name in GRID:
        one, options = grid(shared, name)
        for sigma, into in [(options.sigma, smoothed), (0.0, per_frame)]:
            clip = only(prepare_clip(one, options._replace(sigma=sigma)))
            into.append(path_length(clip.transforms.astype(np.float64)))
    print(f"\npixels a frame with sigma 3: {np.round(smoothed, 2)}")
    print(f"pixels a frame, each frame aligned alone: {np.round(per_frame, 2)}")
    assert np.mean(smoothed) <= 0.35
    assert np.mean(per_frame) > 3 * np.mean(smoothed)


def test_the_mouth_is_not_smoothed(shared):
    """Landmarks are the tracked points themselves, seen through the similarity."""
    one, options = grid(shared, GRID[0])
    clip = only(prepare_clip(one, options))
    tracked = np.array(list(detection.track(video.read_frames(one.path))))
    points = landmarks.to_pixels(clip.landmarks.reshape(-1, 136))
    back = align.transform(clip.transforms, points)
    np.testing.assert_allclose(back, tracked, atol=0.01)


def test_a_picture_is_the_warped_frame_as_a_good_jpeg(shared):
    one, options = grid(shared, GRID[2])
    clip = only(prepare_clip(one, options))
    frame = list(video.read_frames(one.path))[40]
    warped = align.warp(frame, clip.transforms[40].astype(np.float64))
    got = decode(clip.frames[40]).astype(int)
    assert got.shape == (128, 128, 3)
    assert np.abs(got - warped).mean() < 2
    assert all(len(jpeg) > 1000 for jpeg in clip.frames)


def test_the_authors_template_is_tighter(shared, reference):
    base = reference("basics.npz")
    one, options = grid(shared, GRID[0])
    chin = {}
    for name, template in [
        ("default", align.DEFAULT_TEMPLATE),
        ("authors", align.authors_template(base["base_68"])),
    ]:
        clip = only(prepare_clip(one, options._replace(template=template)))
        chin[name] = landmarks.to_pixels(clip.landmarks.reshape(-1, 136))[:, 8, 1]
    assert chin["default"].max() < 122 < chin["authors"].mean()


# Rejects


def canvas(tmp_path, frames, seconds=None, sound=None):
    if sound is None:
        sound = hum(len(frames) / 25 if seconds is None else seconds)
    return source(write(tmp_path / "a.mp4", frames, sound))


def rejected(one, **options):
    prepared = prepare_clip(one, Options(**options))
    assert prepared.clips == []
    (reject,) = prepared.rejects
    assert reject.path == one.name
    assert reject.reason in recording.REASONS
    return reject.reason, reject.value


STILL = [picture()] * 30


def test_a_still_face_with_sound_is_a_clip(tmp_path):
    clip = only(prepare_clip(canvas(tmp_path, STILL), Options()))
    assert (len(clip.frames), clip.mfcc.shape) == (30, (144, 13))
    assert (clip.corpus, clip.speaker, clip.clip_id) == ("grid", "s1", "a")


def test_no_face(tmp_path):
    blank = [np.full_like(STILL[0], 128)] * 20
    assert rejected(canvas(tmp_path, blank)) == ("no face", 20)


def test_several_faces_or_the_largest_of_them(tmp_path):
    two = picture(180, 60, 0.8)
    two[0:176, 0:176] = face_videos.face(0.8)
    one = canvas(tmp_path, [two] * 20)
    reason, value = rejected(one)
    assert reason == "several faces"
    assert value > 0
    assert len(only(prepare_clip(one, Options(several_faces="largest"))).frames) == 20


def hidden(frames, gone):
    """The face is painted over."""
    flat = frames[0].copy()
    flat[85:165, 125:205] = 150
    return [flat if t in gone else frame for t, frame in enumerate(frames)]


def test_a_face_lost_for_long_is_rejected_and_a_short_gap_is_bridged(tmp_path):
    one = canvas(tmp_path, hidden([picture(90, 30, 0.7)] * 40, range(10, 21)))
    reason, frames = rejected(one)
    assert reason == "face lost"
    assert frames >= 10
    one = canvas(tmp_path, hidden([picture(90, 30, 0.7)] * 40, range(10, 13)))
    assert len(only(prepare_clip(one, Options())).frames) == 40


def test_frames_at_the_ends_without_the_face_are_left_out(tmp_path):
    shown = hidden([picture(90, 30, 0.7)] * 40, [0, 1, 2, 39])
    one = canvas(tmp_path, shown)._replace(
        words=(("early", 0.0, 0.1), ("late", 1.0, 1.2))
    )
    clip = only(prepare_clip(one, Options()))
    assert len(clip.frames) == 36
    assert clip.words == (("late", pytest.approx(0.88), pytest.approx(1.08)),)


def test_a_face_too_small(tmp_path):
    reason, value = rejected(canvas(tmp_path, [picture(90, 30, 0.45)] * 20))
    assert reason == "face too small"
    assert 30 < value < 46


def test_too_short(tmp_path):
    assert rejected(canvas(tmp_path, STILL[:16])) == ("too short", 16)


def test_undecodable(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    reason, value = rejected(source(tmp_path / "a.mp4"))
    assert reason == "undecodable"
    assert value.startswith("a.mp4: not a video file that can be read")


def test_no_sound_and_silent_sound(tmp_path):
    assert rejected(source(write(tmp_path / "b.mp4", STILL))) == ("no sound", 0)
    silent = np.full(19200, 1e-4, np.float32)
    reason, value = rejected(canvas(tmp_path, STILL, sound=silent))
    assert reason == "silent sound"
    assert value < 1e-3


@pytest.mark.parametrize("seconds", [0.96, 1.5])
def test_wrong_length_of_sound(tmp_path, seconds):
    path = make(tmp_path / "a.mkv", STILL, 25, hum(seconds))
    reason, value = rejected(source(path))
    assert reason == "wrong length of sound"
    assert value == pytest.approx(25 * seconds - 30, abs=0.1)


@pytest.mark.parametrize("seconds", [1.02, 1.38])
def test_a_little_too_little_or_much_sound_is_padded_or_cut(tmp_path, seconds):
    path = make(tmp_path / "a.mkv", STILL, 25, hum(seconds))
    assert len(only(prepare_clip(source(path), Options())).frames) == 30


def test_a_scene_cut(tmp_path):
    other = picture(100, 40, ground=250)
    reject = only(prepare_clip(canvas(tmp_path, STILL + [other] * 20), Options()))
    assert reject[1:] == ("scene cut", 1, 30 / 25)


def test_a_face_that_jumps_is_a_scene_cut(tmp_path):
    jumped = [picture()] * 20 + [picture(135)] * 20
    assert rejected(canvas(tmp_path, jumped))[0] == "scene cut"


def test_a_flash_and_a_moving_camera_are_no_scene_cuts(tmp_path):
    moved = [np.roll(STILL[0], 2 * t, axis=1) for t in range(40)]
    moved[20] = cv2.add(moved[20], (60.0, 60.0, 60.0, 0.0))
    assert len(only(prepare_clip(canvas(tmp_path, moved), Options())).frames) == 40


def test_whatever_goes_wrong_is_a_reject(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("as never before")

    monkeypatch.setattr(detection, "track", fail)
    reason, value = rejected(canvas(tmp_path, STILL))
    assert (reason, value) == ("error", "RuntimeError: as never before")


def test_a_missing_model_is_not_the_files_fault(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise InputError("the 68-point face model is missing")

    monkeypatch.setattr(detection, "track", fail)
    with pytest.raises(InputError, match="model is missing"):
        prepare_clip(canvas(tmp_path, STILL), Options())


def test_a_lack_of_memory_or_of_disk_is_not_the_files_fault(tmp_path, monkeypatch):
    """A disk on which a clip cannot be kept, that is: a file that cannot be read is."""
    one = canvas(tmp_path, STILL)

    def full(clip):
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space") as raised:
        prepare_clip(one, Options(), keep=full)
    assert raised.value.errno == errno.ENOSPC

    def fail(error):
        def raises(*_, **__):
            raise error

        return raises

    monkeypatch.setattr(detection, "track", fail(OSError("bad file")))
    assert rejected(one) == ("error", "OSError: bad file")
    monkeypatch.setattr(detection, "track", fail(MemoryError()))
    with pytest.raises(MemoryError):
        prepare_clip(one, Options())


# Cutting


def test_a_long_video_of_a_folder_is_cut_into_equal_parts(tmp_path):
    one = canvas(tmp_path, [picture(90 + t // 5) for t in range(100)])
    one = one._replace(corpus="folder")
    clips, rejects, _ = prepare_clip(one, Options(max_seconds=1.5))
    assert [clip.clip_id for clip in clips] == ["a@000000", "a@000033", "a@000066"]
    assert [len(clip.frames) for clip in clips] == [33, 33, 34]
    assert rejects == []
    (whole,), *_ = prepare_clip(one, Options(max_seconds=4))
    assert [jpeg for clip in clips for jpeg in clip.frames] == whole.frames
    joined = np.concatenate([clip.landmarks for clip in clips])
    np.testing.assert_array_equal(joined, whole.landmarks)
    np.testing.assert_allclose(
        clips[1].mfcc, whole.mfcc[4 * 33 : 4 * 66 + 24], atol=1e-4
    )


def test_a_video_of_a_folder_is_cut_where_the_face_is_lost_and_at_scenes(tmp_path):
    first = hidden([picture(90, 30, 0.7)] * 60, range(25, 33))
    one = canvas(tmp_path, first + [picture(100, 40, ground=250)] * 30)
    clips, rejects, _ = prepare_clip(one._replace(corpus="folder"), Options())
    starts = [int(clip.clip_id.split("@")[1]) for clip in clips]
    assert len(clips[0].frames) == 25
    assert starts[:2] == [0, 33]
    assert 60 <= starts[2] <= 65  # a face elsewhere is looked for in a growing circle
    assert [(r.reason, r.start) for r in rejects] == [("face lost", 1.0)]


def test_a_long_video_is_decoded_twice_rather_than_held(tmp_path, monkeypatch):
    one = canvas(tmp_path, [picture(90 + t // 5) for t in range(30)])
    held = prepare_clip(one, Options())
    monkeypatch.setattr(recording, "HELD_BYTES", 1 << 20)
    assert only(prepare_clip(one, Options())).frames == only(held).frames
