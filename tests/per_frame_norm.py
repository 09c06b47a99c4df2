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
        for frame in batch.reshape(-1, batch.shape[-1]):
            super().update(running, frame)
