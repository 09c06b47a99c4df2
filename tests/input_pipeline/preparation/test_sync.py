"""Sound that is out of step: found, rejected, moved, and reported."""

from typing import NamedTuple

import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces.landmarks import opening
from input_pipeline.preparation import sound, sync
from input_pipeline.preparation.prepare import prepare
from input_pipeline.preparation.recording import Options, prepare_clip
from input_pipeline.training_data import dataset, inspection
from input_pipeline.training_data.synthetic import SyntheticClips
from tests.input_pipeline import face_videos
from tests.input_pipeline.face_videos import source
from tests.input_pipeline.made_files import make


class Late(NamedTuple):
    """A listener to whom all sound is so many frames late; noise: none, or nothing
    else than noise."""

    lag: int
    noise: bool = False

    def __call__(self, clip):
        if self.noise:
            return np.random.default_rng(0).normal(size=len(clip.landmarks))
        return np.roll(opening(clip.landmarks), self.lag)

    def key(self):
        return f"late by {self.lag}"


def talking(lengths, seed=0):
    """Clips of a mouth that opens at random times, half a second at a time."""
    random = np.random.default_rng(seed)
    made = []
    for length in lengths:
        clip = SyntheticClips(1, length)[0]
        noise = np.convolve(random.normal(size=length + 12), np.ones(6) / 6, "same")
        marks = np.zeros((length, 68, 2), np.float32)
        marks[:, [65, 66, 67], 1] = np.abs(noise[6 : 6 + length, None])
        made.append(clip._replace(landmarks=marks))
    return made


@pytest.mark.parametrize("lag", range(-7, 8))
def test_the_lag_is_found(lag):
    found = sync.find_lag(Late(lag), talking([75]))
    assert (found.lag, found.judged) == (lag, True)
    assert found.in_step == (abs(lag) <= 1)
    assert found.r > 0.9


def test_correlation_is_that_of_the_frames_both_have():
    """As numpy has it, of one clip; clips are pooled, each less its own means."""
    random = np.random.default_rng(1)
    heard, seen = random.normal(size=(2, 40))
    expected = np.corrcoef(heard[3:], seen[:-3])[0, 1]
    assert sync.correlation([(heard, seen)], 3) == pytest.approx(expected)
    expected = np.corrcoef(heard[:-3], seen[3:])[0, 1]
    assert sync.correlation([(heard, seen)], -3) == pytest.approx(expected)
    parts = [(heard, seen), (5 + 2 * heard, 7 + 2 * seen)]
    expected = np.corrcoef(heard, seen)[0, 1]
    assert sync.correlation(parts, 0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("listener", "clips_of"),
    [
        (Late(0, noise=True), talking([75])),  # it hears something else
        (Late(sync.MOST_LAG), talking([75])),  # the best lag may lie beyond
        (Late(0), [talking([75])[0]._replace(landmarks=np.zeros((75, 68, 2)))]),
        (Late(0), talking([5])),  # no lag is left to compare with
    ],
    ids=["noise", "edge", "still", "short"],
)
def test_what_cannot_be_judged_is_not(listener, clips_of):
    found = sync.find_lag(listener, clips_of)
    assert not found.judged
    assert not found.in_step


@pytest.fixture(scope="module")
def grid(shared):
    return source(shared("data", "grid", "s11", "bbae2n.mpg"))


@pytest.fixture(scope="module")
def untouched(grid):
    return prepare_clip(grid, Options())


def test_check_leaves_out_what_is_out_of_step(grid, untouched):
    check = Options(sync="check")
    one = prepare_clip(grid, check, Late(-1))
    assert (one.rejects, one.sync.lag) == ([], -1)
    np.testing.assert_array_equal(one.clips[0].mfcc, untouched.clips[0].mfcc)
    late = prepare_clip(grid, check, Late(4))
    (reject,) = late.rejects
    assert (late.clips, reject.reason, reject.value) == ([], "out of step", 4)
    unheard = prepare_clip(grid, check, Late(0, noise=True))
    (reject,) = unheard.rejects
    assert (unheard.clips, reject.reason) == ([], "sound not judged")
    assert reject.value < 0.5


