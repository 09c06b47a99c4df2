"""Faces go back into their pictures: what was not changed stays, with its detail."""

import time

import numpy as np
import pytest

from input_pipeline.faces import align
from input_pipeline.faces.pasting import (
    DETAIL_GONE,
    DETAIL_STAYS,
    FEATHER,
    Paster,
    changed_share,
    paste,
)
from tests.input_pipeline.faces.test_align import matrix, smooth_picture

PLACES = pytest.mark.parametrize(
    ("scale", "angle"), [(1, 0.2), (2.7, -0.4), (0.8, 1.5)]
)


def grainy_picture(height=400, width=500):
    """Detail that is finer than any crop's pixels."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@PLACES
def test_a_pictures_own_crop_changes_nothing_bit_for_bit(scale, angle):
    picture, place = grainy_picture(), matrix(scale, angle, 200, 100)
    own = align.warp(picture, place)
    np.testing.assert_array_equal(paste(picture, own, place), picture)


@pytest.mark.parametrize("left", [200, -60, 470])  # inside, and partly outside
@PLACES
def test_only_the_part_that_changed_is_computed(scale, angle, left):
    """And comes out as if all of it were."""
    picture, place = grainy_picture(), matrix(scale, angle, left, 100)
    crop = align.warp(picture, place)
    crop[70:95, 40:80] //= 2
    crop[:3, 60:70] += 20
    whole = Paster(picture, place)(crop).astype(int)
    pasted = paste(picture, crop, place)
    assert np.abs(pasted - whole).max() <= 1
    assert (pasted != whole).mean() < 1e-3
    part = np.array([[40, 70], [79, 94]])
    box = Paster(picture, matrix(scale, angle, 200, 100), part=part).weight
    assert box.size < 0.4 * Paster(picture, matrix(scale, angle, 200, 100)).weight.size


def test_small_changes_keep_the_detail_and_large_ones_take_it_away():
    """Half of the crop becomes a little lighter, the other half black."""
    picture, place = grainy_picture(), matrix(2, 0, 100, 60)
    crop = align.warp(picture, place)
    lighter = np.minimum(crop.astype(int) + 2, 255).astype(np.uint8)
    crop[:, :64] = lighter[:, :64]
    crop[:, 64:] = 0
    pasted = paste(picture, crop, place)
    left, right = (slice(100, 260), slice(140, 215)), (slice(100, 260), slice(240, 330))
    change = pasted[left].astype(int) - picture[left]
    assert 1 <= np.median(change) <= 3
    assert np.abs(change)[picture[left] < 250].max() <= 4
    assert (pasted[right] == 0).all()


def test_the_share_that_changed_is_zero_one_and_smooth_between():
    for value, expected in ((0, 0), (DETAIL_STAYS, 0), (DETAIL_GONE, 1), (255, 1)):
        flat = np.full((32, 32, 3), -value, np.float32)
        np.testing.assert_allclose(changed_share(flat), expected, atol=1e-4)
    middle = np.full((32, 32, 3), (DETAIL_STAYS + DETAIL_GONE) / 2, np.float32)
    np.testing.assert_allclose(changed_share(middle), 0.5, atol=1e-4)
    step = np.zeros((32, 32, 3), np.float32)
    step[:, 16:] = 100
    assert np.abs(np.diff(changed_share(step), axis=1)).max() < 0.5


def test_pasting_touches_nothing_outside_and_fades_in_from_the_edge():
    picture = smooth_picture(400, 500)
    before = picture.copy()
    place = matrix(1.5, 0.3, 150, 60)
    paster = Paster(picture, place)
    pasted = paster(np.full((128, 128, 3), 255, np.uint8))
    np.testing.assert_array_equal(picture, before)
    grid = np.stack(np.meshgrid(np.arange(500.0), np.arange(400.0)), -1)
    crop = align.transform(align.invert(place), grid.reshape(-1, 2))
    depth = np.minimum(crop, 127 - crop).min(-1).reshape(400, 500) + 0.5
    np.testing.assert_array_equal(pasted[depth <= 0], picture[depth <= 0])
    assert (pasted[depth >= FEATHER] == 255).all()
    change = (pasted.astype(float) - picture) / (255.001 - picture)
    half = np.abs(depth - FEATHER / 2) < 0.2
    assert np.abs(change[half] - 0.5).max() < 0.06
    assert change[(depth > 0) & (depth < 0.7)].max() < 0.05


def test_a_patch_of_one_colour_comes_back_as_that_colour():
    pasted = paste(
        np.full((300, 300, 3), 40, np.uint8),
        np.full((128, 128, 3), 40, np.uint8),
        matrix(1.3, 0.5, 120, 10),
    )
    np.testing.assert_array_equal(pasted, 40)


def test_pasting_into_a_large_photo_costs_the_face_only():
    photo = np.zeros((3000, 4000, 3), np.uint8)
    crop = np.full((128, 128, 3), 200, np.uint8)
    paster = Paster(photo, matrix(3, 0.1, 1000, 1000))
    start = time.perf_counter()
    for _ in range(3):
        paster(crop)
    assert (time.perf_counter() - start) / 3 < 0.15  # about 0.02 s when quiet
