"""Convolutions, computed in the form that is fastest on the platform they run on.

TPUs and GPUs use XLA's own operators ("native").  On CPUs XLA computes their gradients
slowly, so that Winograd's method and matrix products over patches (models/cpu) are used
instead: they compute the same sums with other rounding errors.  `choose` decides when a
program is lowered for a platform.

The gradients of every form are written out (jax.custom_vjp): forward-mode
differentiation (jax.jvp) does not work.  Images are f[N,H,W,C].
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models.cpu import products

LAYOUT = ("NHWC", "HWIO", "NHWC")
FORMS = ("by platform", "native", "cpu")

# Of this thread, or of this task: others may trace at the same time.
_form = contextvars.ContextVar("form", default=FORMS[0])


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to compute y = conv(x, kernel).

    prepare(kernel) -> the prepared kernel that the next two functions take; once is
    enough for any number of calls.  apply(x, prepared) -> y.
    input_gradient(dy, prepared, shape of x) -> dx.
    kernel_gradient(x, dy, shape of the kernel) -> dkernel.
    """

    prepare: Callable[[Array], Array]
    apply: Callable[[Array, Array], Array]
    input_gradient: Callable[[Array, Array, tuple], Array]
    kernel_gradient: Callable[[Array, Array, tuple], Array]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two forms of one convolution, between which `choose` decides."""

    cpu: Form
    native: Form


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Overrides the choice of the form for everything that is traced in the block.

    name: "native", "cpu" or "by platform".  A jitted function keeps the form that it
    was first traced with.  ValueError: another name.
    """
    if name not in FORMS:
        raise ValueError(f"form {name!r} must be one of {', '.join(FORMS)}")
    before = _form.set(name)
    try:
        yield
    finally:
        _form.reset(before)


def choose(forms: Pair, function: Callable, *arrays):
    """Calls function(form, *arrays) with the form for the platform."""
    cpu = functools.partial(function, forms.cpu)
    native = functools.partial(function, forms.native)
    wanted = _form.get()
    if wanted == FORMS[0]:
        return lax.platform_dependent(*arrays, cpu=cpu, default=native)
    return (cpu if wanted == "cpu" else native)(*arrays)


def conv(x: Array, kernel: Array, strides: int, padding: int, dilation: int) -> Array:
    """f[N,H,W,C], f[k,k,C,D] -> f[N,H',W',D]: cross-correlation, zero padding."""
    forms = conv_forms(x.shape, kernel.shape, x.dtype, strides, padding, dilation)
    return by_form(forms, x, kernel)


def conv_transpose(x: Array, kernel: Array) -> Array:
    """f[N,H,W,C], f[3,3,C,D] -> f[N,2H,2W,D]; see layers.conv_transpose."""
    return by_form(Pair(UP_BY_PRODUCTS, UP_NATIVE), x, kernel)


@functools.cache
def conv_forms(
    shape: tuple, kernel: tuple, dtype, strides: int, padding: int, dilation: int
) -> Pair:
    """Both forms of a convolution.  shape, kernel: the shapes of x and the kernel."""
    native = native_form(strides, padding, dilation)
    sizes = shape, kernel, dtype, strides, padding, dilation
    return Pair(products.conv_form(native, *sizes), native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_form(forms: Pair, x: Array, kernel: Array) -> Array:
    """The convolution of x with the kernel, in the form for the platform."""

    def run(form: Form, x, kernel):
        return form.apply(x, form.prepare(kernel))

    return choose(forms, run, x, kernel)


def _forward(forms: Pair, x: Array, kernel: Array):
    x = lax.optimization_barrier(x)
    return by_form(forms, x, kernel), (x, kernel)


def _backward(forms: Pair, kept, dy: Array):
    def run(form: Form, x, kernel, dy):
        return (
            form.input_gradient(dy, form.prepare(kernel), x.shape),
            form.kernel_gradient(x, dy, kernel.shape),
        )

    return choose(forms, run, *kept, lax.optimization_barrier(dy))


by_form.defvjp(_forward, _backward)


# --- the forms; cached, so that equal sizes give by_form equal arguments ---


def linear_form(apply: Callable[[Array, Array], Array]) -> Form:
    """The form of a bilinear function `apply`, with the gradients that JAX derives."""

    def input_gradient(dy, kernel, shape):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: apply(x, kernel), x)(dy)[0]

    def kernel_gradient(x, dy, shape):
        kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: apply(x, kernel), kernel)(dy)[0]

    return Form(lambda kernel: kernel, apply, input_gradient, kernel_gradient)


@functools.cache
def native_form(strides: int, padding: int, dilation: int) -> Form:
    """A convolution by XLA's own operator."""

    def apply(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (strides, strides),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=LAYOUT,
        )

    return linear_form(apply)


def up_native(x: Array, kernel: Array) -> Array:
    """layers.conv_transpose by XLA's own operator, which dilates x with zeros."""
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(1, 2)] * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
    )


def up_native_kernel_gradient(x: Array, dy: Array, kernel: tuple) -> Array:
    """The kernel's gradient of up_native, computed as that of the convolution of stride
    2 from dy's size to x's: with JAX's derivative XLA would reverse dy."""
    down = (*kernel[:2], kernel[3], kernel[2])
    return native_form(2, 1, 1).kernel_gradient(dy, x, down).swapaxes(2, 3)


UP_NATIVE = dataclasses.replace(
    linear_form(up_native), kernel_gradient=up_native_kernel_gradient
)
UP_BY_PRODUCTS = products.conv_transpose_form(UP_NATIVE)
