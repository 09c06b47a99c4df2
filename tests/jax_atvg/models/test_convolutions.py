"""Every form of a convolution is XLA's own, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_atvg.models import convolutions, layers
from jax_atvg.models.cpu import rows as cpu_rows
from jax_atvg.models.cpu import winograd
from tests.conftest import optimised

CONVS = {  # kernel size, strides, padding
    "3x3": (3, 1, 1),
    "strided": (3, 2, 1),
    "7x7": (7, 1, 3),
    "7x7 without padding": (7, 1, 0),
    "5x5 of stride 3": (5, 3, 2),
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
    size, strides, padding = CONVS[name]
    return functools.partial(convolutions.conv, strides=strides, padding=padding), size


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


def up_and_down(x, kernel):
    return convolutions.conv_transpose(convolutions.conv(x, kernel, 1, 1), kernel).sum()


def program(function, *arrays, platform="cpu"):
    """The text of the function lowered for a platform."""
    traced = jax.jit(convolutions.traced_for(platform, function)).trace(*arrays)
    name = {"gpu": "cuda"}.get(platform, platform)
    return traced.lower(lowering_platforms=(name,)).as_text()


ARRAYS = np.zeros((2, 8, 8, 16), np.float32), np.zeros((3, 3, 16, 16), np.float32)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_form_is_that_of_the_platform(platform):
    """What is traced for a TPU or GPU holds XLA's operators and nothing else."""
    text = program(jax.grad(up_and_down, (0, 1)), *ARRAYS, platform=platform)
    assert ("stablehlo.convolution" in text) == (platform != "cpu")
    assert ("optimization_barrier" in text) == (platform == "cpu")


def test_unless_told_otherwise_it_is_that_of_the_default_device(monkeypatch):
    def traced():
        return str(jax.make_jaxpr(lambda *arrays: up_and_down(*arrays))(*ARRAYS))

    assert "custom_vjp" in traced()
    with convolutions.form("native"):
        assert "custom_vjp" not in traced()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "custom_vjp" not in traced()
    with jax.default_device("cpu"):
        assert "custom_vjp" in traced()


def test_a_portable_program_decides_when_it_is_lowered():
    with convolutions.form("portable"):
        assert "stablehlo.convolution" not in program(up_and_down, *ARRAYS)
        assert "stablehlo.convolution" in program(up_and_down, *ARRAYS, platform="tpu")


def test_xlas_operators_can_be_differentiated_forward_and_mapped():
    """By the limit of differences, and one by one."""
    random = np.random.default_rng(4)
    x, kernel, dx, dk = (random.normal(size=a.shape) for a in (*ARRAYS, *ARRAYS))
    with jax.enable_x64(), convolutions.form("native"):
        value, push = jax.linearize(up_and_down, x, kernel)
        h = 1e-6
        ahead, behind = (up_and_down(x + s * dx, kernel + s * dk) for s in (h, -h))
        slope = (ahead - behind) / (2 * h)
        np.testing.assert_allclose(push(dx, dk), slope, rtol=1e-6)
        both = jax.vmap(up_and_down, (0, None))(np.stack([x, dx]), kernel)
        alone = value, up_and_down(dx, kernel)
        np.testing.assert_allclose(both, alone, rtol=1e-12)


def test_half_precision_keeps_xlas_form():
    sizes = (1, 8, 8, 32), (3, 3, 32, 32)
    half, single = (
        convolutions.cpu_form(*sizes, dtype, 1, 1) for dtype in (jnp.bfloat16, "f4")
    )
    assert single.apply.func is winograd.apply
    assert half.apply.func is convolutions.conv_native


def test_an_unknown_form_is_an_error():
    with (
        pytest.raises(ValueError, match="form 'fast' must be one of"),
        convolutions.form("fast"),
    ):
        pass


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize(("width", "features"), [(16, 4), (136, 4), (64, 256)])
def test_a_row_of_a_small_linear_layer_has_the_same_bits(width, features, rows):
    x = np.random.default_rng(width).normal(size=(1, 17, width)).astype(np.float32)
    layer = layers.Dense(features)
    variables = layer.init(jax.random.key(0), x)
    with optimised(), convolutions.form("cpu"):
        apply = jax.jit(layer.apply)
        few, many = apply(variables, x[:, :rows]), apply(variables, x)
    np.testing.assert_array_equal(few, many[:, :rows])


@pytest.mark.parametrize("width", [5, 32, 136, 700])
@pytest.mark.parametrize("rows", [1, 2, 3, 17, 63, 64])
def test_a_row_has_the_same_bits_among_any_number(rows, width):
    """The rows of a product that models/cpu computes, alone and among 256."""
    random = np.random.default_rng(width)
    x = random.normal(size=(256, width)).astype(np.float32)
    matrix = random.normal(size=(width, 48)).astype(np.float32)
    for function in (cpu_rows.matmul, cpu_rows.matmul_in_place):
        product = jax.jit(function)
        few, many = product(x[:rows], matrix), product(x, matrix)
        np.testing.assert_array_equal(few, many[:rows])
        shaped = product(x[:rows].reshape(1, rows, 1, width), matrix)
        assert shaped.shape == (1, rows, 1, 48)


@pytest.mark.parametrize("side", [2, 5, 8])
@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_a_picture_has_the_same_bits_among_any_number(name, side):
    """Where a batched product of Winograd's 16 points becomes 16 of them, too."""
    random = np.random.default_rng(side)
    x = random.normal(size=(17, side, side, 96)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 96, 32)).astype(np.float32)
    options = {"padding": 1} if name == "conv" else {}

    @jax.jit
    def run(x):
        with convolutions.form("cpu"):
            return getattr(layers, name)(x, kernel, **options)

    among = run(x)
    for count in (1, 2, 3, 16):
        np.testing.assert_array_equal(run(x[:count]), among[:count])
