"""Lips that geometry moves: shapes that stay faces, and pictures that show them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline.clip import LOWER_RIM, MOUTH, UPPER_RIM
from input_pipeline.faces import align, detection, lips
from input_pipeline.faces.landmarks import opening
from input_pipeline.faces.rest import JAW, closed
from tests.input_pipeline.face_videos import astronaut


@pytest.fixture(scope="module")
def face():
    """(the enlarged crop of a woman who smiles with open lips, her points there)."""
    picture = astronaut()
    points = detection.photo_points(picture)
    fine = align.rescale(align.align(points), 1 / lips.ENLARGED)
    crop = align.warp(picture, fine, lips.SIZE)
    return crop, align.transform(align.invert(fine), points)


@pytest.fixture(scope="module")
def still(face):
    crop, p = face
    return lips.Still(crop, p, lips.behind(crop, p))


def opened(p, by: float, count: int = 1) -> np.ndarray:
    """A face at rest whose lower lip and chin go down by so many pixels."""
    q = np.repeat(closed(p)[None], count, 0)
    for point in (*LOWER_RIM, 55, 56, 57, 58, 59, *JAW):
        q[:, point, 1] += np.linspace(by / count, by, count)
    return q


def halved(mask: np.ndarray) -> np.ndarray:
    """A mask of the enlarged crop in the crop: means of four pixels."""
    side = lips.SIZE // 2
    return mask.astype(np.float64).reshape(side, 2, side, 2).mean((1, 3))


# --- shapes ---


def test_movement_is_that_of_mouth_and_jaw_in_mouth_widths(face):
    """The same for a face twice as large; at rest there is none."""
    speaker = np.concatenate([opened(face[1], 0), opened(face[1], 30, 9)])
    moving = lips.movement(speaker)
    np.testing.assert_allclose(lips.movement(2 * speaker + 7), moving, atol=1e-9)
    width = lips.mouth_width(face[1])
    rest = speaker[:2].mean(0)  # a fifth of the frames
    expected = (speaker[-1, 66, 1] - rest[66, 1]) / width
    assert moving[-1, 66, 1] == pytest.approx(expected)
    fixed = sorted(set(range(48)) - set(JAW))
    assert not moving[:, fixed].any()
    np.testing.assert_allclose(moving[:2].mean(0), 0, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.0, 0.4))
@settings(max_examples=30, deadline=None)
def test_any_movement_leaves_a_mouth(face, seed, strength):
    """Lips neither cross nor become thin, and points keep their order."""
    rest = closed(face[1])
    movement = np.zeros((4, 68, 2))
    random = np.random.default_rng(seed)
    movement[:, MOUTH] = strength * random.normal(size=(4, 20, 2))
    q = lips.moved(rest, movement)
    assert (q[:, LOWER_RIM, 1] - q[:, UPPER_RIM, 1]).min() >= -1e-9
    upper = q[:, UPPER_RIM, 1] - q[:, lips.UPPER_EDGE, 1]
    least = lips.LEAST_THICKNESS * (rest[UPPER_RIM, 1] - rest[lips.UPPER_EDGE, 1])
    assert (upper - least).min() >= -1e-9
    assert np.diff(q[:, lips.ROWS, 0]).min() > 0


def test_no_movement_is_rest(face):
    rest = closed(face[1])
    np.testing.assert_allclose(lips.moved(rest, np.zeros((2, 68, 2))), [rest, rest])


# --- pictures ---


def test_points_that_stay_show_the_photo(face, still):
    crop, p = face
    same = still.frame(still.p)
    away = np.abs(same.astype(int) - lips.reduced(crop))
    mouth = halved(lips._between(p, -4.0)) > 0
    assert away[~mouth].max() <= 3


@pytest.mark.parametrize("by", [0, 8, 16, 28])
def test_a_detector_finds_the_lips_where_they_were_put(face, still, by):
    """dlib, which knows nothing of how the picture was made."""
    (q,) = opened(face[1], by)
    frame = still.frame(q)
    wanted = ((q + 0.5) / lips.ENLARGED - 0.5).astype(np.float32)
    found = detection.find_points(frame, detection.box_of(wanted))
    error = opening(found[None])[0] - opening(wanted[None])[0]
    assert abs(error) < 1.6
    assert np.linalg.norm(found - wanted, axis=1)[MOUTH].mean() < 2.2


def test_what_is_outside_the_face_stays(face, still):
    crop, p = face
    frame = still.frame(opened(p, 28)[0])
    far = np.ones((lips.SIZE,) * 2, np.uint8)
    outline = p[list(lips.OUTLINE)].copy()
    outline[:17, 1] += 28  # where the jaw goes
    cv2.fillPoly(far, [np.round(outline).astype(np.int32)], 0)
    far = cv2.erode(far, np.ones((2 * int(lips.STILL_BEYOND) + 9,) * 2))
    far = far[::2, ::2] & far[1::2, 1::2]
    assert far.mean() > 0.2
    np.testing.assert_array_equal(frame[far > 0], lips.reduced(crop)[far > 0])


def test_teeth_stay_where_they_are_while_lips_move(face, still):
    """Where both frames show what is behind the lips, below the shadow, it is one."""
    near, far = opened(face[1], 22)[0], opened(face[1], 28)[0]
    inside = np.minimum(lips._between(near, 4.0), lips._between(far, 4.0))
    y = np.arange(lips.SIZE)[:, None]
    lip = near[62, 1] + lips.SHADOW_HEIGHT
    shown = halved(inside * (y > lip)) == 1
    assert shown.sum() > 20
    a, b = still.frame(near).astype(int), still.frame(far).astype(int)
    assert np.abs(a - b)[shown].max() <= 1


def test_closed_lips_show_nothing_between_them(face):
    crop, p = face
    green = lips.behind(crop, p)._replace(
        picture=np.broadcast_to(np.float32([0, 255, 0]), (lips.SIZE, lips.SIZE, 3))
    )
    plain = lips.Still(crop, p, green)
    for by, seen in ((0, False), (16, True)):
        frame = plain.frame(opened(p, by)[0]).astype(int)
        assert (frame[..., 1] - frame[..., 0] > 60).any() == seen


# --- what is behind the lips ---


def test_closed_lips_have_nothing_to_lend(face):
    crop, p = face
    assert lips.behind(crop, closed(p)) is None
    sliver = closed(p)
    sliver[list(LOWER_RIM), 1] += lips.LEAST_TEETH + 1
    sliver[[61, 63, 65, 67], 0] = sliver[62, 0]  # so narrow that no pixel is between
    sliver[[60, 64], 0] = sliver[62, 0]
    assert lips.behind(crop, sliver) is None


def test_borrowed_teeth_are_scaled_and_lit_like_the_face(face):
    crop, p = face
    own = lips.behind(crop, p)
    dim = np.round(crop * 0.8).astype(np.uint8)
    lent = lips.borrowed(own, dim, p)
    inside = lips._between(p, 1.0) > 0.99
    ratio = lent.picture[inside].mean() / own.picture[inside].mean()
    assert ratio == pytest.approx(0.8, abs=0.03)
    np.testing.assert_allclose(lent.rest, closed(p))
    # A mouth half as wide shows the same in half the size, about its own middle.
    small = (p - 128) / 2 + 128
    half = lips.borrowed(own, crop, small)
    place = lips._mouth_centre(half.rest).round().astype(int)
    there = lips._mouth_centre(own.rest).round().astype(int)
    light = half.picture[place[1], place[0]] / own.picture[there[1], there[0]]
    assert 0.4 < light.mean() < 1.7
    assert lips.mouth_width(half.rest) == pytest.approx(lips.mouth_width(own.rest) / 2)


def test_without_any_teeth_the_mouth_is_dark(face):
    crop, p = face
    dark = lips.nothing_behind(crop, p)
    assert dark.picture.max() < 0.3 * crop.max()
    np.testing.assert_allclose(dark.picture[0, 0], 0.2 * dark.chin, rtol=1e-6)
