"""The recurrence of convolutions (models/recurrence.py) with its gradients written out,
in the forms of convolutions for CPUs."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models.cpu.form import Form


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    cell: Callable,
    form: Form,
    from_input: Array,
    kernel: Array,
    bias: Array,
    start: Array,
) -> Array:
    """Runs the cell along axis 0: from_input f[S,N,H,W,3D], kernel f[k,k,D,3D],
    bias f[3D], start f[N,H,W,D] -> hidden f[S,N,H,W,D].

    cell: (from_input, from_hidden, h) -> (h,).  form: of the convolution of the state.
    The kernel is prepared once for all S steps.
    """
    return run(cell, form, from_input, kernel, bias, start)[0]


def run(cell, form: Form, from_input, kernel, bias, start):
    """(hidden states, the convolution of the state before each of them)."""
    prepared = form.prepare(kernel)

    def step(h, from_input):
        from_hidden = form.apply(h, prepared) + bias
        (h,) = cell(from_input, from_hidden, h)
        return h, (h, from_hidden)

    return lax.scan(step, start, from_input)[1]


def _forward(cell, form: Form, from_input, kernel, bias, start):
    hidden, from_hidden = run(cell, form, from_input, kernel, bias, start)
    return hidden, (from_input, kernel, start, hidden, from_hidden)


def _backward(cell, form: Form, kept, dhidden):
    from_input, kernel, start, hidden, from_hidden = kept
    prepared = form.prepare(kernel)
    before = jnp.concatenate([start[None], hidden[:-1]])

    def step(dh, inputs):
        *given, d = inputs
        dx, dg, dh = jax.vjp(cell, *given)[1]((dh + d,))
        return dh + form.input_gradient(dg, prepared, dh.shape), (dx, dg)

    dstart, (dx, dg) = lax.scan(
        step,
        jnp.zeros_like(start),
        (from_input, from_hidden, before, dhidden),
        reverse=True,
    )
    # The clips come before the steps, as in models/recurrence.py.
    pictures, dpictures = (
        x.swapaxes(0, 1).reshape(-1, *x.shape[2:]) for x in (before, dg)
    )
    dkernel = form.kernel_gradient(pictures, dpictures, kernel.shape)
    return dx, dkernel, dg.sum((0, 1, 2, 3)), dstart


recur.defvjp(_forward, _backward)
