"""The stacked LSTM of AT-net and of the discriminator, as PyTorch defines it."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jax_atvg.arrays import Array
from jax_atvg.models import convolutions
from jax_atvg.models.layers import in_kernels_precision, torch_default, wide
from jax_atvg.models.recurrence import UNROLLED, recur


class LstmState(NamedTuple):
    """The state of an LSTM.  hidden, cell: f32[layers, B, width]."""

    hidden: Array
    cell: Array


class Weights(NamedTuple):
    """Of one layer: kernels f[C, 4 width] and f[width, 4 width], biases f[4 width]."""

    input_kernel: Array
    hidden_kernel: Array
    input_bias: Array
    hidden_bias: Array


class Lstm(nn.Module):
    """A stacked LSTM along axis 1.

    The gates are in PyTorch's order i, f, g, o.  There are two biases as in PyTorch:
    both are trained, and with a single one Adam would take other steps.  The inputs'
    contribution to the gates is one matrix product over all frames.  The state is f32
    whatever the precision of the kernels.
    """

    width: int = 256
    layers: int = 3

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T C"], state: LstmState | None = None
    ) -> tuple[Float[Array, "B T C_out"], LstmState]:
        if state is None:
            zeros = jnp.zeros((self.layers, x.shape[0], self.width), wide(x))
            state = LstmState(zeros, zeros)
        channels = (x.shape[-1], *[self.width] * (self.layers - 1))
        weights = [self.weights(f"layer_{i}", c) for i, c in enumerate(channels)]
        return convolutions.chosen(side_by_side, one_by_one, x, weights, state)

    def weights(self, name: str, channels: int) -> Weights:
        init, gates = torch_default(self.width), 4 * self.width
        return Weights(
            self.param(f"{name}_input_kernel", init, (channels, gates)),
            self.param(f"{name}_hidden_kernel", init, (self.width, gates)),
            self.param(f"{name}_input_bias", init, (gates,)),
            self.param(f"{name}_hidden_bias", init, (gates,)),
        )


def one_by_one(x: Array, weights: list[Weights], state: LstmState):
    """Every layer over all frames, then the next: on a CPU, where products of many rows
    are the fastest.  Returns (hidden states of the last layer, the state at the end).
    """
    finals = []
    for layer, hidden, cell in zip(weights, *state, strict=True):
        cells, hidden = recur(
            cell_of_gates,
            product,
            1,
            from_frames(x, layer),
            layer.hidden_kernel,
            layer.hidden_bias,
            (cell, hidden),
        )
        x = hidden.swapaxes(0, 1)
        finals.append(LstmState(hidden[-1], cells[-1]))
    return x, LstmState(*map(jnp.stack, zip(*finals, strict=True)))


def side_by_side(x: Array, weights: list[Weights], state: LstmState):
    """All layers in one step: the layer l computes frame s - l in step s, from what the
    layer below it has computed in step s - 1.  On an accelerator, where to start a
    product takes longer than the product, T + L - 1 steps are faster than T L.
    Returns what one_by_one does.
    """
    depth, batch, width = state.hidden.shape
    from_input = from_frames(x, weights[0])
    none = jnp.zeros_like(from_input)
    given, kernels, biases = [], [], []
    for i, layer in enumerate(weights):
        # The state before the first frame comes with the input of the layer's first
        # step, so that in the steps before there is one to wait in: h = 0, c as it is.
        frames = none if i else from_input
        first = frames[:1] + product(state.hidden[i], layer.hidden_kernel)
        waiting = jnp.broadcast_to(jnp.repeat(WAIT, width), (i, batch, 4 * width))
        after = jnp.zeros((depth - 1 - i, *first.shape[1:]), first.dtype)
        given.append(jnp.concatenate([waiting, first, frames[1:], after]))
        below = layer.input_kernel if i else jnp.zeros_like(layer.hidden_kernel)
        kernels.append(jnp.concatenate([below, layer.hidden_kernel]))
        biases.append(layer.hidden_bias + (layer.input_bias if i else 0))
    start = jnp.zeros((batch, depth, width), state.hidden.dtype)
    cells, hidden = recur(
        cell_of_gates,
        product_of_layers,
        UNROLLED + depth - 1,
        jnp.stack(given, 2),
        jnp.stack(kernels),
        jnp.stack(biases),
        (state.cell.swapaxes(0, 1), start),
    )
    last = [(i - depth, slice(None), i) for i in range(depth)]
    final = LstmState(*(jnp.stack([x[at] for at in last]) for x in (hidden, cells)))
    return hidden[depth - 1 :, :, -1].swapaxes(0, 1), final


# What makes the gates i, f, g, o 0, 1, 0, 0 beside any bias.
WAIT = np.array([-1e4, 1e4, 0.0, -1e4], np.float32)


def from_frames(x: Array, layer: Weights) -> Array:
    """The input's contribution to the gates, f[B,T,C] -> f[T,B,4 width]."""
    x, kernel = in_kernels_precision(x, layer.input_kernel)
    return (x @ kernel + layer.input_bias).swapaxes(0, 1)


def cell_of_gates(from_input: Array, from_hidden: Array, cell: Array, _) -> tuple:
    """(the next cell, the next hidden state)."""
    i, f, g, o = jnp.split(from_input + from_hidden, 4, -1)
    cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
    return cell, nn.sigmoid(o) * jnp.tanh(cell)


def product(hidden: Array, kernel: Array) -> Array:
    """The product of the hidden state, in the kernel's precision."""
    x, kernel = in_kernels_precision(hidden, kernel)
    return (x @ kernel).astype(hidden.dtype)


def product_of_layers(hidden: Array, kernels: Array) -> Array:
    """f[...,L,width], f[L,2 width,4 width] -> f[...,L,4 width]: of every layer's hidden
    state, after that of the layer below it."""
    below = jnp.concatenate(
        [jnp.zeros_like(hidden[..., :1, :]), hidden[..., :-1, :]], -2
    )
    both = jnp.concatenate([below, hidden], -1)
    x, kernels = in_kernels_precision(both, kernels)
    return jnp.einsum("...lk,lkg->...lg", x, kernels).astype(hidden.dtype)
