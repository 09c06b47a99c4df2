"""Convolutions and their gradients as matrix products, for XLA's CPU backend.

On a CPU the gradients that XLA derives for a convolution are slow, those of a
transposed convolution by a factor of 100.  The functions here compute the same sums,
with other rounding errors, as matrix products over patches of the picture or by
Winograd's method (winograd.py).  models/convolutions.py decides where they are used.

Letters: N pictures, H x W pixels, C channels in, D channels out, k x k kernel.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models.cpu import winograd
from jax_atvg.models.cpu.form import Form
from jax_atvg.models.cpu.rows import matmul

NARROW = 16  # Winograd's transforms cost more than they save on fewer channels
FEW = 8  # input channels: with fewer XLA is slow, unless outputs are a multiple of 16
LARGE = 2**23  # floats in one temporary array: 32 MiB


def conv_form(
    native: Form,
    shape: tuple,
    kernel: tuple,
    dtype,
    strides: int,
    padding: int,
    stepwise: bool = False,
) -> Form:
    """Chooses the form of a convolution that is fastest on a CPU, by its sizes.

    native: XLA's own form.  shape: that of x, (N, H, W, C).  kernel: (k, k, C, D).
    stepwise: it is one step of a recurrence, which has as many rows in a program of few
    frames as in one of many: none are added (see rows.py).
    """
    size, wide = kernel[0], min(kernel[2:]) >= NARROW
    even = not any(side % strides for side in shape[1:3])
    exact = jnp.finfo(dtype).bits >= 32  # Winograd's transforms lose some bits
    if size == 3 and padding == strides == 1 and wide and exact:
        return winograd_form(native, jnp.matmul if stepwise else matmul)
    changes = {
        "kernel_gradient": functools.partial(
            kernel_gradient_by_taps, strides=strides, padding=padding
        )
    }
    if size > 3 and strides == 1 and kernel[2] < FEW and kernel[3] % 16:
        changes["apply"] = functools.partial(conv_by_rows, padding=padding)
    if size > 3 and strides == 1 and max(kernel[2:]) < NARROW:
        changes["kernel_gradient"] = functools.partial(
            kernel_gradient_by_rows_and_columns, padding=padding
        )
    if size == 3 and (strides, padding) == (2, 1) and even:
        changes["input_gradient"] = strided_input_gradient
    return dataclasses.replace(native, **changes)


def conv_transpose_form(native: Form) -> Form:
    """The form of layers.conv_transpose that is fastest on a CPU."""
    return dataclasses.replace(
        native,
        apply=up_by_products,
        input_gradient=up_input_gradient,
        kernel_gradient=up_kernel_gradient,
    )


def winograd_form(native: Form, product: Callable = matmul) -> Form:
    """The form of a 3x3 convolution of stride 1 by Winograd's method.

    product: of matrices, in the convolution itself.
    """
    return dataclasses.replace(
        native,
        prepare=winograd.prepare,
        apply=functools.partial(winograd.apply, product=product),
        input_gradient=lambda dy, prepared, _: winograd.input_gradient(dy, prepared),
        kernel_gradient=lambda x, dy, _: winograd.kernel_gradient(x, dy),
    )


def taps_of(x: Array, size: int, shape: tuple, strides: int, padding: int) -> Array:
    """The pixels of x under each tap of a kernel (im2col): f[N,H',W',taps*C].

    size: k.  shape: (H', W'), those of the convolution's output.
    """
    x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])

    def seen(x: Array, tap: int, axis: int) -> Array:
        last = tap + (shape[axis - 1] - 1) * strides + 1
        return lax.slice_in_dim(x, tap, last, strides, axis)

    rows = [seen(x, tap, 1) for tap in range(size)]
    return jnp.concatenate(
        [seen(row, tap, 2) for row in rows for tap in range(size)], -1
    )


def flat(x: Array) -> Array:
    """Makes a matrix of all pixels: [..., C] -> [rows, C]."""
    return x.reshape(-1, x.shape[-1])


def conv_by_rows(x: Array, kernel: Array, *, padding: int) -> Array:
    """A convolution of stride 1 as one matrix product k C -> k D.

    It multiplies k neighbouring pixels of a row with all k rows of the kernel; the k
    results are shifted vertically and added.
    """
    size, c, d = kernel.shape[1:]
    x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    height, width = (side - size + 1 for side in x.shape[1:3])
    seen = jnp.concatenate([x[:, :, tap : tap + width] for tap in range(size)], -1)
    rows = seen @ kernel.transpose(1, 2, 0, 3).reshape(size * c, size * d)
    return sum(
        rows[:, tap : tap + height, :, tap * d : (tap + 1) * d] for tap in range(size)
    )


def kernel_gradient_by_taps(
    x: Array, dy: Array, kernel: tuple, *, strides: int, padding: int
) -> Array:
    """The kernel's gradient as one matrix product: of all taps of x with dy, or, where
    that is less to copy, of x with all taps of dy."""
    size, c, d = kernel[1:]
    if strides == 1 and 2 * padding == size - 1 and d < c:
        # the taps of dy around a pixel of x are in the opposite order

        def product(x, dy):
            taps = taps_of(dy, size, x.shape[1:3], 1, padding)
            return flat(x).T @ flat(taps)

        total = summed(product, x, dy, size**2 * d).reshape(c, size, size, d)
        return total[:, ::-1, ::-1].transpose(1, 2, 0, 3)

    def product(x, dy):
        taps = taps_of(x, size, dy.shape[1:3], strides, padding)
        return flat(taps).T @ flat(dy)

    return summed(product, x, dy, size**2 * c).reshape(kernel)


def kernel_gradient_by_rows_and_columns(
    x: Array, dy: Array, kernel: tuple, *, padding: int
) -> Array:
    """The kernel's gradient, stride 1, as one matrix product of x under a column of
    taps with dy under a row of them.

    With few channels that is less to copy than all taps of either.
    """
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
    """product(x, dy), summed over groups of pictures where the taps are large.

    width: how many floats the taps of one pixel of dy are.
    """
    pictures = x.shape[0]  # symbolic under jax.export
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
    """The input's gradient of a 3x3 convolution of stride 2: the transposed one."""
    return up_by_products(dy, kernel.swapaxes(2, 3))


