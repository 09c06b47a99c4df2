"""A video gets another voice: its frames, sound, speed and what stays as it was."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from input_pipeline.clip import InputError
from input_pipeline.faces import lips
from input_pipeline.faces.landmarks import opening
from input_pipeline.media.video import VideoWriter, read_frames
from jax_atvg.inference import dub
from jax_atvg.inference.dub import (
    FADE,
    dub_file,
    look_through,
    over_frames,
    rising,
    shares_of,
    spoken_movement,
)
from jax_atvg.inference.networks import Networks
from jax_atvg.inference.redraw import scene_of
from tests.input_pipeline import face_videos
from tests.small_bundle import small_bundle, speech

COUNT = 24
NTSC_FILM = Fraction(24000, 1001)


def write(path, frames, fps=25):
    with VideoWriter(path, None, "", fps) as video:
        for frame in frames:
            video.write(frame)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """speaker.mp4: 24 frames of a moving head; brief.mp4: 8 of them.  short.wav,
    long.wav: .5 s, 1.6 s."""
    folder = tmp_path_factory.mktemp("dub")
    frames = [face_videos.picture(60 + t) for t in range(COUNT)]
    write(folder / "speaker.mp4", frames)
    write(folder / "brief.mp4", frames[:8])
    for name, seconds in (("short", 0.5), ("long", 1.6)):
        soundfile.write(folder / f"{name}.wav", speech(seconds), 16000)
    return folder


def dubbed(folder, networks, sound, name, speaker="speaker", **options):
    out, places = folder / f"{name}.mp4", folder / f"{name}.npy"
    written = dub_file(
        folder / f"{speaker}.mp4",
        folder / f"{sound}.wav",
        out,
        networks,
        landmarks_out=places,
        **options,
    )
    assert written == [out, places]
    return list(read_frames(out)), np.load(places)


@pytest.fixture(scope="module")
def kept(folder, alone):
    return dubbed(folder, alone, "short", "kept")


def lower_face_changes(frames, others):
    """Mean difference around the mouth of the moving head, by frame."""
    found = []
    for t, (a, b) in enumerate(zip(frames, others, strict=True)):
        box = slice(120, 180), slice(115 + t, 190 + t)
        found.append(np.abs(a[box].astype(int) - b[box]).mean())
    return np.array(found)


# --- lengths ---


def test_a_video_longer_than_the_sound_keeps_its_lips_afterwards(folder, kept):
    frames, places = kept
    before = list(read_frames(folder / "speaker.mp4"))
    assert len(frames) == len(places) == COUNT
    changes = lower_face_changes(frames, before)
    sound = 13  # .5 s is 12.5 frames
    last = sound + FADE
    assert changes[:sound].min() > 2 * changes[last:].max()
    assert np.isfinite(places[: last - 1]).all() and np.isnan(places[last:]).all()


def test_or_closes_them(folder, alone):
    _, places = dubbed(folder, alone, "short", "closed", rest="close")
    points = places.astype(np.float64)
    open_by = opening(points)
    assert np.isfinite(points).all()
    np.testing.assert_allclose(open_by[13 + FADE :], 0, atol=1e-4)
    assert np.abs(open_by[:13]).max() > 1e-3


def test_a_sound_longer_than_the_video_lets_it_run_to_and_fro(folder, alone):
    frames, places = dubbed(folder, alone, "long", "long_")
    assert len(frames) == len(places) == 40
    assert np.isfinite(places).all()
    before = list(read_frames(folder / "speaker.mp4"))
    order = [*range(COUNT), *range(COUNT - 2, 0, -1)][:40]
    for frame, t in zip(frames, order, strict=True):
        # The upper half is as it was, but for what a second encoding changes.
        assert np.abs(frame[:90].astype(int) - before[t][:90]).mean() < 1.5


def test_the_new_sound_is_heard_and_the_file_says_what_it_is(folder, kept):
    with av.open(str(folder / "kept.mp4")) as media:
        (video,), (sound,) = media.streams.video, media.streams.audio
        assert "Synthetic" in media.metadata["comment"]
        assert (video.average_rate, video.width, video.height) == (25, 400, 288)
        assert sound.rate == 16000
        heard = np.concatenate([x.to_ndarray()[0] for x in media.decode(sound)])
    expected = speech(0.5)
    assert abs(len(heard) - len(expected)) < 2048
    found = np.corrcoef(heard[:8000], expected[: len(heard[:8000])])[0, 1]
    assert found > 0.9


# --- speeds ---


@pytest.mark.parametrize("fps", [30, NTSC_FILM])
def test_frames_a_second_stay(folder, alone, fps):
    path = folder / f"at_{float(fps):.0f}.mp4"
    write(path, [face_videos.picture(60 + t) for t in range(12)], fps)
    out = folder / f"out_{float(fps):.0f}.mp4"
    dub_file(path, folder / "short.wav", out, alone)
    with av.open(str(out)) as media:
        (video,) = media.streams.video
        assert video.average_rate == fps
        assert video.frames == int(np.ceil(12 * fps / 25))
        times = [frame.time for frame in media.decode(video)]
    np.testing.assert_allclose(np.diff(times), 1 / float(fps), atol=1e-4)


def test_movement_is_interpolated_at_the_times_of_frames():
    movement = np.arange(6.0)[:, None, None] * np.ones((1, 68, 2))
    at_50 = over_frames(movement, Fraction(50), 14)
    expected = np.minimum(np.arange(14) / 2, 5)
    np.testing.assert_allclose(at_50[:, 7, 1], expected)
    np.testing.assert_array_equal(over_frames(movement, Fraction(25), 6), movement)


def test_what_is_new_comes_and_goes_within_a_few_frames():
    np.testing.assert_allclose(rising(np.arange(7)), [0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    assert len(rising(np.arange(0))) == 0


# --- movement ---


def test_only_mouth_and_jaw_are_moved_by_the_sound(alone):
    rest = face_videos.shape() - face_videos.shape().mean(0) + 64
    windows = np.random.default_rng(0).normal(size=(20, 28, 12)).astype(np.float32)
    moved = spoken_movement(alone, rest, windows)
    still = lips.follows() == 0
    assert not moved[:, still].any()
    assert np.abs(moved[:, 48:]).max() > 0


def test_expressiveness_multiplies_and_silence_rests(folder, alone):
    soundfile.write(folder / "silence.wav", np.zeros(8000), 16000)
    with pytest.warns(UserWarning, match="silent; the mouth will rest"):
        _, still = dubbed(folder, alone, "silence", "still", "brief")
    none, usual, more = (
        dubbed(folder, alone, "short", "said", "brief", expressiveness=e)[1]
        for e in (0.0, 1.0, 1.3)
    )
    np.testing.assert_allclose(still, none, atol=1e-6)
    first, second = (np.abs(x - none).mean() for x in (usual, more))
    assert 0 < first < second


# --- faces ---


def test_frames_without_the_face_stay(folder, alone):
    """The face is covered for ten frames."""
    frames = [face_videos.picture(60) for _ in range(30)]
    for t in range(10, 20):
        frames[t] = np.full_like(frames[t], 128)
    write(folder / "covered.mp4", frames)
    before = list(read_frames(folder / "covered.mp4"))
    places = folder / "covered.npy"
    dub_file(
        folder / "covered.mp4",
        folder / "long.wav",
        folder / "covered_out.mp4",
        alone,
        landmarks_out=places,
    )
    after = list(read_frames(folder / "covered_out.mp4"))[:30]
    found = np.isfinite(np.load(places)[:30, 0, 0])
    assert found.tolist() == [not 10 <= t < 20 for t in range(30)]
    for t in range(11, 19):
        assert np.abs(after[t].astype(int) - before[t]).mean() < 1


def scene(first, last):
    return scene_of(first, last, np.repeat(face_videos.shape()[None], last - first, 0))


def test_lips_fade_in_where_the_face_appears_but_not_at_cuts():
    ramp = [0.2, 0.4, 0.6, 0.8]
    lost = shares_of(40, [scene(0, 10), scene(20, 40)], [])
    expected = [*[1] * 6, *ramp[::-1], *[0] * 10, *ramp, *[1] * 16]
    np.testing.assert_allclose(lost, expected)
    cut = shares_of(40, [scene(0, 20), scene(20, 40)], [20])
    np.testing.assert_array_equal(cut, 1)
    stranger = shares_of(40, [scene(0, 20)], [20])
    np.testing.assert_array_equal(stranger, [1] * 20 + [0] * 20)
    np.testing.assert_array_equal(shares_of(8, [scene(0, 8)], []), 1)


def covered(gap):
    frames = [face_videos.picture(60) for _ in range(30)]
    for t in gap:
        frames[t] = frames[t].copy()
        frames[t][70:165, 100:200] = 128  # too little to be a cut
    return frames


def test_short_gaps_are_bridged_and_long_ones_left(folder):
    for gap, left in ((range(10, 14), []), (range(10, 19), [*range(10, 19)])):
        write(folder / "gap.mp4", covered(gap))
        found = look_through(folder / "gap.mp4", Fraction(25))
        assert found.count == 30
        assert np.flatnonzero(found.shares == 0).tolist() == left


def looked_through(path, frames):
    """The ranges of the scenes of a film, and its shares."""
    found = look_through(write(path, frames), Fraction(25))
    return [(x.first, x.last) for x in found.scenes], found.shares.tolist()


@pytest.fixture(scope="module")
def speakers(shared):
    """Twelve frames each of two speakers of GRID."""
    clips = [min(shared("data", "grid", name).glob("*.mpg")) for name in ("s1", "s2")]
    return [list(read_frames(clip))[:12] for clip in clips]


def test_another_person_is_left_alone(folder, speakers):
    first, second = speakers
    scenes, shares = looked_through(folder / "cut.mp4", [*first, *second, *first])
    assert scenes == [(0, 12), (24, 36)]
    assert shares == [1] * 12 + [0] * 12 + [1] * 12


NOBODY = np.full((face_videos.HEIGHT, face_videos.WIDTH, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([face_videos.picture(), NOBODY], [NOBODY, face_videos.picture()]),
        ([face_videos.picture(0, 60, 0.6)], [face_videos.picture(100, 0, 1.3)]),
    ],
    ids=["three widths away", "closer"],
)
def test_after_a_cut_the_speaker_is_found_at_once(folder, before, after):
    frames = [np.concatenate(pair, 1) for pair in (before, after)]
    film = [frame for frame in frames for _ in range(12)]
    assert looked_through(folder / "away.mp4", film) == ([(0, 12), (12, 24)], [1] * 24)


def test_and_beside_another_person_who_is_where_the_speaker_was(folder, speakers):
    pairs = [np.concatenate(pair, 1) for pair in zip(*speakers[::-1], strict=True)]
    ground = np.full_like(pairs[0], 128)
    alone = [ground.copy() for _ in pairs]
    for frame, one in zip(alone, speakers[0], strict=True):
        frame[:, : one.shape[1]] = one
    scenes, shares = looked_through(folder / "pair.mp4", alone + pairs)
    assert (scenes, shares) == ([(0, 12), (12, 24)], [1] * 24)


def test_of_several_faces_the_chosen_one_speaks(folder, alone):
    two = np.concatenate([face_videos.picture(30), face_videos.picture(120)], 1)
    write(folder / "two.mp4", [two] * 8)
    for face, left in (("0", True), ("1", False)):
        places = folder / f"two_{face}.npy"
        out = folder / f"two_{face}.mp4"
        dub_file(
            folder / "two.mp4",
            folder / "short.wav",
            out,
            alone,
            face=face,
            landmarks_out=places,
        )
        frame = next(iter(read_frames(out)))
        change = np.abs(frame.astype(int) - two).sum(-1)
        width = face_videos.WIDTH
        halves = change[100:200, :width].sum(), change[100:200, width:].sum()
        assert (halves[0] > halves[1]) == left


def test_a_label_and_a_watch(folder, alone):
    seen = []
    out = folder / "labelled.mp4"
    dub_file(
        folder / "speaker.mp4",
        folder / "short.wav",
        out,
        alone,
        label=True,
        watch=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(t, COUNT) for t in range(1, COUNT + 1)]
    before = next(iter(read_frames(folder / "speaker.mp4")))
    corner = next(iter(read_frames(out)))[-16:, :40].astype(int)
    assert np.abs(corner - before[-16:, :40]).mean() > 20


# --- errors ---


def refused(folder, alone, match, *, speaker="speaker.mp4", out="bad.mp4", **options):
    files = set(folder.iterdir())
    with pytest.raises(InputError, match=match):
        dub_file(folder / speaker, folder / "short.wav", folder / out, alone, **options)
    assert set(folder.iterdir()) == files


def test_what_cannot_be_dubbed_is_said_in_one_line(folder, alone):
    refused(folder, alone, r"bad.mkv: the video is an MP4", out="bad.mkv")
    refused(folder, alone, "speaker.mp4 is read, too", out="speaker.mp4")
    (folder / "sound.npy").write_bytes((folder / "short.wav").read_bytes())
    with pytest.raises(InputError, match=r"sound.npy is read, too"):
        dub_file(
            folder / "speaker.mp4",
            folder / "sound.npy",
            folder / "bad.mp4",
            alone,
            landmarks_out=folder / "sound.npy",
        )
    refused(folder, alone, "rest=open: choose one of keep, close", rest="open")
    refused(folder, alone, "expressiveness=9", expressiveness=9.0)
    refused(folder, alone, "landmarks go to an .npy", landmarks_out="x.txt")
    refused(folder, alone, "no such file", speaker="missing.mp4")
    refused(folder, alone, "its folder does not exist", out="none/bad.mp4")
    refused(folder, alone, "face=3 asked for, but 1 face found", face="3")


def test_a_video_without_a_face_is_refused(folder, alone):
    write(folder / "nobody.mp4", [np.full((120, 160, 3), 99, np.uint8)] * 5)
    refused(folder, alone, "no face found in its 5 frames", speaker="nobody.mp4")


def test_a_speed_that_cannot_be_kept_is_refused(folder, alone):
    write(folder / "slow.mp4", [face_videos.picture()] * 3, fps=2)
    refused(folder, alone, "2 frames a second; 5 to 120", speaker="slow.mp4")


def test_networks_that_know_one_face_alone_are_refused(folder):
    marks = np.zeros(136, np.float32)
    theirs = Networks(small_bundle(photo_landmarks=marks))
    refused(folder, theirs, "one face's landmarks for all photos")


def test_a_full_disk_leaves_nothing(folder, alone, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dub.video.VideoWriter, "write", full)
        refused(
            folder, alone, r"bad.mp4: cannot be written \(No space left on device\)"
        )
    monkeypatch.setattr(np, "save", full)
    places = folder / "bad.npy"
    refused(folder, alone, "bad.npy: cannot be written", landmarks_out=places)
