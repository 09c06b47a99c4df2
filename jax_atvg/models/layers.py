"""The layers of which the three networks are built.

Images are [..., H, W, C] with any number of leading axes.  Convolutions fold these into
the batch; BatchNorm takes its statistics over all of them, so that [B, T, H, W, C] is
normalised over B*T frames.  Initial values follow the authors' code
(docs/reference.md, section 2): N(0, 0.02) for weights, N(1, 0.02) for the scale of a
norm, PyTorch's defaults for recurrences and the discriminator.
"""

import itertools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Float

from jax_atvg.arrays import Array
from jax_atvg.models import convolutions
from jax_atvg.models.cpu import rows

Features = Float[Array, "... _H _W _C"]  # sizes differ from layer to layer

Norm = Callable[..., nn.Module]  # BatchNorm, or what a test replaces it by

normal = initializers.normal(0.02)


def torch_default(fan_in: int) -> nn.initializers.Initializer:
    """U(-b, b) with b = 1/sqrt(fan_in), PyTorch's default for weights and biases."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def near_one(key, shape, dtype=jnp.float32):
    """N(1, 0.02)."""
    return 1 + normal(key, shape, dtype)


def weight_inits(torch_init: bool, fan_in: int):
    """The initialisers of a layer's (kernel, bias)."""
    if torch_init:
        return torch_default(fan_in), torch_default(fan_in)
    return normal, initializers.zeros