def up_by_products(x: Array, kernel: Array) -> Array:
    """The transposed convolution as one matrix product C -> 9 D, whose taps are then
    shifted, added and interleaved."""
    c, d = kernel.shape[2:]
    taps = matmul(x, kernel.transpose(2, 0, 1, 3).reshape(c, 9 * d))
    taps = taps.reshape(*x.shape[:-1], 3, 3, d)

    def double(taps: Array, axis: int) -> Array:
        """Adds the three taps of the axis before the last, and doubles `axis`."""
        before, center, after = (lax.index_in_dim(taps, i, -2, False) for i in range(3))
        pads = [(0, 0)] * before.ndim
        pads[axis] = (0, 1)
        following = lax.slice_in_dim(jnp.pad(before, pads), 1, None, axis=axis)
        y = jnp.stack([center, after + following], axis + 1)
        return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])

    wide = double(taps, x.ndim - 2)  # the columns are done: [N, H, 2W, 3, D]
    return double(wide, x.ndim - 3)


def up_input_gradient(dy: Array, kernel: Array, shape: tuple) -> Array:
    """The input's gradient of the transposed convolution."""
    taps = taps_of(dy, 3, shape[1:3], 2, 1)
    return taps @ kernel.transpose(0, 1, 3, 2).reshape(-1, shape[-1])


def up_kernel_gradient(x: Array, dy: Array, kernel: tuple) -> Array:
    """The kernel's gradient of the transposed convolution."""
    taps = taps_of(dy, 3, x.shape[1:3], 2, 1)
    product = flat(x).T @ flat(taps)
    return product.reshape(kernel[2], 3, 3, kernel[3]).transpose(1, 2, 0, 3)
