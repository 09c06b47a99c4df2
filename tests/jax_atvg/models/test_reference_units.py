"""Every layer and loss against the authors' primitives (reference units.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from jax_atvg.inference.torch_import import conv, conv_norm, norm, recurrent
from jax_atvg.models import layers, lstm
from jax_atvg.models.conv_gru import ConvGru
from jax_atvg.training import losses
from jax_atvg.training.optim import adam
from tests.per_frame_norm import PerFrameBatchNorm
from tests.reference_networks import max_difference, nhwc

pytestmark = pytest.mark.usefixtures("convolution_form")


@pytest.fixture(scope="module")
def units(reference):
    return reference("units.npz")


def variables(units, name, entries):
    """The unit's weights, through the same table as whole checkpoints."""
    flat = {
        entry.target: entry.transform(units[f"{name}/w/{entry.source}"])
        for entry in entries
    }
    return unflatten_dict(flat, sep="/")


def strip(variables):
    """{"params": {"x": ...}} -> {"params": ...}."""
    return {collection: tree["x"] for collection, tree in variables.items()}


def test_conv_transpose(units):
    w = nhwc(units["conv_transpose/x"]), units["conv_transpose/w/weight"]
    y = layers.conv_transpose(w[0], w[1].transpose(2, 3, 0, 1))
    y += units["conv_transpose/w/bias"]
    assert max_difference(y, nhwc(units["conv_transpose/y"])) < 1e-6


def test_strided_conv(units):
    kernel = units["conv_s2/w/weight"].transpose(2, 3, 1, 0)
    y = layers.conv(nhwc(units["conv_s2/x"]), kernel, strides=2, padding=1)
    assert max_difference(y, nhwc(units["conv_s2/y"])) < 1e-6


def test_reflection_pad_and_7x7_conv(units):
    kernel = units["reflect_conv7/w/1.weight"].transpose(2, 3, 1, 0)
    x = layers.reflect_pad(jnp.asarray(nhwc(units["reflect_conv7/x"])), 3)
    y = layers.conv(x, kernel)
    assert max_difference(y, nhwc(units["reflect_conv7/y"])) < 1e-5


@pytest.mark.parametrize(
    ("name", "strides", "stored"),
    [("maxpool", (1, 2), "k3_s1x2"), ("maxpool2", (2, 2), "k3_s2x2")],
)
def test_max_pool(units, name, strides, stored):
    y = layers.max_pool(jnp.asarray(nhwc(units[f"{name}/x"])), strides)
    assert max_difference(y, nhwc(units[f"{name}/{stored}"])) == 0


@pytest.mark.parametrize("module", [layers.BatchNorm, PerFrameBatchNorm])
def test_batch_norm(units, module):
    v = strip(variables(units, "batch_norm", norm_entries()))
    x = nhwc(units["batch_norm/x"])
    y = module().apply(v, x, False)
    assert max_difference(y, nhwc(units["batch_norm/y_eval"])) < 1e-6
    y, moved = module().apply(v, x, True, mutable=["batch_stats"])
    assert max_difference(y, nhwc(units["batch_norm/y_train"])) < 1e-6
    for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
        after = units[f"batch_norm/{theirs}_after"]
        assert max_difference(moved["batch_stats"][ours], after) < 1e-6


def norm_entries():
    for entry in norm("", "x"):
        yield entry._replace(source=entry.source.removeprefix("."))


def test_lstm(units):
    v = {"params": {}}
    for layer in range(3):
        entries = recurrent(f"{{}}_l{layer}", f"layer_{layer}_", np.transpose)
        v["params"] |= variables(units, "lstm", entries)["params"]
    y, state = lstm.Lstm(width=4).apply(v, units["lstm/x"])
    assert max_difference(y, units["lstm/y"]) < 1e-6
    assert max_difference(state.hidden, units["lstm/h_n"]) < 1e-6
    assert max_difference(state.cell, units["lstm/c_n"]) < 1e-6


def conv_gru_variables(units):
    entries = recurrent("{}_l0", "x/", lambda w: w.transpose(2, 3, 1, 0))
    return strip(variables(units, "conv_gru", entries))


