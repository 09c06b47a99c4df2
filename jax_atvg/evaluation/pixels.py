"""PSNR and SSIM of generated frames, of the whole crop and of the mouth, with JAX.

They are metrics.psnr and metrics.ssim, computed on a device for all modes of a clip at
once.  A device returns sums, of which the host makes scores in float64:

    squared errors     sums of whole numbers below 2^32: exact, so that PSNR is as well
    S = (2 Sx Sy + C1) (2 Vxy + C2) / ((Sx^2 + Sy^2 + C1) (Vxx + Vyy + C2))

Sx, Sy are the sums of the two pictures over a window of 7x7 pixels and Vxy is 49 times
the sum of their products less Sx Sy (a covariance but for a factor), whole numbers
below 2^31 that are computed as such: no digits cancel.  C1 and C2 are scaled to match.
Only the quotient and the sum over a row are in float32.

Every clip has another mouth and another length, and none of them another program: maps
are of the whole crop, of which boxes are summed that are given as numbers, and frames
come FRAMES at a time.  SSIM of a box is over the windows that lie in it wholly.

Letters: M modes, T frames, N boxes; the window at row i covers the rows i..i+6.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8, UInt32

from input_pipeline.clip import CROP_SIZE
from jax_atvg.evaluation.metrics import Frames, decibels

FRAMES = 16  # a call of the compiled program
WINDOW = 7  # pixels, both sides
PIXELS = WINDOW**2
CHANNELS = 3
WHOLE = (slice(0, CROP_SIZE), slice(0, CROP_SIZE))

Box = tuple[slice, slice]  # rows, columns of the crop


class Sums(NamedTuple):
    """What a device computes, or computed, of the first `frames` frames of a clip.

    errors: u32[N,M,T].  similarity: f32[N,M,T,rows].  Both in parts of FRAMES frames.
    """

    modes: list[str]
    boxes: list[Box]
    frames: int
    parts: list[tuple[Array, Array]]


def begin(
    real: Frames,
    fakes: dict[str, Frames],
    mouth: Box,
    device: jax.Device | None = None,
) -> Sums:
    """Starts the computation and does not wait for it.

    fakes: frames by mode.  device: JAX's first unless given.
    """
    boxes, parts = [WHOLE, mouth], []
    bounds = np.array([[r.start, r.stop, c.start, c.stop] for r, c in boxes], np.int32)
    for start in range(0, len(real), FRAMES):
        rows = np.minimum(np.arange(start, start + FRAMES), len(real) - 1)
        stacked = np.stack([frames[rows] for frames in fakes.values()])
        arrays = jax.device_put((real[rows], stacked, bounds), device)
        parts.append(sums(*arrays))
    return Sums(list(fakes), boxes, len(real), parts)


def finish(begun: Sums) -> dict[str, dict[str, float]]:
    """{mode: {"psnr": dB, "ssim", and those of the mouth under "mouth_..."}}, means
    over the frames; waits for the device."""
    parts = zip(*jax.device_get(begun.parts), strict=True)
    errors, similarity = (np.concatenate(part, axis=2) for part in parts)
    table = {mode: {} for mode in begun.modes}
    for n, (box, prefix) in enumerate(zip(begun.boxes, ("", "mouth_"), strict=True)):
        height, width = (side.stop - side.start for side in box)
        windows = (height - WINDOW + 1) * (width - WINDOW + 1) * CHANNELS
        mse = errors[n, :, : begun.frames] / (height * width * CHANNELS)
        ssim = similarity[n, :, : begun.frames].sum(-1, dtype=np.float64) / windows
        for scores, mses, ssims in zip(table.values(), mse, ssim, strict=True):
            scores[f"{prefix}psnr"] = float(np.mean([decibels(x) for x in mses]))
            scores[f"{prefix}ssim"] = float(ssims.mean())
    return table


@jax.jit
def sums(
    real: UInt8[Array, "T 128 128 3"],
    fakes: UInt8[Array, "M T 128 128 3"],
    boxes: Int32[Array, "N 4"],
) -> tuple[UInt32[Array, "N M T"], Float32[Array, "N M T 122"]]:
    """The sums of the squared errors over each box, and of the similarity over each row
    of its windows.  boxes: first row, row after the last, and the same of columns."""
    x, y = flat(real), flat(fakes)
    errors, similarity = jnp.square(x - y).astype(jnp.uint32), similarity_map(x, y)
    pixels = jax.vmap(functools.partial(inside, side=CROP_SIZE))(boxes)
    inner = boxes - jnp.array([0, WINDOW - 1, 0, WINDOW - 1])
    windows = jax.vmap(functools.partial(inside, side=CROP_SIZE - WINDOW + 1))(inner)
    masked = jax.vmap(lambda values, mask: jnp.where(mask, values, 0), (None, 0))
    return (
        masked(errors, pixels).sum((-2, -1), dtype=jnp.uint32),
        masked(similarity, windows).sum(-1),
    )


def flat(frames: UInt8[Array, "*shape 128 128 3"]) -> Int32[Array, "*shape 128 384"]:
    """The channels beside each other, for wide vectors; a pixel is 3 columns."""
    return frames.reshape(*frames.shape[:-2], -1).astype(jnp.int32)


def inside(box: Int32[Array, "4"], side: int) -> Bool[Array, "{side} 3*{side}"]:
    """Where the rows and columns of a flat picture lie in the box."""
    top, bottom, left, right = box
    rows, columns = jnp.arange(side), jnp.repeat(jnp.arange(side), CHANNELS)
    rows, columns = rows[:, None], columns[None]
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


def similarity_map(
    x: Int32[Array, "T 128 384"], y: Int32[Array, "M T 128 384"]
) -> Float32[Array, "M T 122 366"]:
    """SSIM at every window (see above)."""
    sx, sy = window_sums(x), window_sums(y)
    vxx = PIXELS * window_sums(x * x) - sx * sx
    vyy = PIXELS * window_sums(y * y) - sy * sy
    vxy = PIXELS * window_sums(x * y) - sx * sy
    c1 = (0.01 * 255 * PIXELS) ** 2
    c2 = (0.03 * 255) ** 2 * PIXELS * (PIXELS - 1)

    def plus(number: Array, constant: float) -> Array:
        return number.astype(jnp.float32) + constant

    luminance = plus(2 * sx * sy, c1) / plus(sx * sx + sy * sy, c1)
    return luminance * (plus(2 * vxy, c2) / plus(vxx + vyy, c2))


def window_sums(x: Int32[Array, "*shape 128 384"]) -> Int32[Array, "*shape 122 366"]:
    """Sums over 7x7 pixels of the same channel."""
    ones, rows, columns = (1,) * (x.ndim - 2), (WINDOW, 1), (1, WINDOW)
    zero, step = np.int32(0), (*ones, 1, 1)
    x = lax.reduce_window(x, zero, lax.add, (*ones, *rows), step, "VALID")
    return lax.reduce_window(
        *(x, zero, lax.add, (*ones, *columns), step, "VALID"),
        window_dilation=(*ones, 1, CHANNELS),
    )
