"""Convolutions, computed in the form that is fastest on the platform they run on.

GPUs and TPUs use XLA's own operators: plain JAX.  On CPUs XLA computes their gradients
slowly, so that Winograd's method and matrix products over patches (models/cpu) are used
instead: they compute the same sums with other rounding errors, and have derivatives in
reverse alone.

The form is chosen while a function is traced: for the platform that `traced_for` names,
else for jax's default device.  Images are f[N,H,W,C].
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models.cpu import products
from jax_atvg.models.cpu.form import Form, by_form, derived

LAYOUT = ("NHWC", "HWIO", "NHWC")
FORMS = ("native", "cpu", "portable")

# Of this thread, or of this task: others may trace at the same time.
_form = contextvars.ContextVar("form", default="")


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Sets the form of everything that is traced in the block, whatever the platform.

    name: "native", XLA's operators; "cpu"; or "portable", for programs that are
    exported for several platforms: they hold both, and have no derivatives.  A jitted
    function keeps the form that it was first traced with.  ValueError: another name.
    """
    if name not in FORMS:
        raise ValueError(f"form {name!r} must be one of {', '.join(FORMS)}")
    before = _form.set(name)
    try:
        yield
    finally:
        _form.reset(before)


def traced_for(platform: str, function: Callable) -> Callable:
    """The function, to be traced with the form for a platform ("cpu", "gpu", "tpu"),
    unless it is traced within `form`."""

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with form(_form.get() or form_for(platform)):
            return function(*args, **kwargs)

    traced.__name__ = name_of(function)
    return traced


def name_of(function: Callable) -> str:
    """By which jax calls the program."""
    return getattr(function, "func", function).__name__


def form_for(platform: str) -> str:
    return "cpu" if platform == "cpu" else "native"


def chosen(native: Callable, cpu: Callable, *arrays: Any) -> Any:
    """Calls one of both functions with the arrays, or trees of them, by the form."""
    wanted = _form.get() or form_for(default_platform())
    if wanted == "portable":
        return lax.platform_dependent(*arrays, cpu=cpu, default=native)
    return {"native": native, "cpu": cpu}[wanted](*arrays)


def default_platform() -> str:
    """That of the device on which jax computes unless told otherwise."""
    device = jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


def conv(x: Array, kernel: Array, strides: int, padding: int) -> Array:
    """f[N,H,W,C], f[k,k,C,D] -> f[N,H',W',D]: cross-correlation, zero padding."""
    native = functools.partial(conv_native, strides=strides, padding=padding)
    written = cpu_form(x.shape, kernel.shape, x.dtype, strides, padding)
    return chosen(native, functools.partial(by_form, written), x, kernel)


def conv_transpose(x: Array, kernel: Array) -> Array:
    """f[N,H,W,C], f[3,3,C,D] -> f[N,2H,2W,D]; see layers.conv_transpose."""
    written = functools.partial(by_form, UP_BY_PRODUCTS)
    return chosen(conv_transpose_native, written, x, kernel)


def conv_native(x: Array, kernel: Array, *, strides: int, padding: int) -> Array:
    """A convolution by XLA's own operator."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(padding, padding)] * 2,
        dimension_numbers=LAYOUT,
    )


@jax.custom_jvp
def conv_transpose_native(x: Array, kernel: Array) -> Array:
    """layers.conv_transpose by XLA's own operator, which dilates x with zeros.

    Its derivative by the kernel is written as `by_windows`, of which the transpose, the
    kernel's gradient, is that of a convolution of stride 2, as cuDNN and XLA for TPUs
    have it.  JAX would make it a convolution over x with zeros between its pixels.
    """
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(1, 2)] * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
    )


@conv_transpose_native.defjvp
def _derivative(primals, tangents):
    x, kernel = primals
    dx, dkernel = tangents
    y = conv_transpose_native(x, kernel)
    return y, conv_transpose_native(dx, kernel) + by_windows(x, dkernel)


def by_windows(x: Array, kernel: Array) -> Array:
    """layers.conv_transpose with the parts exchanged: the kernel is the picture, over
    which a window with the pixels of x, two apart, is moved."""
    before_and_after = [(2 * side - 3, 2 * side - 2) for side in x.shape[1:3]]
    return lax.conv_general_dilated(
        kernel,
        x[:, ::-1, ::-1],
        (1, 1),
        before_and_after,
        rhs_dilation=(2, 2),
        dimension_numbers=("HWCN", "OHWI", "CHWN"),
    )


# Cached, so that equal sizes give by_form equal arguments.
@functools.cache
def cpu_form(
    shape: tuple,
    kernel: tuple,
    dtype: Any,
    strides: int,
    padding: int,
    stepwise: bool = False,
) -> Form:
    """A convolution's form for CPUs.  shape, kernel: the shapes of x and the kernel.
    stepwise: see products.conv_form."""
    native = derived(functools.partial(conv_native, strides=strides, padding=padding))
    sizes = shape, kernel, dtype, strides, padding
    return products.conv_form(native, *sizes, stepwise)


UP_BY_PRODUCTS = products.conv_transpose_form(derived(conv_transpose_native))
