"""Eyes close by geometry: where the lids go, and what covers the eye."""

import numpy as np
import pytest

from input_pipeline.faces import align, detection, eyelids
from input_pipeline.faces.eyelids import EYES, MEETING, Eyelids
from tests.input_pipeline import face_videos

SIZE = (256, 256)


@pytest.fixture(scope="module")
def face():
    """(the aligned face, u8[256,256,3], its points)."""
    points = face_videos.shape()
    matrix = align.rescale(align.align(points), 0.5)
    crop = align.warp(face_videos.astronaut(), matrix, SIZE[0])
    return crop, align.transform(align.invert(matrix), points)


def test_openness_is_the_height_of_an_eye_over_its_width():
    points = np.zeros((68, 2))
    for (upper, lower), left in zip(EYES, (10, 50), strict=True):
        points[list(upper), 0] = left + np.array([0, 6, 14, 20])
        points[list(upper), 1] = 0, -1, -1, 0
        points[list(lower[1:3]), 0] = left + 6, left + 14
        points[list(lower[1:3]), 1] = 3
    assert eyelids.openness(points) == pytest.approx(4 / 20)


def test_lids_meet_three_quarters_down_and_nothing_else_moves(face):
    points = face[1]
    np.testing.assert_array_equal(eyelids.closed(points, 0.0), points)
    shut, half = eyelids.closed(points, 1.0), eyelids.closed(points, 0.5)
    np.testing.assert_allclose(half, (points + shut) / 2)
    moved = [i for upper, lower in EYES for i in (*upper[1:3], *lower[1:3])]
    others = np.setdiff1d(np.arange(68), moved)
    np.testing.assert_array_equal(shut[others], points[others])
    for upper, lower in EYES:
        a, b = points[list(upper[1:3])], points[list(lower[1:3])]
        for lid in (upper, lower):
            np.testing.assert_allclose(shut[list(lid[1:3])], a + MEETING * (b - a))
    assert eyelids.openness(shut) == pytest.approx(0, abs=1e-9)


def test_skin_is_stretched_evenly_between_where_it_stays_and_the_lid():
    y = np.array([-1.0, 0, 3, 6, 12])
    # The skin from 0 to 4 now reaches to 12.
    source = eyelids.stretched(y, 0.0, 12.0, 4.0)
    np.testing.assert_allclose(source, [-1, 0, 1, 2, 4])


def test_an_open_face_is_the_picture_itself(face):
    crop, points = face
    assert Eyelids(points, SIZE)(crop, 0.0) is crop


def test_more_closing_changes_more_and_only_the_eyes(face):
    crop, points = face
    lids, before = Eyelids(points, SIZE), crop.copy()
    changes = [
        np.abs(lids(crop, share).astype(int) - crop) for share in (0.25, 0.5, 0.75, 1.0)
    ]
    np.testing.assert_array_equal(crop, before)
    totals = [change.sum() for change in changes]
    assert totals == sorted(totals) and totals[0] > 0
    outside = np.ones(SIZE, bool)
    for upper, lower in EYES:
        eye = points[[*upper, *lower]]
        (x0, y0), (x1, y1) = eye.min(0), eye.max(0)
        reach = 2 * (y1 - y0) + 12
        outside[int(y0 - reach) : int(y1 + reach), int(x0) - 1 : int(x1) + 2] = False
    assert not changes[-1][outside].any()


def test_the_closed_eye_shows_skin_where_its_pupil_was(face):
    """A pupil is darker than the lid that comes down over it."""
    crop, points = face
    shut = Eyelids(points, SIZE)(crop, 1.0)
    for upper, lower in EYES:
        x, y = points[[*upper[1:3], *lower[1:3]]].mean(0).round().astype(int)
        pupil = slice(y - 3, y + 1), slice(x - 3, x + 4)
        assert shut[pupil].mean() > crop[pupil].mean() + 15


def test_a_detector_finds_the_eyes_less_open(face):
    crop, points = face
    shut = Eyelids(points, SIZE)(crop, 1.0)
    box = detection.box_of(points.astype(np.float32))
    before, after = (
        eyelids.openness(detection.find_points(one, box)) for one in (crop, shut)
    )
    assert after < 0.75 * before


def test_closed_eyes_stay_as_they_are(face):
    crop, points = face
    lids = Eyelids(eyelids.closed(points, 0.9), SIZE)
    assert not lids.able
    assert lids(crop, 1.0) is crop


@pytest.mark.parametrize("shift", [(-90, 0), (0, -75), (400, 400), (150, 0)])
def test_a_face_with_an_eye_outside_the_picture_does_not_blink(face, shift):
    """Nor does the other eye: their points would say so of both."""
    crop, points = face
    lids = Eyelids(points + shift, SIZE)
    assert len(lids.eyes) < 2 and not lids.able
    assert lids(crop, 1.0) is crop


def test_nor_does_one_whose_lids_points_are_out_of_order(face):
    points = face[1]
    crossed = points.copy()
    crossed[[37, 38]] = points[[38, 37]]
    assert not Eyelids(crossed, SIZE).able
