"""A filmed mouth is closed, and the place of the new one is found."""

import numpy as np
import pytest

from input_pipeline.faces import align, detection, lips, mouth
from input_pipeline.faces.landmarks import opening
from input_pipeline.faces.rest import closed
from tests.input_pipeline import face_videos


@pytest.fixture(scope="module")
def face():
    """(enlarged crop, points in the ordinary crop)."""
    points = face_videos.shape()
    matrix = align.align(points)
    crop = align.warp(face_videos.astronaut(), align.rescale(matrix, 0.5), lips.SIZE)
    return crop, align.transform(align.invert(matrix), points)


def test_the_mouth_is_where_the_rest_of_the_face_has_carried_it(face):
    rest = closed(face[1])
    np.testing.assert_allclose(mouth.carried(rest, rest), rest, atol=1e-9)
    angle, scale = 0.2, 1.1
    turned = np.array(
        [
            [scale * np.cos(angle), -scale * np.sin(angle), 5],
            [scale * np.sin(angle), scale * np.cos(angle), -8],
        ]
    )
    head = align.transform(turned, rest)
    talking = head.copy()
    talking[48:] += 9  # whatever the mouth does
    talking[6:11, 1] += 4
    np.testing.assert_allclose(mouth.carried(rest, talking), head, atol=1e-9)


def test_points_that_do_not_speak_keep_their_places(face):
    points = face[1] + np.random.default_rng(0).normal(size=(68, 2))
    base = mouth.carried(closed(face[1]), points)
    others = np.flatnonzero(lips.follows() == 0)
    np.testing.assert_array_equal(base[others], points[others])
    assert len(others) == 68 - 20 - 11


def test_lips_that_were_filmed_open_are_closed(face):
    crop, points = face
    base = mouth.carried(closed(points), points)
    photo = mouth.closed_lips(crop, points, base)
    box = detection.box_of(points.astype(np.float32))
    before, after = (
        float(opening(detection.find_points(one, box)[None])[0])
        for one in (lips.reduced(crop), photo)
    )
    assert before > 4 and after < before / 2
    above = np.abs(photo[:50].astype(int) - lips.reduced(crop)[:50])  # eyes and brows
    assert above.mean() < 0.5


def test_the_mask_holds_mouth_and_chin_and_spares_the_nose(face):
    points = face[1]
    mask = mouth.mask(points)[..., 0]
    assert mask.shape == (128, 128) and mask.min() >= 0 and mask.max() <= 1.00001
    inside = np.round(points[[*range(48, 68), *range(6, 11)]]).astype(int)
    assert (mask[inside[:, 1], inside[:, 0]] > 0.85).all()
    assert not mask[: int(points[27:36, 1].max()) - 11].any()
    assert not mask[:, :4].any() and not mask[:, -4:].any()
    assert np.abs(np.diff(mask, axis=0)).max() < 0.3


def test_the_mask_of_several_faces_holds_each(face):
    points = face[1]
    dropped = points.copy()
    dropped[6:11, 1] += 8
    both = mouth.mask(points, dropped)
    for one in (points, dropped):
        assert (both >= mouth.mask(one) - 0.3).all()
    assert both.sum() > mouth.mask(points).sum()


@pytest.mark.parametrize("shift", [(0, 0), (90, 0), (0, 80), (-500, 300)])
def test_a_mask_anywhere_is_a_mask(face, shift):
    mask = mouth.mask(face[1] + shift)
    assert mask.shape == (128, 128, 1) and np.isfinite(mask).all()
