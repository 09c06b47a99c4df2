"""Recurrences against loops in which JAX derives everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_atvg.models import conv_gru, convolutions, lstm
from tests.jax_atvg.models.test_convolutions import value_and_gradients

STEPS, CLIPS, SIDE, WIDTH = 5, 2, 4, 16


def gru_loop(from_input, kernel, bias, h):
    hidden = []
    for x in from_input:
        (h,) = conv_gru.gates(x, conv_gru.convolve(h, kernel) + bias, h)
        hidden.append(h)
    return jnp.stack(hidden)


def lstm_loop(x, variables, state):
    """torch.nn.LSTM's formulas, layer by layer, frame by frame."""
    params, finals = variables["params"], []
    for layer, (h, c) in enumerate(zip(*state, strict=True)):
        w_in, w_hidden, b_in, b_hidden = (
            params[f"layer_{layer}_{name}"]
            for name in ("input_kernel", "hidden_kernel", "input_bias", "hidden_bias")
        )
        hidden = []
        for t in range(x.shape[1]):
            gates = x[:, t] @ w_in + b_in + h @ w_hidden + b_hidden
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            hidden.append(h)
        x = jnp.stack(hidden, 1)
        finals.append((h, c))
    return x, tuple(map(jnp.stack, zip(*finals, strict=True)))


def gru_arrays():
    random = np.random.default_rng(3)
    shapes = [
        (STEPS, CLIPS, SIDE, SIDE, 3 * WIDTH),
        (3, 3, WIDTH, 3 * WIDTH),
        (3 * WIDTH,),
        (CLIPS, SIDE, SIDE, WIDTH),
    ]
    return [random.normal(size=shape) * 0.3 for shape in shapes]


def lstm_arrays(layers):
    random = np.random.default_rng(0)
    x = random.normal(size=(CLIPS, STEPS, 7))
    variables = lstm.Lstm(WIDTH, layers).init(jax.random.key(0), x)
    state = tuple(random.normal(size=(2, layers, CLIPS, WIDTH)))
    return x, jax.tree.map(lambda a: a.astype(np.float64), variables), state


@pytest.mark.parametrize("form", ["cpu", "native"])
def test_the_gru_and_its_gradients_are_the_loops(form):
    with jax.enable_x64():
        ours = value_and_gradients(conv_gru.recur, form, *gru_arrays())
        theirs = value_and_gradients(gru_loop, "native", *gru_arrays())
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("form", ["cpu", "native"])
def test_the_lstm_and_its_gradients_are_the_loops(form, layers):
    """From any state on: hidden states, the state at the end, and the gradients of all
    of them by input, weights and the state at the beginning."""
    net = lstm.Lstm(WIDTH, layers)

    def ours(x, variables, state):
        hidden, state = net.apply(variables, x, lstm.LstmState(*state))
        return hidden, tuple(state)

    with jax.enable_x64():
        arrays = lstm_arrays(layers)
        results = [
            both(ours, form, arrays),
            both(lstm_loop, "native", arrays),
        ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def both(function, form, arrays):
    """(values, gradients of a sum of all of them, each weighed otherwise)."""

    def loss(*arrays):
        values = function(*arrays)
        leaves = jax.tree.leaves(values)
        return sum(
            (x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum() for x in leaves
        )

    with convolutions.form(form):
        return function(*arrays), jax.grad(loss, (0, 1, 2))(*arrays)


def test_forward_mode_is_that_of_the_loop():
    with jax.enable_x64(), convolutions.form("native"):
        arrays, changes = gru_arrays(), [np.cos(x) for x in gru_arrays()]
        ours = jax.jvp(conv_gru.recur, arrays, changes)
        theirs = jax.jvp(gru_loop, arrays, changes)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
        mapped = jax.vmap(conv_gru.recur, (1, None, None, 0), 1)
        alone = [a[:, :, None] if i == 0 else a for i, a in enumerate(arrays)]
        alone[3] = alone[3][:, None]
        np.testing.assert_allclose(mapped(*alone)[:, :, 0], ours[0], atol=1e-12)


def test_no_step_adds_to_the_kernels_gradient():
    """The loops carry the state alone: arrays of the kernel's size are made once."""
    arrays = [a.astype(np.float32) for a in gru_arrays()]
    with convolutions.form("native"):
        jaxpr = jax.make_jaxpr(
            jax.grad(lambda *a: conv_gru.recur(*a).sum(), (0, 1, 2, 3))
        )(*arrays)
    loops = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert len(loops) >= 2
    for loop in loops:
        # What is not carried comes out stacked, with an axis more.
        pairs = zip(loop.params["jaxpr"].out_avals, loop.outvars, strict=True)
        carried = [a.shape for a, out in pairs if a.shape == out.aval.shape]
        assert carried and arrays[1].shape not in carried


@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 4), (3, 5)])
def test_phases_give_the_dilated_convolution(height, width):
    """Also where a side is odd and there are none."""
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 3, height, width, 4)).astype(np.float32)
    net = conv_gru.ConvGru(5)
    variables = net.init(jax.random.key(0), x)
    params = variables["params"]

    def dilated(x, kernel):
        return (
            jax.lax.conv_general_dilated(
                x,
                params[f"{kernel}_kernel"],
                (1, 1),
                [(2, 2)] * 2,
                rhs_dilation=(2, 2),
                dimension_numbers=convolutions.LAYOUT,
            )
            + params[f"{kernel}_bias"]
        )

    h = np.zeros((2, height, width, 5), np.float32)
    expected = []
    for t in range(3):
        (h,) = conv_gru.gates(dilated(x[:, t], "input"), dilated(h, "hidden"), h)
        expected.append(h)
    hidden, state = net.apply(variables, x)
    np.testing.assert_allclose(hidden, np.stack(expected, 1), atol=2e-6)
    np.testing.assert_allclose(state, h, atol=2e-6)
    middle = net.apply(variables, x[:, :1])[1]
    last = net.apply(variables, x[:, 1:], middle)[0]
    np.testing.assert_allclose(last, hidden[:, 1:], atol=2e-6)


def test_splitting_into_phases_is_undone_by_joining():
    x = np.arange(2.0 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    phases = conv_gru.split_phases(x)
    np.testing.assert_array_equal(phases[:, 1], x[:, ::2, 1::2])
    np.testing.assert_array_equal(conv_gru.join_phases(phases), x)


def test_in_half_precision_the_states_are_whole():
    """Kernels in bfloat16; the state, and what is carried on, are float32."""
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4, 8)).astype(np.float32)
    for net, inputs in (
        (conv_gru.ConvGru(8), x),
        (lstm.Lstm(8, 1), x.reshape(1, 3, -1)),
    ):
        variables = net.init(jax.random.key(0), inputs)
        low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), variables)
        with convolutions.form("native"):
            (_, state), (full, _) = net.apply(low, inputs), net.apply(variables, inputs)
            hidden = net.apply(low, inputs)[0]
        assert {a.dtype for a in jax.tree.leaves(state)} == {np.dtype("f4")}
        np.testing.assert_allclose(hidden, full, atol=0.02)
