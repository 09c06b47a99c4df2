"""The losses by their claims; against the authors' values in test_reference_units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from jax_atvg.training import losses

SHAPE = (2, 3, 4, 5, 3)


@pytest.fixture
def video():
    random = np.random.default_rng(0)
    fake, real = random.uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    attention = random.uniform(0, 1, (*SHAPE[:-1], 1)).astype(np.float32)
    return fake, real, attention


def test_dynamic_pixel_loss_is_the_weighted_mean(video):
    fake, real, attention = video
    expected = np.mean(np.abs(fake - real) * (attention + 0.5))
    np.testing.assert_allclose(losses.dynamic_pixel_loss(*video), expected, rtol=1e-6)


def test_constant_attention_reduces_pixel_loss_to_scaled_l1(video):
    fake, real, attention = video
    loss = losses.dynamic_pixel_loss(fake, real, np.full_like(attention, 0.3), beta=0.2)
    np.testing.assert_allclose(loss, 0.5 * np.mean(np.abs(fake - real)), rtol=1e-6)


def test_attention_gets_no_gradient_from_pixel_loss(video):
    gradient = jax.grad(losses.dynamic_pixel_loss, 2)(*map(jnp.asarray, video))
    assert not np.any(gradient)


def test_a_perfect_video_costs_nothing(video):
    _, real, attention = video
    assert losses.dynamic_pixel_loss(real, real, attention) == 0


def test_score_loss_of_the_mean_logit():
    logits = np.array([[1.0, 3.0], [-2.0, 0.0]], np.float32)
    score = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    for real, expected in ((True, -np.log(score)), (False, -np.log(1 - score))):
        loss = losses.score_loss(logits, real=real)
        np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)


def test_a_saturated_score_keeps_its_gradient():
    """sigmoid(50) is 1 in float32: from the score, nothing could be learnt."""
    gradient = jax.grad(lambda x: losses.score_loss(x, real=False))(
        jnp.full((1, 1), 50.0)
    )
    np.testing.assert_allclose(gradient, 1.0)


def test_mouth_heights_weigh_ten_thousand_times():
    mask = losses.mouth_mask()
    predicted = np.zeros((1, 1, 136), np.float32)
    for coordinate, weight in (
        (2 * 48 + 1, 1e4),
        (2 * 67 + 1, 1e4),
        (2 * 48, 1),
        (7, 1),
    ):
        target = predicted.copy()
        target[..., coordinate] = 0.1
        loss = losses.landmark_loss(predicted, target, mask)
        np.testing.assert_allclose(loss, weight * 0.01 / 136, rtol=1e-5)
    assert int((mask > 1).sum()) == 20


def test_coefficient_loss_is_the_mean_square():
    h = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    np.testing.assert_allclose(losses.coefficient_loss(h, h + 2), 4.0, rtol=1e-6)


# --- texture ---


def picture(seed: int = 0, size: int = 32) -> np.ndarray:
    """f32[1,1,S,S,3] of smooth random texture in about [-1,1]."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    smooth = gaussian_filter(noise, 1.0, mode="wrap")
    texture = np.repeat((smooth / np.abs(smooth).max())[None, None, ..., None], 3, -1)
    return texture.astype(np.float32)