def in_kernels_precision(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Both as a layer multiplies them: in its kernel's precision if that is below 32
    bits, else as wide as the wider one."""
    if jnp.finfo(kernel.dtype).bits < 32:
        return x.astype(kernel.dtype), kernel
    return tuple(promote_dtype(x, kernel))


def wide(x: Array) -> jnp.dtype:
    """The type of what is not left to the precision of the kernels: x's, but f32 at
    least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def conv(
    x: Features,
    kernel: Float[Array, "k k C C_out"],
    *,
    strides: int = 1,
    padding: int = 0,
) -> Features:
    """A convolution (cross-correlation) with zero padding on all four sides."""
    x, kernel = in_kernels_precision(x, kernel)
    y = convolutions.conv(x.reshape(-1, *x.shape[-3:]), kernel, strides, padding)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def conv_transpose(x: Features, kernel: Float[Array, "3 3 C C_out"]) -> Features:
    """The transposed 3x3 convolution of stride 2, which doubles H and W.

    y[2i-1+a, 2j-1+b] += x[i, j] kernel[a, b], as in PyTorch with padding=1 and
    output_padding=1.
    """
    x, kernel = in_kernels_precision(x, kernel)
    y = convolutions.conv_transpose(x.reshape(-1, *x.shape[-3:]), kernel)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def reflect_pad(x: Features, width: int) -> Features:
    """Mirrors the picture at its borders without repeating the edge pixels."""
    pads = [(0, 0)] * (x.ndim - 3) + [(width, width)] * 2 + [(0, 0)]
    return jnp.pad(x, pads, mode="reflect")


def max_pool(x: Features, strides: tuple[int, int]) -> Features:
    """Maximum over 3x3 windows, without padding."""
    return nn.max_pool(x, (3, 3), strides)


class Conv(nn.Module):
    """A k x k convolution; padding is k // 2 unless given: stride 1 keeps H and W."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    use_bias: bool = True
    torch_init: bool = False

    @nn.compact
    def __call__(self, x: Features) -> Features:
        k, channels = self.kernel_size, x.shape[-1]
        kernel_init, bias_init = weight_inits(self.torch_init, k * k * channels)
        kernel = self.param("kernel", kernel_init, (k, k, channels, self.features))
        padding = k // 2 if self.padding is None else self.padding
        y = conv(x, kernel, strides=self.strides, padding=padding)
        if self.use_bias:
            y += self.param("bias", bias_init, (self.features,))
        return y


class ConvHeads(nn.Module):
    """Several k x k convolutions of the same x, computed as one.

    features: {name: number of channels}.  Returns {name: result}.
    """

    features: Mapping[str, int]
    kernel_size: int

    @nn.compact
    def __call__(self, x: Features) -> dict[str, Features]:
        k, kernels, biases = self.kernel_size, [], []
        for name, features in self.features.items():
            shape = (k, k, x.shape[-1], features)
            kernels.append(self.param(f"{name}_kernel", normal, shape))
            biases.append(self.param(f"{name}_bias", initializers.zeros, (features,)))
        y = conv(x, jnp.concatenate(kernels, -1), padding=k // 2)
        y += jnp.concatenate(biases)
        ends = list(itertools.accumulate(self.features.values()))
        return dict(zip(self.features, jnp.split(y, ends[:-1], -1), strict=True))


class ConvTranspose(nn.Module):
    """A transposed 3x3 convolution, which doubles H and W."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Features) -> Features:
        kernel = self.param("kernel", normal, (3, 3, x.shape[-1], self.features))
        y = conv_transpose(x, kernel)
        if self.use_bias:
            y += self.param("bias", initializers.zeros, (self.features,))
        return y


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch defines it.

    Normalises with the biased variance over all axes but the last, and keeps a running
    average of the unbiased one (flax's own keeps the biased).  Under jit over a mesh
    the statistics are those of the global batch.  They are computed in float32 at
    least, whatever the precision of x.

    virtual_batch_size: how many consecutive examples of the first axis are normalised
    together (ghost batch normalisation, Hoffer et al. 2017); the running averages are
    updated with the mean over these groups.  0: the whole batch is one group.
    interleaved: how many batches the first axis holds, of which it has an example in
    turn: each is normalised by itself, and they update the running averages one after
    the other, as if they had come one after the other.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    torch_init: bool = False
    virtual_batch_size: int = 0
    interleaved: int = 1

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        channels = (x.shape[-1],)
        scale_init = initializers.ones if self.torch_init else near_one
        scale = self.param("scale", scale_init, channels)
        bias = self.param("bias", initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        shape = x.shape
        if train:
            x = x.reshape(*self.groups(shape[0]), *shape[1:])
            center, spread, count = self.statistics(x.astype(wide(x)), mean.value)
            if not self.is_initializing():
                self.update(mean, center)
                self.update(var, spread * (count / max(count - 1, 1)))
        else:
            center, spread = mean.value, var.value
        y = (x - center) * (scale * lax.rsqrt(spread + self.epsilon)) + bias
        return y.astype(x.dtype).reshape(shape)

    def groups(self, rows: int) -> tuple[int, int, int]:
        """How the first axis is divided: (groups, examples of one, batches)."""
        rows //= self.interleaved
        examples = self.virtual_batch_size or rows
        return rows // examples, examples, self.interleaved

    def statistics(self, x: Array, near: Array) -> tuple[Array, Array, int]:
        """Mean and biased variance, which broadcast with x, and the number of values
        from which each was computed.

        x: [groups, examples, batches, ...].  near: a value near the mean, which keeps
        the difference below accurate.  The sums of x - near and of its square take one
        pass, and over a mesh one all-reduce; the textbook's formula has to wait for the
        mean before it can sum.
        """
        axes, near = (1, *range(3, x.ndim - 1)), lax.stop_gradient(near)
        first = jnp.mean(x - near, axes, keepdims=True)
        second = jnp.mean((x - near) ** 2, axes, keepdims=True)
        spread = jnp.maximum(second - first**2, 0.0)
        return near + first, spread, x.size // first.size

    def update(self, running: nn.Variable, found: Array) -> None:
        """Moves a running average towards each batch's statistics, f[groups, 1,
        batches, ..., C]."""
        of_batches = found.mean(0).reshape(self.interleaved, -1)
        for batch in of_batches:
            running.value += (1 - self.momentum) * (batch - running.value)


class ConvNormRelu(nn.Module):
    """A convolution without bias, then a normalisation and a ReLU."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | None = None
    norm: Norm = BatchNorm
    torch_init: bool = False

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        x = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            self.padding,
            use_bias=False,
            torch_init=self.torch_init,
            name="conv",
        )(x)
        norm = self.norm(torch_init=self.torch_init, name="norm")
        return nn.relu(norm(x, train))


class UpNormRelu(nn.Module):
    """A transposed convolution, which doubles H and W, a normalisation and a ReLU."""

    features: int
    use_bias: bool = False
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        x = ConvTranspose(self.features, self.use_bias, name="conv")(x)
        return nn.relu(self.norm(name="norm")(x, train))


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))): no ReLU after the addition."""

    dropout: float = 0.5
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        y = ConvNormRelu(x.shape[-1], norm=self.norm, name="first")(x, train)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = Conv(x.shape[-1], use_bias=False, name="conv")(y)
        return x + self.norm(name="norm")(y, train)


SMALL = 1 << 15  # values of a kernel of which rows that are not needed cost little


class Dense(nn.Module):
    """A linear layer, x @ kernel + bias.  On CPUs small ones give a row the same bits
    among few others as among many."""

    features: int
    torch_init: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... _C"]) -> Float[Array, "... _D"]:
        kernel_init, bias_init = weight_inits(self.torch_init, x.shape[-1])
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features))
        x, kernel = in_kernels_precision(x, kernel)
        if kernel.size <= SMALL:
            product = convolutions.chosen(jnp.matmul, rows.matmul_in_place, x, kernel)
        else:
            product = x @ kernel
        return product + self.param("bias", bias_init, (self.features,))


class SpectralNorm(nn.SpectralNorm):
    """A layer whose kernel is divided by its spectral norm (Miyato et al. 2018).

    flax's, but that the kernel keeps its precision: the estimate of its norm is
    float32, and would make the product float32 as well.
    """

    def _spectral_normalize(self, path, vs, update_stats):
        divided = super()._spectral_normalize(path, vs, update_stats)
        return divided.astype(vs.dtype)


class Mlp(nn.Module):
    """Linear layers, each followed by a ReLU."""

    widths: tuple[int, ...]
    torch_init: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... _C"]) -> Float[Array, "... _D"]:
        for i, width in enumerate(self.widths):
            x = nn.relu(Dense(width, self.torch_init, name=f"dense_{i}")(x))
        return x
