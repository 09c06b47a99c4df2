"""What a user may choose, and what is said of the rest."""

import fractions

import numpy as np
import pytest

from input_pipeline.clip import InputError
from jax_atvg.inference.options import (
    Look,
    check_dub,
    check_mp4,
    checked_expressiveness,
)


def test_expressiveness_has_a_range():
    for value in (0.0, 1.0, 3.0):
        assert checked_expressiveness(value) == value
    for value in (-0.1, 3.5, float("nan")):
        with pytest.raises(InputError, match=r"expressiveness=.*0 to 3\.0"):
            checked_expressiveness(value)


@pytest.mark.parametrize(
    "value", [2, np.int64(2), np.uint8(2), np.float32(1.5), fractions.Fraction(3, 2)]
)
def test_expressiveness_is_a_number_of_any_type(unchecked, value):
    got = checked_expressiveness(value)
    assert type(got) is float and got == value


def test_what_is_no_number_is_no_expressiveness(unchecked):
    for value in ("1", None, np.float32(3.5), np.ones(1), 1j):
        with pytest.raises(InputError, match=r"expressiveness=.*0 to 3\.0"):
            checked_expressiveness(value)


def test_a_seed_is_a_whole_number_from_0_on():
    assert Look(seed=7).seed == 7
    with pytest.raises(InputError, match="seed=-1: must be a whole number"):
        Look(seed=-1)


@pytest.mark.parametrize("seed", [*np.arange(2), np.uint8(7)])
def test_a_seed_is_of_any_type_of_whole_numbers(unchecked, seed):
    kept = Look(seed=seed).seed
    assert type(kept) is int and kept == seed


def test_what_is_no_whole_number_is_no_seed(unchecked):
    for seed in (np.int64(-1), 1.0, np.float64(1), "1", None):
        with pytest.raises(InputError, match=f"seed={seed}: must be a whole number"):
            Look(seed=seed)


def test_a_head_moves_in_whole_pictures_alone():
    assert Look(full_frame=True, head_movement=True).head_movement
    with pytest.raises(InputError, match=r"head_movement: .* full_frame as well"):
        Look(head_movement=True)


def test_a_video_is_an_mp4():
    check_mp4("a.MP4")
    with pytest.raises(InputError, match=r"a\.avi: the video is an MP4"):
        check_mp4("a.avi")


@pytest.mark.parametrize(
    ("read", "written", "rest", "e", "message"),
    [
        (["a.mp4"], ["./a.mp4"], "keep", 1.0, "a.mp4 is read, too"),
        (["a.mp4", "x.npy"], ["b.mp4", "x.npy"], "keep", 1.0, "x.npy is read, too"),
        (["a.mp4"], ["b.mp4"], "open", 1.0, "rest=open: choose one of keep, close"),
        (["a.mp4"], ["b.mp4"], "keep", 9.0, "expressiveness=9.0"),
        (["a.mp4"], ["b.mov"], "close", 1.0, "b.mov: the video is an MP4"),
    ],
)
def test_what_dub_cannot_do_is_said_before_it_begins(read, written, rest, e, message):
    with pytest.raises(InputError, match=message):
        check_dub(read, written, rest, e)
    check_dub(["a.mp4", "b.wav"], ["c.mp4", "d.npy"], "close", 1.3)
