"""The switches of the paper's ablations, and options of current practice."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import ablation, smoke
from input_pipeline.clip import (
    MOUTH,
    InputError,
)
from jax_atvg.models.at_net import ATNet
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.sizes import AtNetSizes
from jax_atvg.models.vg_net import VGNet
from jax_atvg.sharding import data_mesh
from jax_atvg.training import config as configuration
from jax_atvg.training import gan_step as gan
from jax_atvg.training import losses
from jax_atvg.training.config import (
    Data,
    Experiment,
    GanLoss,
    Optimizer,
    Strength,
)
from jax_atvg.training.optim import make_optimizer, schedule
from jax_atvg.training.state import VgNets, run
from jax_atvg.training.train_step import build, make_nets
from tests.random_variables import random_variables, random_vg_batch

SIZE, BATCH, FRAMES = 32, 2, 3


def small_gan(**changes):
    generator = changes.pop("generator", VGNet(width=4, num_blocks=1, image_size=SIZE))
    return VgNets(generator, Discriminator(4, 16, (16, 16), 8, 1), **changes)


@pytest.fixture(scope="module")
def batch():
    return random_vg_batch(BATCH, FRAMES, SIZE)


def start(nets, batch):
    return nets.start(
        random_variables(nets.vg_net, batch.image, batch.landmarks, batch.example),
        random_variables(nets.discriminator, batch.frames, batch.example),
    )


def step_of(nets, batch, step=gan.gan_step):
    """(state before, state after, losses)."""
    state = start(nets, batch)
    return state, *jax.jit(functools.partial(step, nets))(state, batch, 0)


def assert_same(a, b, limit=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 0, limit), a, b)


# --- losses ---


def test_mouth_pixels_are_those_of_the_box_around_the_mouth(batch):
    weights = np.asarray(losses.pixels_around(MOUTH, batch.landmarks, SIZE, 4.0))
    expected = np.ones_like(weights)
    points = batch.landmarks.reshape(BATCH, FRAMES, 68, 2)[:, :, MOUTH]
    for b, t, y, x in np.ndindex(BATCH, FRAMES, SIZE, SIZE):
        low, high = points[b, t].min(0), points[b, t].max(0)
        margin = 0.25 * (high[0] - low[0])
        at = (np.array([x, y]) + 0.5) / SIZE * 2 - 1
        if np.all(at > low - margin) and np.all(at < high + margin):
            expected[b, t, y, x] = 4.0
    np.testing.assert_array_equal(weights, expected)
    assert 1 < weights.mean() < 4


def test_eyes_and_mouth_weigh_as_they_are_told(batch):
    """Each in its own box, with a loss of 1 in every pixel."""
    eyes, mouth = (slice(36, 42), slice(42, 48)), MOUTH
    boxes = [losses.pixels_around(x, batch.landmarks, SIZE, 3.0) for x in eyes]
    boxes += [losses.pixels_around(mouth, batch.landmarks, SIZE, 5.0)]
    chosen = GanLoss(dynamic=False, eyes_weight=3.0, mouth_weight=5.0, pixel_weight=1.0)
    nets = small_gan(loss=chosen)
    frames = batch.frames + 1
    fake = gan.Fake(frames, np.ones((*frames.shape[:-1], 1), np.float32))
    loss, _ = gan.weighted_pixel_loss(nets, fake, batch)
    np.testing.assert_allclose(loss, np.prod(boxes, axis=0).mean(), rtol=1e-5)
    assert loss > 1


def test_weighted_pixel_losses_reduce_to_plain_ones(batch):
    fake, attention = -batch.frames, np.full((*batch.frames.shape[:-1], 1), 0.5, "f4")
    l1 = np.mean(np.abs(fake - batch.frames))
    np.testing.assert_allclose(losses.pixel_loss(fake, batch.frames), l1, rtol=1e-6)
    plain = losses.dynamic_pixel_loss(fake, batch.frames, attention)
    np.testing.assert_allclose(plain, l1, rtol=1e-6)
    doubled = losses.dynamic_pixel_loss(fake, batch.frames, attention, weight=2.0)
    np.testing.assert_allclose(doubled, 2 * l1, rtol=1e-6)


# --- switches of the paper's terms ---


def test_without_dynamic_loss_the_pixel_term_is_plain_l1(batch):
    nets = small_gan(loss=GanLoss(dynamic=False))
    fake = gan.Fake(-batch.frames, np.ones((*batch.frames.shape[:-1], 1), np.float32))
    expected = np.mean(np.abs(2 * batch.frames))
    loss, terms = gan.weighted_pixel_loss(nets, fake, batch)
    np.testing.assert_allclose(terms["vg/pixel"], expected, rtol=1e-6)
    np.testing.assert_allclose(loss, 10 * expected, rtol=1e-6)


@pytest.mark.parametrize("term", ["score", "landmark"])
def test_a_term_switched_off_is_in_neither_loss(batch, term):
    """The names are the whole step's, the values those of its two losses."""
    nets = small_gan(loss=GanLoss(**{term: False}))
    state = start(nets, batch)
    _, names = jax.eval_shape(functools.partial(gan.gan_step, nets), state, batch, 0)
    fake = gan.Fake(-batch.frames, np.ones((*batch.frames.shape[:-1], 1), np.float32))

    @jax.jit
    def losses(state):
        disc = state.disc
        _, (_, d) = gan.discriminator_loss(
            nets, disc.params, disc.batch_stats, fake.frames, batch
        )
        return d | gan.vg_loss(nets, state, fake, batch)[1]

    terms = losses(state)
    assert set(terms) == set(names) and not any(term in name for name in terms)
    others = [v for k, v in terms.items() if k.startswith("disc") and "loss" not in k]
    np.testing.assert_allclose(terms["disc/loss"], sum(others), rtol=1e-6)


