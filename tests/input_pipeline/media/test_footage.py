"""A video runs to and fro: which frames are shown in which order."""

import itertools

import numpy as np
import pytest

from input_pipeline.media import footage
from tests.input_pipeline.media.test_video import make, numbered, numbers


@pytest.mark.parametrize("held", [1, 7 * 64 * 64 * 3, footage.HELD_BYTES])
@pytest.mark.parametrize("total", [3, 10, 14, 18, 19, 45])
def test_frames_go_to_the_end_and_back_and_show_no_end_twice(
    tmp_path, monkeypatch, total, held
):
    monkeypatch.setattr(footage, "HELD_BYTES", held)
    path = make(tmp_path / "a.mp4", numbered(10))
    there, back = list(range(10)), list(range(8, 0, -1))
    expected = list(itertools.islice(itertools.cycle(there + back), total))
    shown = list(footage.to_and_fro(path, 10, total))
    assert [number for number, _ in shown] == expected
    np.testing.assert_array_equal(numbers(frame for _, frame in shown), expected)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_frames_are_repeated(tmp_path, count):
    path = make(tmp_path / "a.mp4", numbered(5))
    shown = [number for number, _ in footage.to_and_fro(path, count, 6)]
    assert shown == [t % count for t in range(6)]
