"""VG-net against a discriminator of mouths: its terms, its learning, its storage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_atvg.models.mouth_discriminator import MouthDiscriminator
from jax_atvg.training import gan_step as gan
from jax_atvg.training.config import Experiment, GanLoss
from jax_atvg.training.optim import adam
from jax_atvg.training.state import from_stored, net_state, to_stored
from jax_atvg.training.train_step import batch_shapes, initial_state, make_nets
from tests.jax_atvg.training.test_options import BATCH, FRAMES, SIZE, small_gan, start
from tests.random_variables import random_vg_batch


@pytest.fixture(scope="module")
def batch():
    return random_vg_batch(BATCH, FRAMES, SIZE)


@pytest.fixture(scope="module")
def with_mouths():
    """Alone, without the paper's discriminator, and with plain descent."""
    loss = GanLoss(score=False, landmark=False, mouth_score=2.0, mouth_features=3.0)
    return small_gan(
        loss=loss,
        mouth_discriminator=MouthDiscriminator(width=4, side=16),
        disc_optimizer=adam(3e-3),
    )


@pytest.fixture(scope="module")
def state(with_mouths, batch):
    nets, crops = with_mouths, jnp.zeros((1, 16, 16, 3))
    mouth = nets.mouth_discriminator.init(jax.random.key(0), crops)
    return start(nets, batch)._replace(mouth=net_state(mouth, nets.disc_optimizer))


def test_the_discriminator_of_mouths_adds_its_two_terms(with_mouths, state, batch):
    after, terms = jax.jit(functools.partial(gan.gan_step, with_mouths))(
        state, batch, 0
    )
    want = 10 * terms["vg/pixel"]
    want += 2 * terms["vg/mouth_score"] + 3 * terms["vg/mouth_features"]
    np.testing.assert_allclose(terms["vg/loss"], want, rtol=1e-5)
    same = jax.tree.map(lambda a, b: bool(np.all(a == b)), state.disc, after.disc)
    assert all(jax.tree.leaves(same))

    @jax.jit
    def alone(state, batch):  # XLA leaves out what this does not depend on
        return gan.pixel_step(with_mouths, state, batch, 0)[0].mouth

    same = jax.tree.map(
        lambda a, b: bool(np.all(a == b)), state.mouth, alone(state, batch)
    )
    assert all(jax.tree.leaves(same))


def test_the_discriminator_of_mouths_learns_to_tell_them_apart(
    with_mouths, state, batch
):
    fake = gan.Fake(0.3 * batch.frames, np.zeros((*batch.frames.shape[:-1], 1)))
    update = jax.jit(functools.partial(gan.mouth_update, with_mouths))
    mouth, losses = state.mouth, []
    for _ in range(80):
        mouth, terms = update(mouth, fake, batch)
        losses.append(float(terms["disc/mouth"]))
    assert losses[0] > 1.5 and losses[-1] < 0.5 * losses[0]


def test_a_run_with_mouths_is_stored_and_loaded_and_others_as_before(
    with_mouths, state, batch
):
    plain = start(with_mouths, batch)
    assert "mouth" not in to_stored(plain)
    for one in (plain, state):
        back = from_stored(to_stored(one))
        assert jax.tree.structure(back) == jax.tree.structure(one)
    assert build_state("mouth_score").mouth is not None
    assert build_state("pixel_weight").mouth is None


def build_state(weight: str):
    """The shapes of the state of an experiment in which this weight is 1."""
    experiment = Experiment()
    setattr(experiment.gan_loss, weight, 1.0)
    nets = make_nets(experiment)
    shapes = batch_shapes(experiment, 1)
    return jax.eval_shape(functools.partial(initial_state, nets, shapes), 0)
