"""The losses by their claims; against the authors' values in test_reference_units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


# --- mouths ---


def test_hinge_loss_is_zero_beyond_the_margin():
    far = np.array([1.5, 2.0], np.float32)
    assert losses.hinge_loss(far, -far) == 0
    np.testing.assert_allclose(losses.hinge_loss(0 * far, 0 * far), 2)
    np.testing.assert_allclose(losses.hinge_loss(-far, -far), 2.75)


def test_feature_loss_weighs_layers_alike():
    real = [np.zeros((2, 8, 8, 4), np.float32), np.zeros((2, 2, 2, 16), np.float32)]
    fake = [real[0] + 1, real[1] - 3]
    np.testing.assert_allclose(losses.feature_loss(fake, real), 2)
