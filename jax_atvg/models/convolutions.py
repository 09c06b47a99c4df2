"""Convolutions in the form that is fastest where they run.

XLA's own operators are right on TPUs and GPUs.  On CPUs their gradients are slow (a
transposed convolution's by a factor of 100), so that there Winograd's form and matrix
products over patches take their place: the same sums, other roundings.  Which form runs
is decided when a program is lowered for a platform, in `choose`.

Every form is linear in x and in the kernel, and its gradients are written out, so that
`jax.jvp` needs `with form("native")`.  Images are f[N,H,W,C].
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models import winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
NARROW = 16  # Winograd's transforms cost more than they save on fewer channels
FEW = 8  # channels; XLA is slow then, unless the features are a multiple of 16
LARGE = 2**23  # floats of one temporary, 32 MiB
FORMS = ("by platform", "native", "cpu")

_form = FORMS[0]


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to compute y = conv(x, kernel).

    prepare(kernel) -> what the next two take; to be done once for many calls.
    apply(x, prepared) -> y.  input_gradient(dy, prepared, shape of x) -> dx.
    kernel_gradient(x, dy, shape of the kernel) -> dkernel.
    """

    prepare: Callable[[Array], Array]
    apply: Callable[[Array, Array], Array]
    input_gradient: Callable[[Array, Array, tuple], Array]
    kernel_gradient: Callable[[Array, Array, tuple], Array]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The forms of one convolution."""

    cpu: Form
    native: Form


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """Overrides the choice for what is traced inside: "native", "cpu", "by platform".

    A jitted function keeps the form that it was first traced with.  ValueError: another
    name.
    """
    global _form
    if name not in FORMS:
        raise ValueError(f"form {name!r} must be one of {', '.join(FORMS)}")
    before, _form = _form, name
    try:
        yield
    finally:
        _form = before


def choose(forms: Pair, function: Callable, *arrays):
    """function(form, *arrays) with the form that suits the platform."""
    cpu = functools.partial(function, forms.cpu)
    native = functools.partial(function, forms.native)
    if _form == FORMS[0]:
        return lax.platform_dependent(*arrays, cpu=cpu, default=native)
    return (cpu if _form == "cpu" else native)(*arrays)


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
    """The forms of a convolution; shape: of x."""
    native = native_form(strides, padding, dilation)
    size, wide = kernel[0], min(kernel[2:]) >= NARROW
    even = not any(side % (strides * dilation) for side in shape[1:3])
    exact = jnp.finfo(dtype).bits >= 32  # the transforms need some bits of their own
    if size == 3 and padding == dilation and strides == 1 and even and wide and exact:
        return Pair(winograd_form(dilation), native)
    taps = functools.partial(
        kernel_gradient_by_taps, strides=strides, padding=padding, dilation=dilation
    )
    cpu = dataclasses.replace(native, kernel_gradient=taps)
    if size > 3 and strides == dilation == 1 and kernel[2] < FEW and kernel[3] % 16:
        rows = functools.partial(conv_by_rows, padding=padding)
        cpu = dataclasses.replace(cpu, apply=rows)
    if size > 3 and strides == dilation == 1 and max(kernel[2:]) < NARROW:
        both = functools.partial(kernel_gradient_by_rows_and_columns, padding=padding)
        cpu = dataclasses.replace(cpu, kernel_gradient=both)
    if size == 3 and (strides, padding, dilation) == (2, 1, 1) and even:
        cpu = dataclasses.replace(cpu, input_gradient=strided_input_gradient)
    return Pair(cpu, native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_form(forms: Pair, x: Array, kernel: Array) -> Array:
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


# --- the forms; cached, for by_form compares them ---


def linear_form(apply: Callable[[Array, Array], Array]) -> Form:
    """The gradients are those that JAX derives."""

    def input_gradient(dy, kernel, shape):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: apply(x, kernel), x)(dy)[0]

    def kernel_gradient(x, dy, shape):
        kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: apply(x, kernel), kernel)(dy)[0]

    return Form(lambda kernel: kernel, apply, input_gradient, kernel_gradient)


@functools.cache
def native_form(strides: int, padding: int, dilation: int) -> Form:
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


@functools.cache
def winograd_form(dilation: int) -> Form:
    def input_gradient(dy, prepared, shape):
        return winograd.input_gradient(dy, prepared, dilation)

    def kernel_gradient(x, dy, shape):
        return winograd.kernel_gradient(x, dy, dilation)

    apply = functools.partial(winograd.apply, dilation=dilation)
    return Form(winograd.prepare, apply, input_gradient, kernel_gradient)


def taps_of(
    x: Array, size: int, shape: tuple, strides: int, padding: int, dilation: int
) -> Array:
    """What each of size x size taps sees: f[N,H',W',taps*C], shape = (H', W')."""
    x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])

    def seen(x: Array, tap: int, axis: int) -> Array:
        first = tap * dilation
        last = first + (shape[axis - 1] - 1) * strides + 1
        return lax.slice_in_dim(x, first, last, strides, axis)

    rows = [seen(x, tap, 1) for tap in range(size)]
    return jnp.concatenate(
        [seen(row, tap, 2) for row in rows for tap in range(size)], -1
    )


def flat(x: Array) -> Array:
    """[..., C] -> [rows, C]."""
    return x.reshape(-1, x.shape[-1])


def conv_by_rows(x: Array, kernel: Array, *, padding: int) -> Array:
    """One matrix product k C -> k D of what each row of taps sees, shifted and added;
    stride 1."""
    size, c, d = kernel.shape[1:]
    x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    height, width = (side - size + 1 for side in x.shape[1:3])
    seen = jnp.concatenate([x[:, :, tap : tap + width] for tap in range(size)], -1)
    rows = seen @ kernel.transpose(1, 2, 0, 3).reshape(size * c, size * d)
    return sum(
        rows[:, tap : tap + height, :, tap * d : (tap + 1) * d] for tap in range(size)
    )


def kernel_gradient_by_taps(
    x: Array, dy: Array, kernel: tuple, *, strides: int, padding: int, dilation: int
) -> Array:
    """One matrix product of all taps of x with dy, or of x with all taps of dy."""
    size, c, d = kernel[1:]
    side = size + (size - 1) * (dilation - 1)
    if strides == 1 and 2 * padding == side - 1 and d < c:
        # dy seen from x: the same taps in the opposite order

        def product(x, dy):
            taps = taps_of(dy, size, x.shape[1:3], 1, padding, dilation)
            return flat(x).T @ flat(taps)

        total = summed(product, x, dy, size**2 * d).reshape(c, size, size, d)
        return total[:, ::-1, ::-1].transpose(1, 2, 0, 3)

    def product(x, dy):
        taps = taps_of(x, size, dy.shape[1:3], strides, padding, dilation)
        return flat(taps).T @ flat(dy)

    return summed(product, x, dy, size**2 * c).reshape(kernel)


def kernel_gradient_by_rows_and_columns(
    x: Array, dy: Array, kernel: tuple, *, padding: int
) -> Array:
    """One matrix product of x, seen by a column of taps, with dy, seen by a row of
    them; stride 1.  With few channels that is less to copy than all taps of either."""
    size, c, d = kernel[1:]

    def product(x, dy):
        x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
        height, width = dy.shape[1], x.shape[2]
        dy = jnp.pad(dy, [(0, 0), (0, 0), (size - 1, size - 1), (0, 0)])
        column = [x[:, tap : tap + height] for tap in range(size)]
        row = [dy[:, :, tap : tap + width] for tap in reversed(range(size))]
        return flat(jnp.concatenate(column, -1)).T @ flat(jnp.concatenate(row, -1))

    total = summed(product, x, dy, size * (c + d))
    return total.reshape(size, c, size, d).transpose(0, 2, 1, 3)


def summed(product: Callable, x: Array, dy: Array, width: int) -> Array:
    """product(x, dy), in groups of pictures where the taps are large.

    width: of the taps of one of dy's pixels.
    """
    pictures = x.shape[0]  # may be symbolic, in export
    if not isinstance(pictures, int):
        return product(x, dy)
    floats = dy.size // dy.shape[-1] * width
    groups = next(
        n
        for n in range(1, pictures + 1)
        if n == pictures or (pictures % n == 0 and floats <= n * LARGE)
    )
    if groups == 1:
        return product(x, dy)
    x, dy = (a.reshape(groups, -1, *a.shape[1:]) for a in (x, dy))
    zeros = jnp.zeros_like(product(x[0], dy[0]))
    return lax.scan(lambda sum, pair: (sum + product(*pair), None), zeros, (x, dy))[0]


def strided_input_gradient(dy: Array, kernel: Array, shape: tuple) -> Array:
    """Of a 3x3 convolution of stride 2: the transposed one."""
    return up_by_products(dy, kernel.swapaxes(2, 3))


def up_by_products(x: Array, kernel: Array) -> Array:
    """One matrix product C -> 9 D, its taps shifted and added, rows and columns
    interleaved."""
    c, d = kernel.shape[2:]
    taps = x @ kernel.transpose(2, 0, 1, 3).reshape(c, 9 * d)
    taps = taps.reshape(*x.shape[:-1], 3, 3, d)

    def double(taps: Array, axis: int) -> Array:
        """Adds the three taps on the axis before the last; doubles `axis`."""
        before, center, after = (lax.index_in_dim(taps, i, -2, False) for i in range(3))
        pads = [(0, 0)] * before.ndim
        pads[axis] = (0, 1)
        following = lax.slice_in_dim(jnp.pad(before, pads), 1, None, axis=axis)
        y = jnp.stack([center, after + following], axis + 1)
        return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])

    wide = double(taps, x.ndim - 2)  # the columns: [N, H, 2W, 3, D]
    return double(wide, x.ndim - 3)


def up_input_gradient(dy: Array, kernel: Array, shape: tuple) -> Array:
    taps = taps_of(dy, 3, shape[1:3], 2, 1, 1)
    return taps @ kernel.transpose(0, 1, 3, 2).reshape(-1, shape[-1])


def up_kernel_gradient(x: Array, dy: Array, kernel: tuple) -> Array:
    taps = taps_of(dy, 3, x.shape[1:3], 2, 1, 1)
    product = flat(x).T @ flat(taps)
    return product.reshape(kernel[2], 3, 3, kernel[3]).transpose(1, 2, 0, 3)


def up_native(x: Array, kernel: Array) -> Array:
    """The zeros between the pixels are XLA's."""
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(1, 2)] * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
    )


def up_native_kernel_gradient(x: Array, dy: Array, kernel: tuple) -> Array:
    """That of the convolution of stride 2 from dy's size to x's: the derivative of
    up_native would have XLA turn dy around."""
    down = (*kernel[:2], kernel[3], kernel[2])
    return native_form(2, 1, 1).kernel_gradient(dy, x, down).swapaxes(2, 3)


UP_NATIVE = dataclasses.replace(
    linear_form(up_native), kernel_gradient=up_native_kernel_gradient
)
UP_BY_PRODUCTS = Form(
    lambda kernel: kernel, up_by_products, up_input_gradient, up_kernel_gradient
)