@pytest.fixture(scope="module")
def likeness(batch):
    """A step on the pixels alone: (before, after, losses).  With plain
    descent: rounding decides where Adam takes an element whose gradient is near eps."""
    loss = GanLoss(score=False, landmark=False)
    return step_of(small_gan(loss=loss, vg_optimizer=optax.sgd(1.0)), batch)


@pytest.fixture(scope="module")
def warm_up(batch):
    """A step of the warm-up, with all terms on: (before, after, losses)."""
    nets = small_gan(vg_optimizer=optax.sgd(1.0))
    return step_of(nets, batch, gan.pixel_step)


def test_without_both_terms_the_discriminator_rests(likeness):
    before, after, terms = likeness
    assert_same(after.disc, before.disc)
    assert not any(name.startswith("disc") for name in terms)
    assert "vg/score" not in terms and "vg/landmark" not in terms


def test_without_composition_every_pixel_is_drawn(batch):
    net = VGNet(width=4, num_blocks=1, image_size=SIZE, compose=False)
    inputs = batch.image, batch.landmarks, batch.example
    variables = random_variables(net, *inputs)
    assert "attention" not in variables["params"]
    output = jax.jit(net.apply)(variables, *inputs)
    assert_same(output.frames, output.color)
    assert np.all(output.attention == 1)


@pytest.mark.parametrize("variant", ablation.IN_TABLES)
def test_every_ablation_differs_from_the_first_of_its_group_in_one_thing(variant):
    """A field; or augmentation, or the terms of VG-net's loss: each of many fields."""
    groups = ablation.GAN_VARIANTS, ablation.PIXEL_VARIANTS, ablation.AT_VARIANTS
    base = next(next(iter(group)) for group in groups if variant in group)
    full = configuration.flatten(ablation.get_config(base))
    config = ablation.get_config(variant)
    configuration.validate(config)
    changed = configuration.differences(full, configuration.flatten(config))
    things = {one.partition("=")[0] for one in changed}
    things = {re.sub(r"^(data\.augment)\..*", r"\1", thing) for thing in things}
    if variant in ablation.GAN_VARIANTS:
        things = {re.sub(r"^(gan_loss)\..*", r"\1", thing) for thing in things}
    assert len(things) == (variant != base)


def test_all_ablations_of_vg_net_train_as_long():
    groups = ablation.GAN_VARIANTS, ablation.PIXEL_VARIANTS
    configs = [ablation.get_config(name) for group in groups for name in group]
    assert {config.steps for config in configs} == {600}
    assert {c.batch_size * (c.data.num_frames + 1) for c in configs} <= {24, 27}


# --- options of current practice ---


