"""3x3 convolutions of stride 1 with 16 products for 4 pixels instead of 36.

    y = A' [ (G k G') * (B' x B) ] A        on tiles of 4x4 pixels, 2 apart

Winograd's F(2x2, 3x3): Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016, section 4.1; the prime is the transpose.  Between the transforms
there are 16 matrix products, one for each point of a tile, row by row.  Letters:
N pictures, H x W pixels, C channels in, D channels out.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_atvg.arrays import Array
from jax_atvg.models.cpu.rows import matmul

Points = Sequence[Array] | Array  # one matrix per point of a tile: 16 of them

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
G_SQUARED = np.kron(G, G)  # on both axes: 9 taps -> 16 points
# The points of a kernel turned by 180 degrees are those of the kernel in this order,
# and vice versa.
TURNED = [4 * i + j for i in (3, 1, 2, 0) for j in (3, 1, 2, 0)]
FEW_ROWS = 256  # up to so many rows one batched product is faster than 16 single ones


def prepare(kernel: Array) -> Array:
    """Transforms the kernel, G k G': f[3,3,C,D] -> f[16,C,D]."""
    taps = kernel.reshape(9, -1)
    return (G_SQUARED.astype(kernel.dtype) @ taps).reshape(16, *kernel.shape[2:])


def apply(x: Array, prepared: Array, product: Callable = matmul) -> Array:
    """The convolution f[N,H,W,C] -> f[N,H,W,D] with a padding of one zero.

    prepared: see prepare.  product: of matrices; with the usual one a picture has the
    same bits among any number of them.
    """
    return put_tiles(multiply(product, take_tiles(x), prepared), x.shape[:3])


def multiply(
    product: Callable[[Array, Array], Array],
    tiles: Points,
    others: Points,
) -> Points:
    """Computes product(tile, other) for each of the 16 points."""
    rows = tiles[0].shape[0]  # symbolic under jax.export
    if isinstance(rows, int) and rows <= FEW_ROWS:
        return jax.vmap(product)(*map(jnp.stack, (tiles, others)))
    return [product(tile, other) for tile, other in zip(tiles, others, strict=True)]


def input_gradient(dy: Array, prepared: Array) -> Array:
    """The gradient of apply for x: a convolution with the kernel turned around."""
    tiles = take_tiles(dy)
    tiles = [tiles[i] for i in TURNED]
    products = multiply(lambda tile, kernel: tile @ kernel.T, tiles, prepared)
    return put_tiles([products[i] for i in TURNED], dy.shape[:3])


def kernel_gradient(x: Array, dy: Array) -> Array:
    """The gradient of apply and prepare for the kernel, f[3,3,C,D]."""
    products = multiply(lambda a, b: a.T @ b, take_tiles(x), spread_tiles(dy))
    taps = G_SQUARED.T.astype(x.dtype) @ jnp.stack(products).reshape(16, -1)
    return taps.reshape(3, 3, x.shape[-1], dy.shape[-1])


def take_tiles(x: Array) -> list[Array]:
    """Transforms the input, B' x B, with a border of zeros: 16 of f[N*tiles,C]."""
    h, w, c = x.shape[1:]
    pads = [(1, 1 + size % 2) for size in (h, w)]
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])

    def transform(x: Array, axis: int) -> list[Array]:
        last = x.shape[axis] - 3
        a, b, c, d = (lax.slice_in_dim(x, i, last + i, 2, axis) for i in range(4))
        return [a - c, b + c, c - b, b - d]

    return [y.reshape(-1, c) for rows in transform(x, 1) for y in transform(rows, 2)]


def put_tiles(products: Points, shape: tuple) -> Array:
    """Transforms the products m back, A' m A: 16 of f[N*tiles,D] -> f[N,H,W,D].

    shape: (N, H, W).
    """
    n, h, w = shape
    products = [m.reshape(n, -(-h // 2), -(-w // 2), m.shape[-1]) for m in products]

    def transform(m: list[Array]) -> list[Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    rows = [transform(products[4 * i : 4 * i + 4]) for i in range(4)]
    left, right = (transform([row[column] for row in rows]) for column in range(2))
    pairs = [jnp.stack(pair, 3) for pair in zip(left, right, strict=True)]
    y = jnp.stack(pairs, 2)  # [N, tiles, 2, tiles, 2, D]
    return y.reshape(n, 2 * y.shape[1], 2 * y.shape[3], -1)[:, :h, :w]


def spread_tiles(dy: Array) -> list[Array]:
    """The transpose of put_tiles, A dy A': 16 of f[N*tiles,D]."""
    h, w, d = dy.shape[1:]
    dy = jnp.pad(dy, [(0, 0), (0, h % 2), (0, w % 2), (0, 0)])

    def transform(y: Array, axis: int) -> list[Array]:
        a, b = (lax.slice_in_dim(y, i, None, 2, axis) for i in range(2))
        return [a, a + b, a - b, -b]

    return [y.reshape(-1, d) for rows in transform(dy, 1) for y in transform(rows, 2)]
