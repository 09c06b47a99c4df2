"""Training steps against the authors' (docs/reference.md, section 2).

In the form of the convolutions for CPUs.  A whole iteration's losses and gradients in
both forms are in test_parity.py, and test_convolutions.py holds the forms equal.
"""

import functools

import jax
import numpy as np
import optax
import pytest

from input_pipeline.clip import AtBatch, VgBatch
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.training import gan_step as gan
from jax_atvg.training.at_step import at_step
from jax_atvg.training.config import GanLoss
from jax_atvg.training.losses import dynamic_pixel_loss
from jax_atvg.training.state import AtNets, VgNets
from tests.conftest import optimised
from tests.per_frame_norm import PerFrameBatchNorm
from tests.reference_networks import (
    assert_running_statistics,
    authors_variables,
    block_norms,
    by_their_name,
    image,
)

# Their true gradient is zero (a normalisation follows): rounding decides Adam's move.
NO_GRADIENT = ("lmark_att.0.bias", "lmark_att.3.bias")


def assert_block_norms(network, gradients, stored, prefix, rtol):
    norms = block_norms(network, gradients)
    for block, norm in norms.items():
        np.testing.assert_allclose(norm, stored[prefix + block], rtol=rtol)
    given = {name.removeprefix(prefix) for name in stored if name.startswith(prefix)}
    assert given - set(norms) <= {"decoder"}


def assert_parameters_after(network, params, stored, prefix, limit=1e-4):
    """Mean and standard deviation of every tensor.  One Adam step moves an element by
    about lr in the gradient's sign, so that single elements are no measure."""
    for name, value in by_their_name(network, params).items():
        if name not in NO_GRADIENT:
            mean, std, *_ = stored[f"{prefix}{name}"]
            assert abs(np.mean(value) - mean) < limit, name
            assert abs(np.std(value) - std) < limit, name


def given_to_adam(net):
    """The gradients of the first step: Adam's first moment is 1 - b1 = 1/2 of them."""
    mu = optax.tree_utils.tree_get(net.opt_state, "mu")
    return jax.tree.map(lambda x: 2 * x, mu)


def at_steps(stored, count, dtype):
    """(AT-net after the first of so many steps, all losses), computed in the type."""
    nets = AtNets(ATNet(norm=PerFrameBatchNorm))
    batch = (stored[name] for name in ("example_landmark", "audio", "target"))
    batch, variables = jax.tree.map(
        lambda x: np.asarray(x, dtype), (AtBatch(*batch), authors_variables("at_net"))
    )
    state, trace = nets.start(variables), []
    step = jax.jit(functools.partial(at_step, nets))
    for i in range(count):
        state, metrics = step(state, batch)
        trace.append(metrics["at/loss"])
        if i == 0:
            first = state.net
    assert state.step == count
    return first, trace


def test_at_step_loss_and_gradients(reference):
    """In float64, as the authors' code computed what is stored: in float32 single
    elements of a gradient are wrong by thousandths of the largest."""
    stored = reference("at_net_seed0_io.npz")
    with jax.enable_x64(True):
        net, trace = at_steps(stored, 1, np.float64)
        gradients = jax.device_get(given_to_adam(net))
    np.testing.assert_allclose(trace[0], stored["step/loss"], rtol=1e-12)
    assert_block_norms("at_net", gradients, stored, "step/grad_norm/", 1e-8)
    for name, gradient in by_their_name("at_net", gradients).items():
        _, _, norm, largest = stored[f"step/grad/stats/{name}"]
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(np.sqrt(np.sum(gradient**2)), norm, rtol=1e-10)
        np.testing.assert_allclose(np.abs(gradient).max(), largest, rtol=1e-10)
    prefix = "train/buffers_after/"
    assert_running_statistics("at_net", net.batch_stats, stored, prefix)


def test_five_adam_steps_of_at_net(reference):
    stored = reference("at_net_seed0_io.npz")
    with optimised():
        net, trace = at_steps(stored, 5, np.float32)
    prefix = "step/param_after/stats/"
    assert_parameters_after("at_net", net.params, stored, prefix)
    np.testing.assert_allclose(trace, stored["step/loss_trace_5_f64"], rtol=2e-3)


GAN = VgNets(
    VGNet(recurrence="batch", dropout=0.0, norm=PerFrameBatchNorm),
    Discriminator(norm=PerFrameBatchNorm),
    loss=GanLoss(landmark_on_generated=True),
)


