"""Matrix products whose rows have the same bits however many rows there are.

XLA's CPU backend computes products of few rows by other kernels, or lets its threads
share each sum, and rounds otherwise.  A frame that is drawn alone is to have the bits
that it has among others.
"""

import math
from typing import Any

import jax.numpy as jnp

from jax_atvg.arrays import Array

ENOUGH = 64


def matmul(x: Array, matrix: Array) -> Array:
    """f[...,C] @ f[C,D]; rows of zeros are computed as well where there are few."""
    rows = math.prod(x.shape[:-1])
    if not are_few(rows):
        return x @ matrix
    flat = x.reshape(rows, x.shape[-1])
    product = jnp.pad(flat, ((0, ENOUGH - rows), (0, 0))) @ matrix
    return product[:rows].reshape(*x.shape[:-1], matrix.shape[-1])


def matmul_in_place(x: Array, matrix: Array) -> Array:
    """As matmul, but the rows of zeros follow those of each index of the first axes:
    what is spread over devices along these stays where it is."""
    if not are_few(math.prod(x.shape[:-1])):
        return x @ matrix
    apart = x if x.ndim > 2 else x[..., None, :]
    rows = apart.shape[-2]
    widths = [(0, 0)] * (apart.ndim - 2) + [(0, ENOUGH - rows), (0, 0)]
    product = (jnp.pad(apart, widths) @ matrix)[..., :rows, :]
    return product.reshape(*x.shape[:-1], matrix.shape[-1])


def are_few(rows: Any) -> bool:
    """rows: an int, or a symbol while jax.export traces."""
    return isinstance(rows, int) and 0 < rows < ENOUGH
