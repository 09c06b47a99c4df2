"""The networks and one training iteration against the authors' code, in every clone.

tests/data holds what the authors' PyTorch code computed from weights and inputs that a
formula makes (tests/formula.py), at the networks' full size.  All of it is compared in
both forms of the convolutions: that for CPUs and XLA's own, which GPUs and TPUs run.
"""

import json

import jax
import numpy as np
import optax
import pytest

from input_pipeline.clip import VgBatch
from jax_atvg.inference.torch_import import convert
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.vg_net import VGNet
from jax_atvg.training.config import GanLoss
from jax_atvg.training.gan_step import gan_step
from jax_atvg.training.state import VgNets
from tests import formula
from tests.conftest import ROOT
from tests.per_frame_norm import PerFrameBatchNorm
from tests.reference_networks import block_norms, max_difference, nhwc

DATA = ROOT / "tests" / "data"


@pytest.fixture(scope="module")
def state_dicts():
    return {network: formula.state_dict(network) for network in formula.NETWORKS}


@pytest.fixture(scope="module")
def variables(state_dicts):
    return {network: convert(network, state_dicts[network]) for network in state_dicts}


@pytest.fixture(scope="module")
def inputs():
    return formula.inputs()


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(DATA / "parity_seed3.npz"))


@pytest.fixture(scope="module")
def form(convolution_form):
    """The form of the convolutions.  The CPU's is compiled without most of XLA's
    optimisations, which take longer than they save here; XLA's own needs them."""
    if convolution_form == "cpu":
        jax.config.update("jax_disable_most_optimizations", True)
    return convolution_form


@pytest.mark.parametrize(
    ("network", "entries", "parameters"),
    [
        ("at_net", 52, 30_071_750),
        ("vg_net", 206, 58_355_781),
        ("discriminator", 46, 21_491_473),
    ],
)
def test_formula_makes_state_dicts_of_the_authors_size(
    state_dicts, network, entries, parameters
):
    state_dict = state_dicts[network]
    assert len(state_dict) == entries
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert parameters == sum(
        value.size for name, value in state_dict.items() if not name.endswith(buffers)
    )


@pytest.mark.usefixtures("form")
def test_at_net_computes_what_the_authors_does(variables, inputs, stored):
    output = jax.jit(ATNet().apply)(
        variables["at_net"], inputs.at_example, inputs.at_audio
    )
    assert max_difference(output.coefficients, stored["at/output"]) < 1e-5


@pytest.mark.usefixtures("form")
def test_discriminator_computes_what_the_authors_does(variables, inputs, stored):
    output = jax.jit(Discriminator().apply)(
        variables["discriminator"], nhwc(inputs.disc_frames), inputs.disc_example
    )
    assert max_difference(output.score, stored["disc/score"]) < 1e-5
    assert max_difference(output.landmarks, stored["disc/landmarks"]) < 2e-5


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("recurrence", ["time", "batch"])
def test_vg_net_computes_what_the_authors_does(variables, inputs, stored, recurrence):
    """Over the batch, as the authors' code runs it, and over time, as the paper says
    (their cell, given the frames as its sequence).  Every fourth pixel is compared."""
    output = jax.jit(VGNet(recurrence=recurrence).apply)(
        variables["vg_net"],
        nhwc(inputs.vg_image),
        inputs.vg_landmarks,
        inputs.vg_example,
    )
    expected = {
        name: stored[f"vg_{recurrence}/{name}"]
        for name in ("frames", "attention", "color", "landmark_attention")
    }
    for name in ("frames", "attention", "color"):
        actual = getattr(output, name)[:, :, ::4, ::4]
        assert max_difference(actual, expected[name]) < 5e-4, name
    attention = expected["landmark_attention"]
    assert max_difference(output.landmark_attention, attention) < 5e-5


def test_the_recurrences_are_far_apart_for_the_limit_on_vg_net(stored):
    difference = np.abs(stored["vg_batch/frames"] - stored["vg_time/frames"])
    assert difference.max() > 100 * 5e-4


class FrameNorm(PerFrameBatchNorm):
    """Without the running averages, on which nothing in a training step depends."""

    def update(self, running, batch):
        pass


@pytest.fixture(scope="module")
def iteration():
    """What the authors' iteration computed, in float64."""
    return json.loads((DATA / "gan_step_seed3.json").read_text())


@pytest.fixture(scope="module")
def ours(form, variables, inputs):
    """Our iteration: (losses, gradients of the discriminator, gradients of VG-net).

    The gradients are read off the optimisers: after one step, Adam's first moment is
    1 - b1 = 1/2 of the gradient that it was given.
    """
    nets = VgNets(
        VGNet(recurrence="batch", dropout=0.0, norm=FrameNorm),
        Discriminator(norm=FrameNorm),
        loss=GanLoss(landmark_on_generated=True),
    )
    batch = VgBatch(
        nhwc(inputs.vg_image),
        inputs.vg_example,
        nhwc(inputs.disc_frames),
        formula.gan_landmarks(),
    )

    @jax.jit
    def step(vg_net, discriminator, batch):
        after, losses = gan_step(nets, nets.start(vg_net, discriminator), batch, 0)
        return losses, *(
            jax.tree.map(lambda m: 2 * m, optax.tree_utils.tree_get(opt_state, "mu"))
            for opt_state in (after.disc.opt_state, after.vg.opt_state)
        )

    return step(variables["vg_net"], variables["discriminator"], batch)


@pytest.mark.parametrize(
    ("name", "theirs", "limit"),
    [
        ("disc/score_real", "loss_real", 1e-5),
        ("disc/score_fake", "loss_fake", 1e-5),
        ("disc/landmark_real", "loss_lmark_r", 1e-5),
        ("disc/landmark_fake", "loss_lmark_f", 1e-5),
        ("vg/pixel", "loss_pix", 1e-5),
        ("vg/attention", "attention_mean", 1e-5),
        # Judged by the discriminator after its step.
        ("vg/score", "loss_gen", 1e-4),
        ("vg/landmark", "loss_lmark", 1e-4),
    ],
)
def test_gan_iteration_has_the_authors_losses(ours, iteration, name, theirs, limit):
    losses, _, _ = ours
    np.testing.assert_allclose(losses[name], iteration[theirs], rtol=limit)


def test_gan_iteration_has_the_authors_gradients_of_the_discriminator(ours, iteration):
    """Of L_D, block by block, at the discriminator's own step."""
    _, gradients, _ = ours
    norms = block_norms("discriminator", gradients)
    assert norms == pytest.approx(iteration["disc_grad_norm"], rel=1e-4)


def test_gan_iteration_has_the_authors_gradients_of_vg_net(ours, iteration):
    """Of L_G, block by block, after the discriminator's step.  The limit is the
    reference's: in training the network is a long chain of ReLUs and normalisations,
    and float32 in PyTorch is itself 0.2 % off."""
    _, _, gradients = ours
    norms = block_norms("vg_net", gradients)
    assert norms == pytest.approx(iteration["gen_grad_norm"], rel=1e-2)
