"""Every form of a convolution is XLA's own, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_atvg.models import convolutions
from jax_atvg.models.conv_gru import gates, recur
from jax_atvg.models.cpu import winograd

CONVS = {  # kernel size, strides, padding, dilation
    "3x3": (3, 1, 1, 1),
    "strided": (3, 2, 1, 1),
    "dilated": (3, 1, 2, 2),
    "7x7": (7, 1, 3, 1),
    "7x7 without padding": (7, 1, 0, 1),
    "5x5 of stride 3": (5, 3, 2, 1),
}
SIDES = st.integers(7, 12)
# Within the rounding of the sums: relative to the result's standard deviation.
TOLERANCES = {"float64": 1e-12, "float32": 2e-5}


def value_and_gradients(function, form, *arrays):
    """(y, gradients to all arrays of a random sum of y), as one compiled program."""

    @jax.jit
    def program(*arrays):
        y, pull = jax.vjp(function, *arrays)
        weights = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
        return y, *pull(weights)

    with convolutions.form(form):
        return program(*arrays)


def check_forms(function, dtype, *shapes):
    """Both forms agree on random arrays of these shapes."""
    random = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"):
        arrays = [random.normal(size=shape).astype(dtype) for shape in shapes]
        cpu = value_and_gradients(function, "cpu", *arrays)
        native = value_and_gradients(function, "native", *arrays)
    for ours, theirs in zip(cpu, native, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        scale = max(float(np.std(theirs)), 1.0)  # of sums of products of N(0, 1)
        assert float(np.abs(ours - theirs).max()) < TOLERANCES[dtype] * scale


def conv_of(name):
    """(the convolution, its kernel's size)."""
    size, strides, padding, dilation = CONVS[name]
    conv = functools.partial(
        convolutions.conv, strides=strides, padding=padding, dilation=dilation
    )
    return conv, size


@pytest.mark.parametrize("name", CONVS)
@settings(deadline=None, max_examples=8)
@given(
    n=st.integers(1, 3),
    height=SIDES,
    width=SIDES,
    channels=st.sampled_from([1, 3, 16, 20]),
    features=st.sampled_from([1, 4, 16, 24]),
)
def test_conv_and_its_gradients_are_xlas(name, n, height, width, channels, features):
    """In float64, where another sum would show."""
    conv, size = conv_of(name)
    shapes = (n, height, width, channels), (size, size, channels, features)
    check_forms(conv, "float64", *shapes)


@pytest.mark.parametrize("channels", [(3, 4), (16, 24)])
@pytest.mark.parametrize("name", CONVS)
def test_in_float32_the_forms_differ_by_rounding_alone(name, channels):
    """The forms do not depend on the type from 32 bits on: two shapes suffice."""
    conv, size = conv_of(name)
    check_forms(conv, "float32", (2, 8, 12, channels[0]), (size, size, *channels))


@settings(deadline=None, max_examples=8)
@given(
    n=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 5),
    features=st.integers(1, 5),
)
def test_conv_transpose_and_its_gradients_are_xlas(
    n, height, width, channels, features
):
    shapes = (n, height, width, channels), (3, 3, channels, features)
    check_forms(convolutions.conv_transpose, "float64", *shapes)


def test_in_float32_the_forms_of_conv_transpose_differ_by_rounding_alone():
    check_forms(convolutions.conv_transpose, "float32", (2, 5, 6, 4), (3, 3, 4, 5))


def test_many_rows_and_few_take_the_same_products():
    """Winograd's products are batched or single, by the number of rows."""
    random = np.random.default_rng(2)
    kernel = winograd.prepare(random.normal(size=(3, 3, 4, 5)).astype(np.float32))
    x = random.normal(size=(17, 8, 8, 4)).astype(np.float32)
    assert 16 * 17 > winograd.FEW_ROWS >= 16 * 16
    many = winograd.apply(x, kernel)
    few = jnp.concatenate([winograd.apply(part, kernel) for part in (x[:16], x[16:])])
    np.testing.assert_allclose(many, few, atol=1e-5)


def test_the_forms_are_those_of_the_platform():
    """A program lowered for a TPU holds XLA's operator, one for a CPU does not."""
    x, kernel = jnp.zeros((2, 8, 8, 16)), jnp.zeros((3, 3, 16, 16))

    def gradients(x, kernel):
        up = convolutions.conv_transpose(convolutions.conv(x, kernel, 1, 1, 1), kernel)
        return up.sum()

    def text(platform):
        traced = jax.jit(jax.grad(gradients, (0, 1))).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" not in text("cpu")
    for platform in ("tpu", "cuda"):
        assert "stablehlo.convolution" in text(platform)


def test_half_precision_keeps_xlas_form():
    forms = convolutions.conv_forms(
        (1, 8, 8, 32), (3, 3, 32, 32), jnp.bfloat16, 1, 1, 1
    )
    assert forms.cpu.apply is forms.native.apply


def test_an_unknown_form_is_an_error():
    with (
        pytest.raises(ValueError, match="form 'fast' must be one of"),
        convolutions.form("fast"),
    ):
        pass


@pytest.mark.parametrize("form", ["cpu", "native"])
def test_recur_and_its_gradients_are_the_loops(form):
    """The gradients written out for all steps at once against JAX's own of a loop."""
    steps, n, side, width = 3, 2, 4, 16
    random = np.random.default_rng(3)
    shapes = [
        (steps, n, side, side, 3 * width),
        (3, 3, width, 3 * width),
        (3 * width,),
        (n, side, side, width),
    ]

    def loop(from_input, kernel, bias, h):
        hidden = []
        for x in from_input:
            h = gates(x, convolutions.conv(h, kernel, 1, 2, 2) + bias, h)
            hidden.append(h)
        return jnp.stack(hidden)

    with jax.enable_x64():
        arrays = [random.normal(size=shape) * 0.3 for shape in shapes]
        ours = value_and_gradients(recur, form, *arrays)
        theirs = value_and_gradients(loop, "native", *arrays)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
