"""The authors' batch normalisation, which sees one frame at a time."""

import jax.numpy as jnp

from jax_atvg.models.layers import BatchNorm


class PerFrameBatchNorm(BatchNorm):
    """The authors' norm: one call, with its own statistics, for every frame."""

    def statistics(self, x, near):
        if x.ndim < 5:
            return super().statistics(x, near)
        axes = (0, 2, 3)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        return (
            jnp.mean(x, axes)[:, None, None],
            jnp.var(x, axes)[:, None, None],
            count,
        )

    def update(self, running, batch):
        """As one update after the other, in one sum, which compiles sooner."""
        frames = batch.reshape(-1, batch.shape[-1])
        kept = self.momentum ** jnp.arange(len(frames), dtype=frames.dtype)
        moved = (1 - self.momentum) * jnp.sum(kept[::-1, None] * frames, 0)
        running.value = self.momentum ** len(frames) * running.value + moved
