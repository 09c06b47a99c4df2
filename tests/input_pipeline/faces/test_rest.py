"""A face at rest: lips closed, whatever the unit, and nothing else changed."""

import numpy as np
import pytest

from input_pipeline.clip import INNER_LIPS, LOWER_RIM, UPPER_RIM, Pca
from input_pipeline.faces.landmarks import opening
from input_pipeline.faces.rest import JAW, closed, photo_coefficients
from tests.input_pipeline.face_videos import shape


@pytest.fixture(scope="module")
def open_face():
    points = shape()
    points[list(LOWER_RIM), 1] += 6
    points[[56, 57, 58], 1] += 6
    return points


def test_the_lips_meet_a_quarter_of_the_way_down(open_face):
    rest = closed(open_face)
    assert opening(rest[None])[0] == pytest.approx(0, abs=1e-9)
    upper, lower = open_face[list(UPPER_RIM), 1], open_face[list(LOWER_RIM), 1]
    np.testing.assert_allclose(rest[list(UPPER_RIM), 1], 0.75 * upper + 0.25 * lower)
    moved = {*UPPER_RIM, *LOWER_RIM, 49, 50, 51, 52, 53, 55, 56, 57, 58, 59, *JAW}
    still = sorted(set(range(68)) - moved)
    np.testing.assert_array_equal(rest[still], open_face[still])
    np.testing.assert_array_equal(rest[:, 0], open_face[:, 0])
    assert (rest[8, 1] < open_face[8, 1]) and (rest[3, 1] < open_face[3, 1])


def test_closed_lips_stay(open_face):
    rest = closed(open_face)
    np.testing.assert_allclose(closed(rest), rest, atol=1e-9)
    crossed = rest.copy()
    crossed[list(LOWER_RIM), 1] -= 2  # as detection may find them
    np.testing.assert_array_equal(closed(crossed), crossed)


def test_units_and_batches_do_not_matter(open_face):
    rest = closed(open_face)
    np.testing.assert_allclose(closed(open_face / 64 - 1), rest / 64 - 1, atol=1e-12)
    several = np.stack([open_face, rest, open_face + 5])
    np.testing.assert_allclose(closed(several)[2], rest + 5)


def test_photo_coefficients_of_the_face_as_it_is_or_at_rest(open_face):
    """With a PCA whose only component is the opening: what rest takes away."""
    direction = np.zeros((68, 2), np.float32)
    direction[INNER_LIPS, 1] = 1
    pca = Pca(np.zeros(136, np.float32), direction.reshape(136, 1))
    landmarks = open_face.reshape(1, 136).astype(np.float32)
    as_it_is = photo_coefficients(pca, landmarks, from_rest=False)
    np.testing.assert_allclose(as_it_is, pca.project(landmarks))
    at_rest = photo_coefficients(pca, landmarks, from_rest=True)
    expected = pca.project(closed(open_face).reshape(1, 136))
    np.testing.assert_allclose(at_rest, expected, rtol=1e-6)
    assert at_rest.dtype == np.float32
    assert abs(at_rest - as_it_is).max() > 1
