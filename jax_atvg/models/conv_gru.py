"""The convolutional GRU, the recurrence of VG-net.

CVPR 2019, section 3.2 ("CRNN"); docs/reference.md, section 1.4.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jax_atvg.arrays import Array
from jax_atvg.models import recurrence
from jax_atvg.models.convolutions import chosen, cpu_form
from jax_atvg.models.cpu import recurrence as cpu_recurrence
from jax_atvg.models.layers import conv, torch_default, wide

RECURRENCES = ("time", "batch", "none")


class ConvGru(nn.Module):
    """A GRU in which 3x3 convolutions of dilation 2 replace the matrix products.

        r = sigmoid(x_r + h_r)    z = sigmoid(x_z + h_z)    n = tanh(x_n + r * h_n)
        h' = (1 - z) n + z h

    where x_* and h_* are the convolutions of input and state, biases included.  Even
    rows meet even rows alone, and so do columns: the four phases of a picture are
    pictures of their own, whose convolutions are not dilated.

    recurrence: "time" runs over the frames, as the paper says.  "batch" runs over the
    clips and treats the frames as independent, as the authors' code does.  "none"
    treats all frames of all clips as independent (for ablations).  With these two
    nothing is carried over time, and the given state is returned unchanged.

    The state is f32 whatever the precision of x and of the kernels.
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

        given = x
        even = not any(side % 2 for side in x.shape[-3:-1])
        if even:
            x, state = split_phases(x), None if state is None else split_phases(state)
        else:  # there are no phases of one size
            input_kernel, hidden_kernel = map(dilated, (input_kernel, hidden_kernel))
        from_input = conv(x, input_kernel, padding=len(input_kernel) // 2) + input_bias
        if self.recurrence == "time":
            from_input = from_input.swapaxes(0, 1)
        elif self.recurrence == "none":
            from_input = from_input.reshape(1, -1, *from_input.shape[2:])
        start = jnp.zeros((*from_input.shape[1:-1], self.features), wide(x))
        if self.recurrence == "time" and state is not None:
            start = state.astype(start.dtype)
        hidden = recur(from_input, hidden_kernel, hidden_bias, start)
        if self.recurrence == "time":
            hidden, state = hidden.swapaxes(0, 1), hidden[-1]
        else:
            hidden = hidden.reshape(*x.shape[:-1], self.features)
            state = jnp.zeros_like(hidden[:, 0]) if state is None else state
        if even:
            hidden, state = join_phases(hidden), join_phases(state)
        return hidden.astype(given.dtype), state


def gates(from_input: Array, from_hidden: Array, h: Array) -> tuple[Array]:
    """The next state h', from both convolutions and the state h before."""
    x_r, x_z, x_n = jnp.split(from_input, 3, -1)
    h_r, h_z, h_n = jnp.split(from_hidden, 3, -1)
    r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return (n + z * (h - n),)


def convolve(h: Array, kernel: Array) -> Array:
    """The convolution of the state, in the kernel's precision."""
    return conv(h, kernel, padding=len(kernel) // 2).astype(h.dtype)


def recur(from_input: Array, kernel: Array, bias: Array, start: Array) -> Array:
    """Runs the cell along axis 0: from_input f[S,...,H,W,3D], kernel f[k,k,D,3D],
    bias f[3D], start f[...,H,W,D] -> hidden f[S,...,H,W,D], as wide as start."""

    def native(*arrays):
        *arrays, start = arrays
        (hidden,) = recurrence.recur(
            gates, convolve, recurrence.UNROLLED, *arrays, (start,)
        )
        return hidden

    def cpu(from_input, kernel, bias, start):
        steps, pictures = from_input.shape[0], start.shape[-3:]
        folded = start.reshape(-1, *pictures)
        sizes = folded.shape, kernel.shape, start.dtype
        form = cpu_form(*sizes, 1, len(kernel) // 2, stepwise=True)
        hidden = cpu_recurrence.recur(
            gates,
            form,
            from_input.reshape(steps, *folded.shape[:-1], bias.size).astype(
                start.dtype
            ),
            kernel.astype(start.dtype),
            bias.astype(start.dtype),
            folded,
        )
        return hidden.reshape(steps, *start.shape)

    return chosen(native, cpu, from_input, kernel, bias, start)


def split_phases(x: Float[Array, "... H W C"]) -> Float[Array, "... 4 h w C"]:
    """Makes a picture of every second row and column, for each first row and column."""
    *rest, height, width, channels = x.shape
    x = x.reshape(*rest, height // 2, 2, width // 2, 2, channels)
    x = jnp.moveaxis(x, (-4, -2), (-5, -4))
    return x.reshape(*rest, 4, *x.shape[-3:])


def join_phases(x: Float[Array, "... 4 h w C"]) -> Float[Array, "... H W C"]:
    """The inverse of split_phases."""
    *rest, _, height, width, channels = x.shape
    x = x.reshape(*rest, 2, 2, height, width, channels)
    x = jnp.moveaxis(x, (-5, -4), (-4, -2))
    return x.reshape(*rest, 2 * height, 2 * width, channels)


def dilated(kernel: Float[Array, "3 3 C D"]) -> Float[Array, "5 5 C D"]:
    """The kernel with zeros between its taps."""
    return jnp.zeros((5, 5, *kernel.shape[2:]), kernel.dtype).at[::2, ::2].set(kernel)