def test_warm_up_trains_the_generator_on_the_pixels_alone(warm_up, likeness):
    before, after, terms = warm_up
    assert_same(after.disc, before.disc)
    assert set(terms) == {"vg/pixel", "vg/attention"}
    assert after.step == 1
    _, expected, _ = likeness
    assert_same(after.vg.params, expected.vg.params, 1e-5)


def test_warm_up_lasts_its_steps():
    config = smoke.get_config("vg")
    config.gan_loss.pixel_steps = 5
    step = build(config, data_mesh(jax.devices()[:1]))
    assert [step.at(i) is step.warm_up for i in (0, 4, 5, 9)] == [
        True,
        True,
        False,
        False,
    ]


def test_schedules_rise_then_fall_to_zero():
    lr = schedule(Optimizer(0.1, schedule="cosine", warmup=10), 110)
    values = [float(lr(i)) for i in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(values, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)
    late = schedule(Optimizer(0.1, schedule="wsd", warmup=10), 110)
    values = [float(late(i)) for i in (0, 10, 90, 100, 110)]
    np.testing.assert_allclose(values, [0, 0.1, 0.1, 0.05, 0], atol=1e-7)
    constant = schedule(Optimizer(0.1), 100)
    assert float(constant(0)) == float(constant(99)) == pytest.approx(0.1)


def test_clipping_bounds_the_whole_gradient():
    """Adam forgets scale; its first moment shows what it was given."""
    gradient = {"a": jnp.full(3, 3.0), "b": jnp.full(1, 4.0)}
    for clip, norm in ((1.0, 1.0), (0.0, np.sqrt(27 + 16))):
        optimizer = make_optimizer(Optimizer(clip_norm=clip), 10)
        _, state = optimizer.update(gradient, optimizer.init(gradient))
        mu = optax.tree.get(state, "mu")
        np.testing.assert_allclose(optax.tree.norm(mu), 0.5 * norm, rtol=1e-5)


def test_accumulation_updates_once_with_the_mean_gradient():
    optimizer = make_optimizer(Optimizer(0.1, accumulate=2), 10)
    params = jnp.zeros(2)
    state = optimizer.init(params)
    first, state = optimizer.update(jnp.array([1.0, 3.0]), state, params)
    second, state = optimizer.update(jnp.array([3.0, -7.0]), state, params)
    plain = make_optimizer(Optimizer(0.1), 5)
    mean = jnp.array([2.0, -2.0])
    expected, _ = plain.update(mean, plain.init(params), params)
    assert_same(first, jnp.zeros(2))
    assert_same(second, expected, 1e-6)


def test_bfloat16_computes_near_float32_and_keeps_float32_state(batch):
    inputs = batch.image, batch.landmarks, batch.example
    net = VGNet(width=4, num_blocks=1, image_size=SIZE, dropout=0.0)
    variables = random_variables(net, *inputs)
    trees = variables["params"], variables["batch_stats"]
    exact, exact_stats = jax.jit(functools.partial(run, net))(*trees, *inputs)
    low = jax.jit(functools.partial(run, net, precision="bfloat16"))
    rough, rough_stats = low(*trees, *inputs)
    difference = np.abs(rough.frames - exact.frames)
    assert 0 < difference.mean() < 0.02
    assert_same(rough_stats, exact_stats, 0.05)
    _, after, _ = step_of(small_gan(precision="bfloat16"), batch)
    kinds = {x.dtype for x in jax.tree.leaves(after) if x.dtype.kind == "f"}
    assert kinds == {np.dtype(np.float32)}


def test_rematerialisation_changes_memory_and_no_number(batch, warm_up):
    """In the warm-up's step: the discriminator has no part in it."""
    kept = small_gan(vg_optimizer=optax.sgd(1.0))
    again = dataclasses.replace(
        kept, vg_net=dataclasses.replace(kept.vg_net, remat=True)
    )
    _, a, terms = warm_up
    _, b, terms_again = step_of(again, batch, gan.pixel_step)
    assert_same(terms_again, terms, 1e-4)
    assert_same(a.vg.batch_stats, b.vg.batch_stats, 1e-5)
    assert_same(a.vg.params, b.vg.params, 1e-5)

    def residuals(nets):
        forward = functools.partial(gan.generate, nets)
        shapes = jax.eval_shape(forward, start(nets, batch), batch, 0)[1]
        return sum(x.size for x in jax.tree.leaves(shapes))

    assert residuals(again) < 0.9 * residuals(kept)


def test_spectral_norm_divides_kernels_by_their_largest_singular_value(batch):
    net = Discriminator(4, 16, (16, 16), 8, 1, spectral_norm=True)
    variables = random_variables(net, batch.frames, batch.example)
    train = jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))
    for _ in range(200):  # one power iteration each
        _, moved = train(variables, batch.frames, batch.example)
        variables = variables | moved
    original = jax.tree.map(jnp.asarray, variables)
    encoder = variables["params"]["frame_encoder"]
    stats = variables["batch_stats"]["frame_encoder"]
    for i in range(4):
        layer = encoder[f"conv_{i}"]
        layer = layer if i == 0 else layer["conv"]
        (sigma,) = (v for k, v in stats[f"SpectralNorm_{i}"].items() if "sigma" in k)
        matrix = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
        np.testing.assert_allclose(sigma, np.linalg.svd(matrix)[1][0], rtol=1e-2)
        layer["kernel"] = layer["kernel"] / sigma
    bounded = jax.jit(net.apply)(original, batch.frames, batch.example)
    plain = Discriminator(4, 16, (16, 16), 8, 1)
    expected = jax.jit(plain.apply)(variables, batch.frames, batch.example)
    assert_same(bounded, expected, 1e-5)