@pytest.mark.parametrize(("recurrence", "dim"), [("batch", 0), ("time", 1)])
def test_conv_gru(units, recurrence, dim):
    x = nhwc(units["conv_gru/x"])
    y, state = ConvGru(4, recurrence).apply(conv_gru_variables(units), x)
    stored = nhwc(units[f"conv_gru/y_recurrent_over_dim{dim}"])
    assert max_difference(y, stored) < 1e-6
    if recurrence == "time":
        np.testing.assert_array_equal(state, y[:, -1])
    else:
        assert max_difference(y[-1], nhwc(units["conv_gru/h_n"])[0]) < 1e-6


def test_conv_gru_gradients(units):
    x = nhwc(units["conv_gru/x"])

    def objective(params):
        y = jnp.moveaxis(ConvGru(4, "batch").apply({"params": params}, x)[0], -1, -3)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    gradients = jax.grad(objective)(conv_gru_variables(units)["params"])
    name = "conv_gru/grad_of_sum_y_times_sin_arange/"
    for entry in recurrent("{}_l0", "", lambda w: w.transpose(2, 3, 1, 0)):
        stored = entry.transform(units[name + entry.source])
        actual = gradients[entry.target.removeprefix("params/")]
        assert max_difference(actual, stored) < 1e-5 * max(1, np.abs(stored).max())


def test_residual_block(units):
    def entries():
        yield from conv_norm("conv_block", "x/first")
        yield from conv("conv_block.4", "x/conv", bias=False)
        yield from norm("conv_block.5", "x/norm")

    v = strip(variables(units, "resnet_block", entries()))
    x = nhwc(units["resnet_block/x"])
    block = layers.ResidualBlock(dropout=0.0)
    y = block.apply(v, x, False)
    assert max_difference(y, nhwc(units["resnet_block/y_eval"])) < 1e-5
    y, _ = block.apply(v, x, True, mutable=["batch_stats"])
    assert max_difference(y, nhwc(units["resnet_block/y_train_p0"])) < 1e-5


def test_score_averages_the_logits(units):
    """The authors' window of 16 frames; at 31 frames theirs leaves the last 15 out."""
    for name in ("aggregator", "aggregator31"):
        logits = units[f"{name}/logits"][:, 0, :16]
        score = jax.nn.sigmoid(logits.mean(1))
        assert max_difference(score, units[f"{name}/score"]) < 1e-6


def test_score_loss_is_binary_cross_entropy(units):
    """Logits of probabilities 0 and 1 are infinite: the cap of 100 must hold there."""
    with np.errstate(divide="ignore"):
        p = units["bce/p"].astype(np.float64)
        logits = np.float32(np.log(p) - np.log1p(-p))
    for real, stored in ((True, "bce/loss_to_ones"), (False, "bce/loss_to_zeros")):
        each = [losses.score_loss(x.reshape(1, 1), real=real) for x in logits]
        np.testing.assert_allclose(each, units[stored], rtol=2e-5, atol=1e-7)


def test_landmark_loss_and_its_mask(units):
    mask = losses.mouth_mask()
    assert max_difference(mask, units["losses/mask"]) == 0
    loss = losses.landmark_loss(units["losses/lm_pred"], units["losses/lm_true"], mask)
    np.testing.assert_allclose(loss, units["losses/masked_mse"], rtol=1e-6)


def test_dynamic_pixel_loss(units):
    arrays = [nhwc(units[f"losses/{name}"]) for name in ("fake", "real", "att")]
    loss = losses.dynamic_pixel_loss(*arrays)
    np.testing.assert_allclose(loss, units["losses/pix"], rtol=1e-6)


def adam_trace(units):
    with jax.enable_x64(True):
        w, optimizer, trace = jnp.asarray(units["adam/w0"]), adam(), []
        state = optimizer.init(w)
        for gradient in units["adam/grads"]:
            update, state = optimizer.update(jnp.asarray(gradient), state)
            w += update
            trace.append(np.asarray(w))
    return np.stack(trace)


def test_adam_is_that_of_pytorch_2(units):
    assert max_difference(adam_trace(units), units["adam/w_trace_torch2"]) < 1e-12


def test_adam_of_pytorch_041_differs_by_its_eps_alone(units):
    """0.4.1 adds eps before the bias correction: up to 1 / sqrt(1 - b2) times ours."""
    smallest = np.abs(units["adam/grads"]).min(0)
    visible = smallest > 1e-4
    bound = 4 * 2e-4 * 1e-8 / (smallest[visible] * np.sqrt(1 - 0.999))
    difference = adam_trace(units) - units["adam/w_trace_torch041"]
    assert np.all(np.abs(difference[:, visible]) <= bound)
