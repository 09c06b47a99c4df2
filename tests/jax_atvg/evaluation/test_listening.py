"""The shipped AT-net hears whether sound is in step, also of people it never met."""

import numpy as np
import pytest

from input_pipeline.clip import FRAME_RATE, InputError
from input_pipeline.media import video
from input_pipeline.preparation import sound
from input_pipeline.preparation.recording import Options, prepare_clip
from input_pipeline.preparation.sync import find_lag
from jax_atvg.evaluation.listening import BundleListener
from jax_atvg.inference.bundle import DEFAULT_BUNDLE
from tests.input_pipeline.face_videos import source

# The last clip of each: of seen speakers one for validation; three never seen.
PEOPLE = {
    "grid": ("s1", "s3", "s5", "s11", "s20", "s26", "s31", "s32"),
    "talking": ("NancyPelosi", "JeanneShaheen", "KevinMcCarthy", "s8", "s10"),
}
SHIFTS = range(-6, 7)


def last_clips(shared):
    """(source, its first piece as a clip) of each person's last file."""
    for corpus, people in PEOPLE.items():
        for name in people:
            *_, path = sorted(
                path
                for path in shared("data", corpus, name).iterdir()
                if path.is_file()
            )
            one = source(path, "grid" if corpus == "grid" else "folder")
            yield one, prepare_clip(one, Options()).clips[0]


@pytest.fixture(scope="module")
def listener():
    return BundleListener(str(DEFAULT_BUNDLE))


def test_nine_of_ten_shifts_are_found_within_a_frame(shared, listener):
    """Real clips whose sound was shifted by -6..6 frames; one clip a person."""
    errors, judged = [], []
    for one, clip in last_clips(shared):
        samples, start = video.read_sound(one.path)
        for shift in SHIFTS:
            moved = start + shift / FRAME_RATE
            mfcc = sound.rows_of_frames(samples, moved, 0, len(clip.frames))
            found = find_lag(listener, [clip._replace(mfcc=mfcc)])
            errors.append(found.lag - shift)
            judged.append(found.judged)
    errors, judged = np.array(errors), np.array(judged)
    right = np.abs(errors) <= 1
    print(f"\n{len(errors)} clips, {right.mean():.1%} within one frame;")
    print(f"judged {judged.mean():.1%}, of these {right[judged].mean():.1%}")
    assert right.mean() >= 0.9
    assert right[judged].mean() >= 0.95


def test_the_key_is_that_of_what_the_bundle_holds(listener, tmp_path):
    assert listener.key() == BundleListener(str(DEFAULT_BUNDLE)).key()
    with pytest.raises(InputError, match="no bundle there"):
        BundleListener(str(tmp_path)).key()
