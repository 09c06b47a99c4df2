"""The authors' batch normalisation, which sees one frame at a time."""

import jax.numpy as jnp

from jax_atvg.models.layers import BatchNorm


class PerFrameBatchNorm(BatchNorm):
    """The authors' norm: one call, with its own statistics, for every frame."""

    def statistics(self, x, near):
        """x: [1, clips, batches, frames, H, W, C]; what has no frames is as ever."""
        if x.ndim < 7:
            return super().statistics(x, near)
        axes = (1, 4, 5)
        mean, spread = (f(x, axes, keepdims=True) for f in (jnp.mean, jnp.var))
        return mean, spread, x.size // mean.size

    def update(self, running, found):
        """As one update after the other, in one sum, which compiles sooner."""
        frames = found.reshape(-1, found.shape[-1])
        kept = self.momentum ** jnp.arange(len(frames), dtype=frames.dtype)
        moved = (1 - self.momentum) * jnp.sum(kept[::-1, None] * frames, 0)
        running.value = self.momentum ** len(frames) * running.value + moved
