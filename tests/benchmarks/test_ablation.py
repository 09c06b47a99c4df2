"""The ablation's own step, and which of its variants share their first steps."""

import functools

import jax
import numpy as np
import optax
import pytest

from benchmarks.ablation import first_steps, two_forwards
from configs import ablation
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.training.gan_step import gan_step
from jax_atvg.training.state import VgNets
from tests.random_variables import random_variables, random_vg_batch


def test_two_forward_passes_without_dropout_take_the_same_step():
    """Only the running statistics of VG-net's norms are updated once more."""
    batch = random_vg_batch(2, 3, 32)
    vg_net = VGNet(width=4, num_blocks=1, image_size=32, dropout=0.0)
    # Adam would make a step of rounding errors, where gradients are near 0.
    sgd = {name: optax.sgd(1e-3) for name in ("vg_optimizer", "disc_optimizer")}
    nets = VgNets(vg_net, Discriminator(4, 16, (16, 16), 8, 1), **sgd)
    state = nets.start(
        random_variables(vg_net, batch.image, batch.landmarks, batch.example),
        random_variables(nets.discriminator, batch.frames, batch.example),
    )
    (once, terms), (twice, theirs) = (
        jax.jit(functools.partial(step, nets))(state, batch, 0)
        for step in (gan_step, two_forwards)
    )
    assert terms.keys() == theirs.keys()
    for name, value in terms.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-4, err_msg=name)
    for a, b in zip(
        jax.tree.leaves((once.vg.params, once.disc)),
        jax.tree.leaves((twice.vg.params, twice.disc)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    first, second = (jax.tree.leaves(one.vg.batch_stats) for one in (once, twice))
    assert any(not np.allclose(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("gan_without_score", True),
        ("gan_none", True),
        ("gan_mouth", True),
        ("gan_landmark_on_generated", True),
        ("pixels", False),
    ],
)
def test_variants_share_the_steps_on_pixels_that_are_the_same(name, shares):
    key = first_steps("gan", ablation.get_config("gan"))
    assert (first_steps(name, ablation.get_config(name)) == key) == shares


@pytest.mark.parametrize(
    ("name", "rate"),
    [("large_batch", 5e-4), ("large_batch_sqrt", 1e-3), ("large_batch_linear", 2e-3)],
)
def test_larger_batches_see_as_many_clips(name, rate):
    plain, config = ablation.get_config("pixels"), ablation.get_config(name)
    assert config.batch_size == 4 * plain.batch_size
    assert config.batch_size * config.steps == plain.batch_size * plain.steps
    assert config.gan_loss.pixel_steps == config.steps
    assert config.optimizer.learning_rate == pytest.approx(rate)
    assert name not in ablation.IN_TABLES


def test_the_authors_photo_landmarks_are_steps_of_their_own():
    config = ablation.get_config("pixels")
    assert first_steps("same_photo_landmarks", config) != first_steps("pixels", config)
