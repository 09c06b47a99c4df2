"""The convolutional recurrent unit of VG-net (CVPR 2019, "CRNN")."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jax_atvg.arrays import Array
from jax_atvg.models.layers import conv, torch_default

# The axis of [B, T, H, W, C] that the recurrence runs over.
RECURRENCES = {"time": 1, "batch": 0}


class ConvGru(nn.Module):
    """GRU whose matrix products are 3x3 convolutions of dilation 2, gates r, z, n.

        r = sigmoid(x_r + h_r)    z = sigmoid(x_z + h_z)    n = tanh(x_n + r * h_n)
        h' = (1 - z) n + z h

    where x_* and h_* are the convolutions of input and state, biases included.
    recurrence="time" runs over frames, as the paper says.  "batch" runs over the clips
    and treats the frames as independent, as the authors' code does (reference 1.4):
    then nothing is carried over time, and the state is handed back as it came.
    """

    features: int
    recurrence: str = "time"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T H W C"], state: Float[Array, "B H W D"] | None = None
    ) -> tuple[Float[Array, "B T H W D"], Float[Array, "B H W D"]]:
        if self.recurrence not in RECURRENCES:
            raise ValueError(
                f"recurrence={self.recurrence!r} must be one of {sorted(RECURRENCES)}"
            )
        init, gates = torch_default(self.features), 3 * self.features
        input_kernel = self.param("input_kernel", init, (3, 3, x.shape[-1], gates))
        hidden_kernel = self.param("hidden_kernel", init, (3, 3, self.features, gates))
        input_bias = self.param("input_bias", init, (gates,))
        hidden_bias = self.param("hidden_bias", init, (gates,))

        def dilated(x: Array, kernel: Array) -> Array:
            return conv(x, kernel, padding=2, dilation=2)

        def step(h: Array, from_input: Array) -> tuple[Array, Array]:
            from_hidden = dilated(h, hidden_kernel) + hidden_bias
            x_r, x_z, x_n = jnp.split(from_input, 3, -1)
            h_r, h_z, h_n = jnp.split(from_hidden, 3, -1)
            r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
            n = jnp.tanh(x_n + r * h_n)
            h = n + z * (h - n)
            return h, h

        axis = RECURRENCES[self.recurrence]
        from_input = jnp.moveaxis(dilated(x, input_kernel) + input_bias, axis, 0)
        zeros = jnp.zeros((*from_input.shape[1:-1], self.features), from_input.dtype)
        if self.recurrence == "time":
            state, hidden = lax.scan(
                step, zeros if state is None else state, from_input
            )
        else:
            _, hidden = lax.scan(step, zeros, from_input)
            state = jnp.zeros_like(hidden[:, 0]) if state is None else state
        return jnp.moveaxis(hidden, 0, axis), state