def test_fix_moves_the_sound_by_whole_frames(grid, untouched):
    before = untouched.clips[0].mfcc
    moved = prepare_clip(grid, Options(sync="fix"), Late(3)).clips[0]
    # Pre-emphasis and windows are those of the same samples, 3 frames of 4 rows later.
    rows = 4 * len(moved.frames)
    np.testing.assert_allclose(moved.mfcc[:rows], before[12 : rows + 12], atol=1e-3)
    assert moved.frames == untouched.clips[0].frames[: len(moved.frames)]
    for listener in (Late(1), Late(3, noise=True)):
        left = prepare_clip(grid, Options(sync="fix"), listener).clips[0]
        np.testing.assert_array_equal(left.mfcc, before)


@pytest.mark.parametrize("lag", [-7, -2, 2, 7])
def test_fix_leaves_no_frame_without_sound_and_moves_the_words_along(tmp_path, lag):
    """Of 75 frames whose sound ends 4 frames early; the mouth is what Late hears."""
    frames = [face_videos.picture(90 + t % 7) for t in range(75)]
    path = make(tmp_path / "a.mkv", frames, 25, face_videos.hum(71 / 25))
    one = source(path, words=(("first", 0.0, 0.2), ("last", 2.6, 2.8)))
    (plain,) = prepare_clip(one, Options()).clips
    assert len(plain.frames) == 75 and plain.words == one.words
    (clip,) = prepare_clip(one, Options(sync="fix"), Late(lag)).clips
    first, last = max(-lag, 0), min(71 - lag, 75)
    assert clip.frames == plain.frames[first:last]
    np.testing.assert_array_equal(clip.landmarks, plain.landmarks[first:last])
    assert len(clip.mfcc) == 4 * (last - first + 6)
    moved = {word: (a, b) for word, a, b in clip.words}
    for word, a, b in one.words:  # the same samples are under them as before
        start = (lag + first) / 25
        if 0 <= (a + b) / 2 - start < (last - first) / 25:
            assert moved.pop(word) == pytest.approx((a - start, b - start))
    assert not moved


@pytest.mark.parametrize(
    ("start", "frames_of_sound", "found"),
    [
        (0.0, 75, (10, 60)),
        (0.0, 40.4, (10, 40)),  # of frame 40 less than half
        (0.0, 40.6, (10, 41)),
        (12.4, 75, (12, 60)),
        (12.6, 75, (13, 60)),
        (-5.0, 45, (10, 40)),
        (-5.0, 10, (10, 10)),
        (70.0, 10, (70, 70)),
    ],
)
def test_the_frames_that_have_sound(start, frames_of_sound, found):
    samples = np.zeros(round(640 * frames_of_sound), np.float32)
    assert sound.frames_with_sound(samples, start / 25, 10, 60) == found


def test_a_clip_too_short_without_the_frames_that_have_no_sound(tmp_path):
    frames = [face_videos.picture(90 + t % 7) for t in range(55)]
    path = make(tmp_path / "a.mkv", frames, 25, face_videos.hum(50 / 25))
    fix = Options(sync="fix", min_frames=46)
    clips, (reject,), found = prepare_clip(source(path), fix, Late(6))
    assert (clips, found.lag) == ([], 6)
    assert (reject.reason, reject.value) == ("too short", 44)


def test_the_index_and_inspect_tell_lags(shared, tmp_path):
    corpus = tmp_path / "corpus" / "s1"
    corpus.mkdir(parents=True)
    for name in ("bbaf2n", "bbal6n", "pbac1s"):
        path = shared("data", "grid", "s1", f"{name}.mpg")
        (corpus / path.name).symlink_to(path.resolve())
    options = Options(sync="fix")
    held_out = {"validation_clips": ["s1/p*"]}
    folder = prepare(
        "grid", corpus.parent, tmp_path / "data", options, listener=Late(2), **held_out
    )
    columns = dataset.open_clips(folder, "train").columns
    assert columns["lag"].tolist() == [2, 2]
    assert columns["judged"].all()
    assert columns["r"].min() > 0.9
    line = inspection.table(tmp_path / "data").splitlines()[-1]
    assert line.split()[:2] == ["+2", "3"]
    assert dataset.read_options(folder)["options"]["listener"] == "late by 2"
    with pytest.raises(InputError, match=r"sync=fix \(now off\), listener=late by 2"):
        prepare("grid", corpus.parent, tmp_path / "data", **held_out)


def test_a_mode_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="sync=perhaps: choose one of off, check, fix"):
        prepare("grid", tmp_path, tmp_path, Options(sync="perhaps"))
