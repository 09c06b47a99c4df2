"""The loss of AT-net: coefficients, or the landmarks they stand for."""

import functools

import jax
import numpy as np
import optax
import pytest

from configs import smoke
from input_pipeline.clip import LOWER_RIM, MOUTH, UPPER_RIM, AtBatch, Pca
from jax_atvg.models.at_net import ATNet, without_doubt
from jax_atvg.training import losses
from jax_atvg.training.at_step import at_loss, at_step
from jax_atvg.training.config import AtLoss
from jax_atvg.training.optim import adam
from jax_atvg.training.state import AtNets
from jax_atvg.training.train_step import make_nets
from tests.random_variables import random_variables

BATCH = 2
SHAPES = (2, 4), (2, 3, 28, 12), (2, 3, 4)  # of AT-net's batch


@pytest.mark.parametrize(("mouth", "velocity"), [(1.0, 0.0), (4.0, 0.0), (4.0, 2.0)])
def test_landmark_target_of_at_net_is_weighted_position_and_velocity(mouth, velocity):
    random = np.random.default_rng(0).normal
    p, q = random(size=(2, BATCH, 5, 136)).astype(np.float32)
    weight = np.ones(68, np.float32)
    weight[MOUTH] = mouth

    def term(error):
        points = error.reshape(*error.shape[:2], 68, 2)
        smooth = np.sqrt(np.sum(points**2, -1) + 0.005**2) - 0.005
        return np.mean(weight * smooth)

    expected = term(p - q) + velocity * term(np.diff(p - q, axis=1))
    loss = losses.at_landmark_loss(p, q, mouth_weight=mouth, velocity_weight=velocity)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_of_a_single_frame_there_is_no_velocity():
    """A mean over no differences would be NaN."""
    random = np.random.default_rng(0).normal
    p, q = random(size=(2, BATCH, 1, 136)).astype(np.float32)
    loss = losses.at_landmark_loss(p, q, velocity_weight=2.0)
    assert loss == losses.at_landmark_loss(p, q)


def test_frames_with_closed_lips_can_weigh_more():
    """Frame 0 is closed, by less than a pixel, frame 1 open: 3 and 1 of 4 shares."""
    random = np.random.default_rng(0).normal
    p, q = random(size=(2, 1, 2, 68, 2)).astype(np.float32)
    q[0, 0, LOWER_RIM, 1] = q[0, 0, UPPER_RIM, 1] + 0.9 / 64
    q[0, 1, LOWER_RIM, 1] = q[0, 1, UPPER_RIM, 1] + 1.1 / 64
    p, q = p.reshape(1, 2, 136), q.reshape(1, 2, 136)
    np.testing.assert_array_equal(losses.closed_lips(q), [[1, 0]])
    first, second = (
        losses.at_landmark_loss(p[:, t : t + 1], q[:, t : t + 1]) for t in range(2)
    )
    loss = losses.at_landmark_loss(p, q, closed_weight=2.0)
    np.testing.assert_allclose(loss, (3 * first + second) / 2, rtol=1e-5)
    plain = losses.at_landmark_loss(p, q, closed_weight=0.0)
    np.testing.assert_allclose(plain, (first + second) / 2, rtol=1e-5)


def test_landmark_target_is_the_landmark_distance():
    """Far off, the metric itself; at 0, nothing, with a gradient that is finite."""
    random = np.random.default_rng(0).normal
    p, q = random(size=(2, BATCH, 5, 136)).astype(np.float32)
    distance = np.linalg.norm((p - q).reshape(BATCH, 5, 68, 2), axis=-1).mean()
    np.testing.assert_allclose(losses.at_landmark_loss(p, q), distance, atol=0.005)
    value, slope = jax.value_and_grad(losses.at_landmark_loss)(p, p)
    assert value == 0 and np.all(slope == 0)


def test_at_loss_on_landmarks_goes_through_the_pca():
    random = np.random.default_rng(0).normal
    components = np.linalg.qr(random(size=(136, 4)))[0].astype(np.float32)
    net = ATNet((8,), (4,) * 5, (8,), 8, 1, num_coefficients=4)
    inputs = [random(size=s).astype("f4") for s in [(2, 4), (2, 3, 28, 12), (2, 3, 4)]]
    variables = random_variables(net, *inputs[:2])
    by_target = {}
    for target in ("coefficients", "landmarks"):
        pca = Pca(np.zeros(136, np.float32), components)
        nets = AtNets(net, adam(), AtLoss(target=target), pca)
        by_target[target], _ = jax.jit(functools.partial(at_loss, nets))(
            variables["params"], variables["batch_stats"], AtBatch(*inputs)
        )
    h = net.apply(variables, *inputs[:2], train=True, mutable=["batch_stats"])[0][0]
    error = h - inputs[2]
    np.testing.assert_allclose(by_target["coefficients"], np.mean(error**2), rtol=1e-4)
    expected = losses.at_landmark_loss(error @ components.T, np.zeros((2, 3, 136)))
    np.testing.assert_allclose(by_target["landmarks"], expected, rtol=1e-4)


