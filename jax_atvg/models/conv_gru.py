"""The convolutional GRU, the recurrence of VG-net.

CVPR 2019, section 3.2 ("CRNN"); docs/reference.md, section 1.4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Float

from jax_atvg.arrays import Array
from jax_atvg.models.convolutions import Form, Pair, choose, conv_forms
from jax_atvg.models.layers import conv, torch_default

RECURRENCES = ("time", "batch", "none")


class ConvGru(nn.Module):
    """A GRU in which 3x3 convolutions of dilation 2 replace the matrix products.

        r = sigmoid(x_r + h_r)    z = sigmoid(x_z + h_z)    n = tanh(x_n + r * h_n)
        h' = (1 - z) n + z h

    where x_* and h_* are the convolutions of input and state, biases included.

    recurrence: "time" runs over the frames, as the paper says.  "batch" runs over the
    clips and treats the frames as independent, as the authors' code does.  "none"
    treats all frames of all clips as independent (for ablations).  With these two
    nothing is carried over time, and the given state is returned unchanged.

    Returns the hidden states of all frames, and the state after the last frame.
    ValueError: another recurrence.
    """

    features: int
    recurrence: str = "time"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T H W C"], state: Float[Array, "B H W D"] | None = None
    ) -> tuple[Float[Array, "B T H W D"], Float[Array, "B H W D"]]:
        if self.recurrence not in RECURRENCES:
            known = ", ".join(RECURRENCES)
            raise ValueError(f"recurrence={self.recurrence!r} must be one of {known}")
        init, width = torch_default(self.features), 3 * self.features
        input_kernel = self.param("input_kernel", init, (3, 3, x.shape[-1], width))
        hidden_kernel = self.param("hidden_kernel", init, (3, 3, self.features, width))
        input_bias = self.param("input_bias", init, (width,))
        hidden_bias = self.param("hidden_bias", init, (width,))

        from_input = conv(x, input_kernel, padding=2, dilation=2) + input_bias
        if self.recurrence == "time":
            from_input = from_input.swapaxes(0, 1)
        elif self.recurrence == "none":
            from_input = from_input.reshape(1, -1, *from_input.shape[2:])
        start = jnp.zeros((*from_input.shape[1:-1], self.features), from_input.dtype)
        if self.recurrence == "time" and state is not None:
            start = state
        hidden = recur(*promote_dtype(from_input, hidden_kernel, hidden_bias, start))
        if self.recurrence == "time":
            return hidden.swapaxes(0, 1), hidden[-1]
        hidden = hidden.reshape(*x.shape[:-1], self.features)
        return hidden, jnp.zeros_like(hidden[:, 0]) if state is None else state


def gates(from_input: Array, from_hidden: Array, h: Array) -> Array:
    """The next state h', from both convolutions and the state h before."""
    x_r, x_z, x_n = jnp.split(from_input, 3, -1)
    h_r, h_z, h_n = jnp.split(from_hidden, 3, -1)
    r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return n + z * (h - n)


@jax.custom_vjp
def recur(from_input: Array, kernel: Array, bias: Array, start: Array) -> Array:
    """Runs the cell along axis 0: from_input f[S,N,H,W,3D], kernel f[3,3,D,3D],
    bias f[3D], start f[N,H,W,D] -> hidden f[S,N,H,W,D].

    The kernel is prepared once for all S steps.  Its gradient is computed from all
    steps at once, after the loop, instead of being accumulated within it.
    """
    return _recur(from_input, kernel, bias, start)[0]


def _hidden_forms(kernel: Array, start: Array) -> Pair:
    return conv_forms(start.shape, kernel.shape, start.dtype, 1, 2, 2)


def _recur(from_input, kernel, bias, start):
    """(hidden states, the convolution of the state before each of them)."""

    def run(form: Form, from_input, kernel, bias, start):
        prepared = form.prepare(kernel)

        def step(h, from_input):
            from_hidden = form.apply(h, prepared) + bias
            h = gates(from_input, from_hidden, h)
            return h, (h, from_hidden)

        return lax.scan(step, start, from_input)[1]

    forms = _hidden_forms(kernel, start)
    return choose(forms, run, from_input, kernel, bias, start)


def _recur_forward(from_input, kernel, bias, start):
    hidden, from_hidden = _recur(from_input, kernel, bias, start)
    return hidden, (from_input, kernel, bias, start, hidden, from_hidden)


def _recur_backward(kept, dhidden):
    def run(form: Form, from_input, kernel, bias, start, hidden, from_hidden, dhidden):
        prepared = form.prepare(kernel)
        before = jnp.concatenate([start[None], hidden[:-1]])

        def step(dh, inputs):
            *cell, d = inputs
            dx, dg, dh = jax.vjp(gates, *cell)[1](dh + d)
            return dh + form.input_gradient(dg, prepared, dh.shape), (dx, dg)

        dstart, (dx, dg) = lax.scan(
            step,
            jnp.zeros_like(start),
            (from_input, from_hidden, before, dhidden),
            reverse=True,
        )
        # The clips come before the steps, because a mesh splits the clips over its
        # devices: in the other order every device would receive all pictures.
        pictures, dpictures = (
            x.swapaxes(0, 1).reshape(-1, *x.shape[2:]) for x in (before, dg)
        )
        dkernel = form.kernel_gradient(pictures, dpictures, kernel.shape)
        return dx, dkernel, dg.sum((0, 1, 2, 3)), dstart

    return choose(_hidden_forms(kept[1], kept[3]), run, *kept, dhidden)


recur.defvjp(_recur_forward, _recur_backward)