@jax.jit
def generate(state, batch):
    """VG-net forward: (its result, the pull-back to its parameters).  Compiled once for
    the two tests below, as is the pull-back."""
    fake, pull_back, _ = gan.generate(GAN, state, batch, 0)
    return fake, pull_back


@jax.jit
def pull(pull_back, cotangent):
    return pull_back(cotangent)[0]


@pytest.fixture(scope="module")
def gan_case(reference):
    """The authors' iteration: (stored values, state, batch, state afterwards,
    losses)."""
    stored = reference("vgnet_step_seed0.npz")
    state = GAN.start(authors_variables("vg_net"), authors_variables("discriminator"))
    batch = VgBatch(
        image(stored["example_img_u8"]),
        stored["example_landmark"],
        image(stored["right_img_u8"]),
        stored["right_landmark"],
    )
    after, metrics = jax.jit(functools.partial(gan.gan_step, GAN))(state, batch, 0)
    return stored, state, batch, after, metrics


def test_gan_step_losses(gan_case):
    stored, _, _, _, metrics = gan_case
    for ours, theirs, rtol in (
        ("disc/score_real", "loss_real", 1e-4),
        ("disc/score_fake", "loss_fake", 1e-4),
        ("disc/landmark_real", "loss_lmark_r", 1e-4),
        ("disc/landmark_fake", "loss_lmark_f", 1e-4),
        ("disc/loss", "loss_disc", 1e-4),
        ("vg/pixel", "loss_pix", 1e-4),
        ("vg/score", "loss_gen", 1e-3),
        ("vg/landmark", "loss_lmark", 1e-3),
        ("vg/loss", "loss_total_gen", 1e-3),
        ("vg/attention", "attention_mean", 1e-4),
    ):
        np.testing.assert_allclose(metrics[ours], stored[f"f64/{theirs}"], rtol=rtol)


@pytest.mark.parametrize(
    ("network", "net", "step"),
    [("discriminator", "disc", "disc_step"), ("vg_net", "vg", "gen_step")],
)
def test_gan_step_parameters(gan_case, network, net, step):
    stored, _, _, after, _ = gan_case
    params = getattr(after, net).params
    assert_parameters_after(network, params, stored, f"f64/{step}/param_after/stats/")


def test_gan_step_gradients(gan_case):
    """Both networks', block by block; the generator's also term by term, of which the
    pixels' is what the other two leave of the whole."""
    stored, state, batch, after, _ = gan_case
    gradients = given_to_adam(after.disc)
    assert_block_norms(
        "discriminator", gradients, stored, "f64/disc_step/grad_norm/", 1e-4
    )
    total = given_to_adam(after.vg)
    assert_block_norms("vg_net", total, stored, "f64/gen_step/grad_norm/", 1e-2)

    @jax.jit
    def cotangents(state, fake, batch):
        def terms(fake):
            _, terms = gan.vg_loss(GAN, state, fake, batch)
            return terms["vg/score"], terms["vg/landmark"]

        return jax.jacrev(terms)(fake)

    fake, pull_back = generate(state, batch)
    score, landmark = (
        pull(pull_back, cotangent) for cotangent in cotangents(after, fake, batch)
    )
    pixel = jax.tree.map(lambda x, a, b: (x - a - b) / 10, total, score, landmark)
    for name, gradient in (("pix", pixel), ("gen", score), ("lmark", landmark)):
        norm = np.sqrt(sum(x**2 for x in block_norms("vg_net", gradient).values()))
        expected = stored[f"f64/gen_step/grad_norm_of_{name}_alone"]
        np.testing.assert_allclose(norm, expected, rtol=1e-2)


def test_losses_after_the_gan_step(gan_case):
    """Recomputed with both updated networks."""
    stored, _, batch, after, _ = gan_case
    fake, _ = generate(after, batch)
    _, (_, d) = jax.jit(functools.partial(gan.discriminator_loss, GAN))(
        after.disc.params, after.disc.batch_stats, fake.frames, batch
    )
    pixel = dynamic_pixel_loss(fake.frames, batch.frames, fake.attention)
    for value, theirs in (
        (d["disc/score_real"], "loss_real"),
        (d["disc/score_fake"], "loss_fake"),
        (d["disc/landmark_real"], "loss_lmark_r"),
        (d["disc/landmark_fake"], "loss_lmark_f"),
        (pixel, "loss_pix"),
    ):
        np.testing.assert_allclose(value, stored[f"f64/after/{theirs}"], rtol=1e-3)
