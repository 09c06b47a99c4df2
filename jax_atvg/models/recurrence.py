"""Recurrences whose kernel gradient is one product over all steps.

    g_t = product(h_{t-1}, kernel) + bias        h: the last array of the state s
    s_t = cell(x_t, g_t, s_{t-1})                elementwise

JAX's own derivative of such a loop would add to the kernel's gradient, an array larger
than the state, in every step.  Here the derivative's part that depends on the kernel
alone, product(h_{t-1}, dkernel), is computed for all steps at once; hence so is its
transpose, the kernel's gradient.  It is plain JAX: forward and reverse mode and vmap
work.  Letters: S steps, G gates, D features.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jax_atvg.arrays import Array

# Steps of a recurrence that are one turn of its loop on an accelerator, where starting
# the small operations of a step takes longer than computing them.
UNROLLED = 16

State = tuple[Array, ...]
Cell = Callable[..., State]  # (x[...,G D], g[...,G D], *state[...,D]) -> state
Product = Callable[[Array, Array], Array]  # (h[...,D], kernel) -> [...,G D], bilinear


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def recur(
    cell: Cell,
    product: Product,
    unroll: int,
    from_input: Array,
    kernel: Array,
    bias: Array,
    start: State,
) -> State:
    """Runs the cell along axis 0 of from_input, f[S,B,...,G D]: the states after all
    steps, f[S,B,...,D] each.

    start: the state before the first step, f[B,...,D] each.  unroll: how many steps are
    one turn of the loop.
    """
    return run(cell, product, unroll, from_input, kernel, bias, start)[0]


def run(cell, product, unroll, from_input, kernel, bias, start) -> tuple[State, Array]:
    """(the states after all steps, g of all steps)."""
    unroll = turns(unroll, from_input)

    def step(state: State, x: Array):
        g = product(state[-1], kernel) + bias
        state = cell(x, g, *state)
        return state, (state, g)

    return lax.scan(step, start, from_input, unroll=unroll)[1]


@recur.defjvp
def _derivative(cell, product, unroll, primals, tangents):
    from_input, kernel, _, start = primals
    dx, dkernel, dbias, dstart = tangents
    states, g = run(cell, product, unroll, *primals)
    before = tuple(
        jnp.concatenate([first[None], all[:-1]])
        for first, all in zip(start, states, strict=True)
    )
    _, pull = jax.vjp(cell, from_input, g, *before)
    ones = jnp.ones_like

    def partial_derivatives(which: int):
        """Of the state's array `which` by all that the cell is given.  As the cell is
        elementwise, they are what a sum over its elements gives."""
        one = (
            ones(s) if i == which else jnp.zeros_like(s) for i, s in enumerate(states)
        )
        return pull(tuple(one))

    # The clips come before the steps, because a mesh splits the clips over its devices:
    # in the other order every device would receive what all of them have.
    by_kernel = product(before[-1].swapaxes(0, 1), dkernel).swapaxes(0, 1) + dbias
    known, by_g, by_state = [], [], []
    for which in range(len(states)):
        of_x, of_g, *of_state = partial_derivatives(which)
        known.append(over_gates(of_x * dx + of_g * by_kernel, states[which]))
        by_g.append(of_g)
        by_state.append(of_state)

    def step(dstate: State, inputs):
        known, by_g, by_state = inputs
        dg = product(dstate[-1], kernel)
        dstate = tuple(
            k + over_gates(of_g * dg, k) + sum(map(jnp.multiply, of_state, dstate))
            for k, of_g, of_state in zip(known, by_g, by_state, strict=True)
        )
        return dstate, dstate

    inputs = known, by_g, by_state
    unroll = turns(unroll, from_input)
    return states, lax.scan(step, dstart, inputs, unroll=unroll)[1]


def turns(unroll: int, from_input: Array) -> int:
    """Steps of a turn: one where their number is a symbol, for jax.export."""
    return unroll if isinstance(from_input.shape[0], int) else 1


def over_gates(x: Array, like: Array) -> Array:
    """The sum over the gates, f[...,G D] -> f[...,D], of as many features as `like`."""
    return sum(jnp.split(x, x.shape[-1] // like.shape[-1], -1))