def test_texture_loss_compares_the_energy_of_derivatives_window_by_window():
    fake, real = (
        np.random.default_rng(i).normal(size=(1, 2, 32, 32, 3)) for i in (0, 1)
    )
    weight = np.random.default_rng(2).uniform(1, 8, (1, 2, 32, 32, 1))

    def energies(frames, scale):
        gray = frames.mean(-1).reshape(-1, 32 // scale, scale, 32 // scale, scale)
        gray = gray.mean((2, 4))
        for order in (1, 2) if scale == 1 else (1,):
            for axis in (2, 1):
                d = np.diff(gray, order, axis)
                size = 8 // scale
                yield [
                    [
                        np.sqrt(np.sum(d[t, y : y + size, x : x + size] ** 2) / size**2)
                        for y in range(0, gray.shape[1] - size + 1, size // 2)
                        for x in range(0, gray.shape[2] - size + 1, size // 2)
                    ]
                    for t in range(2)
                ]

    windows = [
        [
            weight[0, t, y : y + 8, x : x + 8].mean()
            for y in range(0, 25, 4)
            for x in range(0, 25, 4)
        ]
        for t in range(2)
    ]
    expected = sum(
        np.mean(np.array(windows) * np.abs(np.array(a) - np.array(b)))
        for scale in (1, 2)
        for a, b in zip(energies(fake, scale), energies(real, scale), strict=True)
    )
    single = (x.astype(np.float32) for x in (fake, real))
    loss = losses.texture_loss(*single, weight=weight.astype(np.float32))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_texture_loss_grows_with_missing_contrast_and_is_zero_for_the_same():
    real = 20 * picture()  # large beside the 1e-5 under the root
    nothing = losses.texture_loss(0 * real, real)
    for share in (0.25, 0.5, 2.0):
        loss = losses.texture_loss(share * real, real)
        np.testing.assert_allclose(loss, abs(1 - share) * nothing, rtol=0.01)
    assert losses.texture_loss(real, real) == 0


def test_texture_loss_minds_blur_more_than_a_shift_and_tells_directions_apart():
    real = picture()
    blurred = gaussian_filter(real, (0, 0, 1, 1, 0), mode="wrap")
    shifted = np.roll(real, 1, axis=3)
    as_blurred, as_shifted = (
        losses.texture_loss(fake, real) for fake in (blurred, shifted)
    )
    assert as_shifted < 0.5 * as_blurred
    # L1 sees it the other way round.
    assert np.abs(shifted - real).mean() > np.abs(blurred - real).mean()


def test_texture_loss_tells_stripes_across_from_stripes_along():
    columns = np.indices((1, 1, 32, 32, 3))[3] // 2 % 2
    across = (2 * columns - 1).astype(np.float32)
    along = across.swapaxes(2, 3)
    both = losses.texture_loss(across, along), losses.texture_loss(0 * along, along)
    assert both[0] > 1.5 * both[1]


# --- pyramid, mouths ---


def laplacian_bands(picture, levels):
    """The bands of f[H,W], by scipy's linear interpolation."""
    bands = []
    for _ in range(levels):
        height, width = picture.shape
        small = picture.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        at = np.meshgrid(
            *((np.arange(n) + 0.5) / 2 - 0.5 for n in (height, width)), indexing="ij"
        )
        bands.append(picture - map_coordinates(small, at, order=1, mode="nearest"))
        picture = small
    return bands


def test_pyramid_loss_is_the_sum_of_the_weighted_bands():
    random = np.random.default_rng(0)
    fake, real = random.uniform(-1, 1, (2, 1, 1, 32, 48, 3))
    weight = random.uniform(1, 3, (1, 1, 32, 48, 1))
    want, share = 0.0, weight[0, 0, ..., 0]
    channels = [
        laplacian_bands((fake - real)[0, 0, ..., i], losses.LEVELS) for i in range(3)
    ]
    for level, bands in enumerate(zip(*channels, strict=True)):
        want += np.mean(share * np.abs(bands)) / 2**level
        share = share.reshape(len(share) // 2, 2, -1, 2).mean((1, 3))
    arrays = [x.astype(np.float32) for x in (fake, real, weight)]
    loss = losses.pyramid_loss(*arrays[:2], weight=arrays[2])
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert losses.pyramid_loss(arrays[0], arrays[0]) == 0
    even = losses.pyramid_loss(arrays[0], arrays[0] + 0.25)
    np.testing.assert_allclose(even, 0, atol=1e-6)


def test_hinge_loss_is_zero_beyond_the_margin():
    far = np.array([1.5, 2.0], np.float32)
    assert losses.hinge_loss(far, -far) == 0
    np.testing.assert_allclose(losses.hinge_loss(0 * far, 0 * far), 2)
    np.testing.assert_allclose(losses.hinge_loss(-far, -far), 2.75)


def test_feature_loss_weighs_layers_alike():
    real = [np.zeros((2, 8, 8, 4), np.float32), np.zeros((2, 2, 2, 16), np.float32)]
    fake = [real[0] + 1, real[1] - 3]
    np.testing.assert_allclose(losses.feature_loss(fake, real), 2)
