"""The training steps by their claims; against the authors' in test_reference_steps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.clip import AtBatch
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.training import gan_step as gan
from jax_atvg.training.at_step import at_step
from jax_atvg.training.config import GanLoss
from jax_atvg.training.optim import adam
from jax_atvg.training.rng import stream
from jax_atvg.training.state import AtNets, VgNets
from tests.random_variables import random_variables, random_vg_batch

SIZE, BATCH, FRAMES = 32, 2, 3


def changed(before, after) -> bool:
    return any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


@pytest.fixture(scope="module")
def nets():
    return VgNets(
        VGNet(width=4, num_blocks=1, image_size=SIZE),
        Discriminator(width=4, fc_width=16, lstm_width=8),
        vg_optimizer=adam(2e-3),
        disc_optimizer=adam(2e-3),
    )


@pytest.fixture(scope="module")
def batch():
    return random_vg_batch(BATCH, FRAMES, SIZE)


@pytest.fixture(scope="module")
def state(nets, batch):
    return nets.start(
        random_variables(nets.vg_net, batch.image, batch.landmarks, batch.example),
        random_variables(nets.discriminator, batch.frames, batch.example),
    )


@pytest.fixture(scope="module")
def step(nets):
    return jax.jit(functools.partial(gan.gan_step, nets))


@pytest.fixture(scope="module")
def judge(nets):
    return jax.jit(functools.partial(gan.vg_loss, nets))


@pytest.fixture(scope="module")
def after(step, state, batch):
    return step(state, batch, 0)


@pytest.fixture(scope="module")
def fake(nets, state, batch):
    """What VG-net makes in that step."""

    @jax.jit
    def make(state):
        fake, _, _ = gan.generate(nets, state, batch, 0)
        return fake

    return make(state)


def test_both_networks_and_their_statistics_move_once(state, after):
    moved, _ = after
    assert moved.step == 1
    for before, now in ((state.vg, moved.vg), (state.disc, moved.disc)):
        assert changed(before.params, now.params)
        assert changed(before.batch_stats, now.batch_stats)


def test_generator_loss_is_the_weighted_sum_of_its_terms(judge, state, batch):
    fake = gan.Fake(-batch.frames, 0.5 * np.ones((*batch.frames.shape[:-1], 1)))
    loss, terms = judge(state, fake, batch)
    expected = 10 * terms["vg/pixel"] + terms["vg/score"] + terms["vg/landmark"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_discriminator_is_updated_as_if_the_generator_stood_still(
    nets, state, batch, after, fake
):
    """The generator's update leaves the discriminator untouched."""
    alone, _ = jax.jit(functools.partial(gan.discriminator_update, nets))(
        state.disc, fake, batch
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6),
        alone.params,
        after[0].disc.params,
    )


def test_generator_is_judged_by_the_updated_discriminator(
    judge, state, batch, after, fake
):
    moved, metrics = after
    _, by_new = judge(moved, fake, batch)
    _, by_old = judge(state, fake, batch)
    np.testing.assert_allclose(metrics["vg/landmark"], by_new["vg/landmark"], rtol=1e-4)
    assert abs(by_old["vg/landmark"] / by_new["vg/landmark"] - 1) > 1e-3


def test_landmark_gradient_of_the_discriminator_flows_to_the_frames(nets, state, batch):
    def landmark(frames):
        fake = gan.Fake(frames, jnp.zeros((BATCH, FRAMES, SIZE, SIZE, 1)))
        return gan.vg_loss(nets, state, fake, batch)[1]["vg/landmark"]

    gradient = jax.jit(jax.grad(landmark))(jnp.asarray(batch.frames))
    assert float(jnp.abs(gradient).max()) > 0


def test_real_and_generated_frames_are_normalised_apart(nets, state, batch):
    """The score of the real clip does not depend on the generated one."""
    loss = jax.jit(functools.partial(gan.discriminator_loss, nets))

    def terms(fake):
        _, (_, terms) = loss(state.disc.params, state.disc.batch_stats, fake, batch)
        return terms

    a, b = terms(batch.frames), terms(-0.1 * batch.frames)
    assert a["disc/score_real"] == b["disc/score_real"]
    assert a["disc/score_fake"] != b["disc/score_fake"]


@pytest.mark.parametrize("generated", [False, True])
def test_landmarks_are_learnt_from_real_frames_unless_the_authors_way_is_asked_for(
    nets, state, batch, generated
):
    """By the loss and by its gradient: D_s is off, so that D_p alone is trained."""
    loss = GanLoss(score=False, landmark_on_generated=generated)
    nets = dataclasses.replace(nets, loss=loss)

    @jax.jit
    @functools.partial(jax.grad, argnums=2, has_aux=True)
    def gradient(params, batch_stats, fake):
        loss, (_, terms) = gan.discriminator_loss(
            nets, params, batch_stats, fake, batch
        )
        return loss, terms

    disc, fake = state.disc, jnp.asarray(-0.5 * batch.frames)
    towards, terms = gradient(disc.params, disc.batch_stats, fake)
    assert bool(np.any(towards)) == generated
    named = {"disc/landmark_real", "disc/loss"}
    assert set(terms) == named | ({"disc/landmark_fake"} if generated else set())


def test_the_same_seed_repeats_a_step_and_another_does_not(step, state, batch, after):
    again, _ = step(state, batch, 0)
    other, _ = step(state, batch, 1)
    assert not changed(again, after[0])
    assert changed(other.vg.params, after[0].vg.params)


def test_losses_fall_on_a_memorised_batch(step, state, batch):
    trace, batch = [], batch._replace(frames=np.full_like(batch.frames, 0.3))
    for _ in range(60):
        state, metrics = step(state, batch, 0)
        trace.append((metrics["vg/pixel"], metrics["disc/landmark_real"]))
    first, last = np.mean(trace[:3], 0), np.mean(trace[-3:], 0)
    assert last[0] < 0.9 * first[0] and last[1] < 0.5 * first[1]


def test_at_net_memorises_a_batch():
    random = np.random.default_rng(0)
    batch = AtBatch(
        random.normal(size=(BATCH, 4)).astype(np.float32),
        random.normal(size=(BATCH, FRAMES, 28, 12)).astype(np.float32),
        random.normal(size=(BATCH, FRAMES, 4)).astype(np.float32),
    )
    widths = {"audio_widths": (8,) * 5, "fc_widths": (32, 16), "lstm_width": 16}
    nets = AtNets(ATNet((16, 16), num_coefficients=4, **widths), adam(1e-2))
    state = nets.start(random_variables(nets.net, batch.example, batch.audio))
    step, losses = jax.jit(functools.partial(at_step, nets)), []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["at/loss"]))
    assert losses[-1] < 0.3 * losses[0]


def test_streams_differ_by_name_and_step_and_repeat():
    keys = [stream(0, "gen/dropout", 1), stream(0, "gen/dropout", 2), stream(0, "x", 1)]
    data = {tuple(jax.random.key_data(key).tolist()) for key in keys}
    assert len(data) == 3
    assert stream(0, "x", 1) == stream(0, "x", 1)
