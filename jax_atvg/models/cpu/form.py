"""A convolution with its gradients written out, as XLA's CPU backend needs them.

A function whose gradients are written out (jax.custom_vjp) has derivatives in reverse
alone: jax.jvp does not work on it.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax import lax

from jax_atvg.arrays import Array


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


def derived(apply: Callable[[Array, Array], Array]) -> Form:
    """The form of a bilinear function `apply`, with the gradients that JAX derives."""

    def input_gradient(dy, kernel, shape):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: apply(x, kernel), x)(dy)[0]

    def kernel_gradient(x, dy, shape):
        kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: apply(x, kernel), kernel)(dy)[0]

    return Form(lambda kernel: kernel, apply, input_gradient, kernel_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def by_form(form: Form, x: Array, kernel: Array) -> Array:
    """The convolution of x with the kernel."""
    return form.apply(x, form.prepare(kernel))


def _forward(form: Form, x: Array, kernel: Array):
    x = lax.optimization_barrier(x)  # XLA would compute x again for each use of it
    return by_form(form, x, kernel), (x, kernel)


def _backward(form: Form, kept, dy: Array):
    x, kernel = kept
    dy = lax.optimization_barrier(dy)
    return (
        form.input_gradient(dy, form.prepare(kernel), x.shape),
        form.kernel_gradient(x, dy, kernel.shape),
    )


by_form.defvjp(_forward, _backward)