@pytest.mark.parametrize("target", ["coefficients", "landmarks"])
def test_every_member_learns_by_itself(target):
    """The loss is the mean of the members' own, not that of their mean."""
    random = np.random.default_rng(0).normal
    net = ATNet((8,), (4,) * 5, (8,), 8, 1, members=3, num_coefficients=4)
    inputs = [random(size=s).astype("f4") for s in [(2, 4), (2, 3, 28, 12), (2, 3, 4)]]
    variables = random_variables(net, *inputs[:2])
    components = np.linalg.qr(random(size=(136, 4)))[0].astype(np.float32)
    pca = Pca(np.zeros(136, np.float32), components)
    nets = AtNets(net, adam(), AtLoss(target=target), pca)
    trees = variables["params"], variables["batch_stats"]
    loss, _ = jax.jit(functools.partial(at_loss, nets))(*trees, AtBatch(*inputs))
    output = net.apply(variables, *inputs[:2], train=True, mutable=["batch_stats"])[0]
    assert output.by_member.shape == (3, 2, 3, 4)
    mean = output.by_member.mean(0)
    np.testing.assert_allclose(output.coefficients, mean, atol=1e-6)

    def of(h):
        if target == "coefficients":
            return losses.coefficient_loss(h, inputs[2])
        return losses.at_landmark_loss(h @ components.T, inputs[2] @ components.T)

    expected = np.mean([of(h) for h in output.by_member])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert abs(of(mean) - expected) > 0.01 * expected


def test_every_member_is_clipped_as_if_it_were_trained_alone():
    """Two steps.  Adam forgets scale; its first moment shows what it was given: of a
    member a third of what a run of its own is given, as the loss is a mean."""
    config, members = smoke.get_config("at"), 3
    config.data.num_coefficients = 4
    random = np.random.default_rng(0).normal
    batches = [
        AtBatch(*(scale * random(size=s).astype("f4") for s in SHAPES))
        for scale in (1.0, 5.0)
    ]

    def moments(members: int, clip: float, variables):
        """After two steps; and AT-net's gradients in the first."""
        config.at_net.members, config.optimizer.clip_norm = members, clip
        nets = make_nets(config)
        state, first = nets.start(variables), batches[0]
        gradients = jax.grad(at_loss, 1, has_aux=True)(nets, *state.net[:2], first)[0]
        for batch in batches:
            state, _ = jax.jit(functools.partial(at_step, nets))(state, batch)
        return optax.tree.get(state.net.opt_state, "mu"), gradients

    config.at_net.members = members
    together = random_variables(make_nets(config).net, *batches[0][:2])

    def own(tree, which: int):
        return jax.tree.map(lambda x: x[which], tree["member"])

    alone = [{k: own(v, m) for k, v in together.items()} for m in range(members)]
    norms = [optax.tree.norm(moments(1, 0.0, one)[1]) for one in alone]
    clip = float(np.median(norms))  # longer than one gradient, shorter than another
    assert min(norms) < 0.99 * clip and max(norms) > 1.01 * clip
    found, _ = moments(members, clip, together)
    for m, variables in enumerate(alone):
        expected, _ = moments(1, clip, variables)
        for a, b in zip(*map(jax.tree.leaves, (own(found, m), expected)), strict=True):
            np.testing.assert_allclose(members * a, b, rtol=1e-3, atol=1e-5)


def test_where_members_disagree_the_face_goes_back_to_rest():
    random = np.random.default_rng(0).normal
    by_member, example = random(size=(4, 2, 3, 5)), random(size=(2, 5))
    movement = by_member.mean(0) - example[:, None]
    energy = (movement**2).sum(-1, keepdims=True)
    spread = by_member.var(0, ddof=1).sum(-1, keepdims=True)
    expected = example[:, None] + movement * energy / (energy + 4 * spread)
    by_member, example = by_member.astype("f4"), example.astype("f4")
    got = without_doubt(by_member, example, 4.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    agreed = np.broadcast_to(by_member[:1], by_member.shape)
    got = without_doubt(agreed, example, 4.0)
    np.testing.assert_allclose(got, by_member[0], atol=1e-5)
    still = np.broadcast_to(example[:, None], (4, 2, 3, 5))
    np.testing.assert_allclose(without_doubt(still, example, 4.0), still[0])


def test_doubt_changes_what_a_network_says_and_not_what_its_members_do():
    sizes = dict(members=3, num_coefficients=4, relative=True)
    nets = [ATNet((8,), (), (8,), 8, 1, doubt=doubt, **sizes) for doubt in (0.0, 4.0)]
    random = np.random.default_rng(0).normal
    inputs = [random(size=s).astype("f4") for s in [(2, 4), (2, 3, 28, 12)]]
    variables = random_variables(nets[0], *inputs)
    plain, doubting = (net.apply(variables, *inputs) for net in nets)
    np.testing.assert_array_equal(plain.by_member, doubting.by_member)
    expected = without_doubt(plain.by_member, inputs[0], 4.0)
    np.testing.assert_allclose(doubting.coefficients, expected, atol=1e-6)
    assert np.abs(doubting.coefficients - plain.coefficients).max() > 0.01


def test_one_network_has_no_members():
    net = ATNet((8,), (), (8,), 8, 1, num_coefficients=4)
    inputs = np.zeros((2, 4), "f4"), np.zeros((2, 3, 28, 12), "f4")
    output = net.apply(random_variables(net, *inputs), *inputs)
    assert output.by_member is None