# --- configs ---


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("network", "gans", r"config.network='gans': choose one of at, vg"),
        ("steps", 0, r"config.steps=0: must be 1 at least"),
        (
            "data",
            Data(augment=Strength(warp=-1.0)),
            r"config.data.augment.warp=-1.0: must be 0.0 at least",
        ),
        ("seed", 2**31, r"config.seed=2147483648: must be 2147483647 at most"),
        (
            "optimizer",
            Optimizer(b1=1.0),
            r"config.optimizer.b1=1.0: must be in \[0, 1\)",
        ),
        ("report_to", ("wandb",), r"config.report_to"),
        (
            "data",
            Data(augment=Strength(mirror=1.5)),
            r"config.data.augment.mirror=1.5: must be 1.0 at most",
        ),
        ("precision", "int8", "config.precision='int8': choose one of highest, def"),
        (
            "optimizer",
            Optimizer(learning_rate=float("nan")),
            r"config.optimizer.learning_rate=nan: must be 0.0 at least, and finite",
        ),
        (
            "at_net",
            AtNetSizes(lstm_width=0),
            r"config.at_net.lstm_width=0: must be 1 at least",
        ),
        ("steps", True, r"config.steps=True: must be a whole number"),
        ("seed", -1, r"config.seed=-1: must be 0 at least"),
        (
            "at_net",
            AtNetSizes(fc_widths=(64, 0)),
            r"config.at_net.fc_widths=\(64, 0\): must be whole numbers from 1 on",
        ),
    ],
)
def test_a_value_out_of_range_is_named(name, value, message):
    with pytest.raises(InputError, match=message):
        configuration.validate(Experiment(**{name: value}))


def test_whole_numbers_are_numbers():
    """As a config's file may write them; zero of them, too."""
    config = Experiment()
    config.optimizer.clip_norm, config.data.mix.grid = 0, 1
    configuration.validate(config)
    config.steps = 1e4
    with pytest.raises(InputError, match=r"steps=10000.0: must be a whole number"):
        configuration.validate(config)


def test_a_generator_without_any_loss_is_an_error():
    nothing = GanLoss(pixel_weight=0.0, score=False, landmark=False)
    with pytest.raises(InputError, match="every term is off; leave one on"):
        configuration.validate(Experiment(gan_loss=nothing))


@pytest.mark.parametrize("module", [ablation, smoke])
def test_unknown_variants_name_the_known(module):
    with pytest.raises(InputError, match=r":nothing: choose"):
        module.get_config("nothing")


def test_default_experiments_are_the_authors_networks():
    gan_nets = make_nets(Experiment(network="vg"))
    assert gan_nets.vg_net == VGNet() and gan_nets.discriminator == Discriminator()
    assert make_nets(Experiment(network="at")).net == ATNet()
