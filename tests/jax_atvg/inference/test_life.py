"""Blinks and the head's movement: when, how far, and without a seam."""

import numpy as np
import pytest

from jax_atvg.inference import life
from jax_atvg.inference.life import (
    BLINK,
    BLINK_EVERY,
    Head,
    falling,
    head_pose,
    lids_down,
)

SIZE = (300, 400)


def lids(seed: int, count: int = 50 * BLINK_EVERY) -> np.ndarray:
    return np.array([lids_down(seed, frame) for frame in range(count)])


def test_there_is_one_blink_of_its_shape_in_every_span():
    spans = lids(3).reshape(-1, BLINK_EVERY)
    for span in spans:
        begin = int(np.argmax(span > 0))
        np.testing.assert_array_equal(span[begin : begin + len(BLINK)], BLINK)
        assert np.count_nonzero(span) == len(BLINK)
    begins = np.argmax(spans > 0, axis=1)
    assert len(set(begins.tolist())) > 20  # not at one beat
    assert spans.max() == 1


def test_two_blinks_are_never_closer_than_half_a_second():
    for seed in range(20):
        down = np.flatnonzero(lids(seed) == BLINK[0])
        assert np.diff(down).min() > 25 / 2
        assert down[0] >= life.FIRST_PLACE


def test_blinks_depend_on_seed_and_frame_alone():
    forward = lids(7)
    life._blink_place.cache_clear()
    backward = [lids_down(7, frame) for frame in reversed(range(len(forward)))]
    np.testing.assert_array_equal(forward, backward[::-1])
    assert (forward != lids(8)).any()


def test_the_head_begins_where_it_was_and_moves_slowly_and_little():
    poses = np.array([head_pose(5, frame) for frame in range(2000)])
    np.testing.assert_allclose(poses[0], 0, atol=1e-12)
    bounds = np.array([life.TURN, life.SHIFT, life.SHIFT])
    assert (np.abs(poses).max(0) <= bounds).all()
    assert (np.abs(poses).max(0) > bounds / 5).all()
    assert (np.abs(np.diff(poses, axis=0)).max(0) < bounds / 10).all()
    assert (poses[1:] != [head_pose(6, frame) for frame in range(1, 2000)]).any()


def face_at(x: float, y: float, width: float) -> np.ndarray:
    random = np.random.default_rng(0).uniform(-1, 1, (68, 2))
    random[0], random[1] = (-1, 0), (1, 0)
    random -= random.mean(0)
    random *= width / np.ptp(random[:, 0])
    return random + np.array([x, y])


def test_a_dot_on_the_head_moves_as_the_pose_says_and_the_edges_stay():
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[148:153, 228:233] = 255
    picture[[0, -1]], picture[:, [0, -1]] = 90, 90
    head = Head(face_at(200, 150, 80), SIZE)
    turn, right, down = 0.1, 0.05, -0.1
    moved = head(picture, np.array([turn, right, down]))
    y, x = np.argwhere(moved[1:-1, 1:-1, 0] > 100).mean(0) + 1
    # The dot is 30 pixels right of the middle.
    assert x == pytest.approx(230 + 80 * right, abs=0.6)
    assert y == pytest.approx(150 + 30 * turn + 80 * down, abs=0.6)
    for edge in ((slice(0, 1),), (slice(-1, None),)):
        np.testing.assert_array_equal(moved[edge], picture[edge])
    for edge in (0, -1):
        np.testing.assert_array_equal(moved[:, edge], picture[:, edge])


def test_a_still_head_is_the_picture_and_far_away_nothing_moves():
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    head = Head(face_at(100, 100, 40), SIZE)
    np.testing.assert_array_equal(head(picture, np.zeros(3)), picture)
    moved = head(picture, np.array([0.02, 0.02, 0.02]))
    assert (moved != picture).any()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    far = np.hypot(x - 100, y - 100) > life.FAR * 40 + 1
    np.testing.assert_array_equal(moved[far], picture[far])


@pytest.mark.parametrize("place", [(-500, -500), (0, 0), (399, 299), (1000, 10)])
def test_a_face_anywhere_gives_a_picture(place):
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    moved = Head(face_at(*place, 60), SIZE)(picture, np.full(3, 0.02))
    inside = 0 <= place[0] < SIZE[1] and 0 <= place[1] < SIZE[0]
    assert moved.shape == (*SIZE, 3) and (moved != picture).any() == inside


def test_falling_is_one_half_and_zero():
    x = np.array([[0, 1, 2, 3, 9]], np.float32)
    np.testing.assert_allclose(falling(x, 1.0, 3.0), [[1, 1, 0.5, 0, 0]])
