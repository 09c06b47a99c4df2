"""Matrix products whose rows have the same bits however many rows there are.

XLA's CPU backend computes products of few rows by other kernels, or lets its threads
share each sum, and rounds otherwise.  A frame that is drawn alone is to have the bits
that it has among others.
"""

import math

import jax.numpy as jnp

from jax_atvg.arrays import Array

ENOUGH = 64


def matmul(x: Array, matrix: Array) -> Array:
    """f[...,C] @ f[C,D]; rows of zeros are computed as well where there are few."""
    rows = math.prod(x.shape[:-1])  # symbolic under jax.export
    if not isinstance(rows, int) or rows >= ENOUGH:
        return x @ matrix
    flat = x.reshape(rows, x.shape[-1])
    product = jnp.pad(flat, ((0, ENOUGH - rows), (0, 0))) @ matrix
    return product[:rows].reshape(*x.shape[:-1], matrix.shape[-1])
