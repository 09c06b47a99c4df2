"""Cuts the aligned 128x128 crop of a face out of a picture.

The 68 points of the face determine a similarity (rotation, scale and shift): a matrix
M, f64[2,3], from crop pixels to picture pixels, picture = M[:, :2] @ crop + M[:, 2].
Pixels are (x, y), their centres at whole numbers.  There is one resampling from the
full picture to the crop and one back (pasting.py).
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Real, UInt8

from input_pipeline.clip import CROP_SIZE, NOSE, NUM_POINTS, InputError

# Points that speech hardly moves: nose and eye corners.
STABLE = (*range(NOSE.start, NOSE.stop), 36, 39, 42, 45)
MAX_SUPERSAMPLING = 32  # 128 x 32: a crop is cut from at most 4096 x 4096 samples


class Template(NamedTuple):
    """Where alignment puts some points of a face in the crop.

    points: f64[n,2], crop pixels.  indices: which of the 68 points these are.
    """

    points: Float64[np.ndarray, "n 2"]
    indices: tuple[int, ...]


# The mean face of 344 frames of 43 GRID training clips (speakers s1 s2 s5 s11 s26 s31,
# weighted equally; dlib's points; generalised Procrustes mean of the frames and their
# mirror images), its jaw scaled to a width of 92 pixels and its chin (point 8) put at
# (63.5, 106).  The points of those frames, aligned to it, span x 8..119, y 4..121: an
# open jaw stays inside, whereas the authors' template has the chin on the crop's edge.
# In order: nose downwards, nostrils left to right, eye corners left to right.
_X = [63.5, 63.5, 63.5, 63.5, 53.9, 58.5, 63.5, 68.5, 73.1, 35.2, 51.8, 75.2, 91.8]
_Y = [22.9, 31.0, 38.9, 47.1, 54.8, 56.4, 57.7, 56.4, 54.8, 25.6, 26.3, 26.3, 25.6]
DEFAULT_TEMPLATE = Template(np.column_stack([_X, _Y]), STABLE)


def authors_template(base_68: Real[np.ndarray, "68 2"]) -> Template:
    """The authors' template, points 27..44, in crop pixels.

    Their crop is rows and columns 1..128 of the warped picture, hence the one pixel
    less (docs/reference.md, section 3.3).
    """
    indices = tuple(range(27, 45))
    return Template(base_68[list(indices)].astype(np.float64) - 1, indices)


def template_as_json(template: Template) -> dict:
    """A template as plain values, which are equal for equal templates."""
    points = np.round(template.points, 6).tolist()
    return {"points": points, "indices": list(template.indices)}


def indices_of(found: Any) -> tuple[int, ...]:
    """A template's indices, as JSON has them.  ValueError: they are not distinct points
    of a face."""
    indices = tuple(found)
    whole = all(type(i) is int and 0 <= i < NUM_POINTS for i in indices)
    if not whole or len(set(indices)) < len(indices):
        raise ValueError(f"template of points {found}: must be distinct, in 0..67")
    return indices


def similarity(
    source: Float[np.ndarray, "*batch n 2"], target: Float[np.ndarray, "*#batch n 2"]
) -> Float64[np.ndarray, "*batch 2 3"]:
    """The least-squares rotation, scale and shift that take source to target.

    In complex numbers: target = a source + b, a = <source, target> / <source, source>
    of the centred points.  There is no reflection.  Equals Umeyama's solution.
    InputError: all source points coincide.
    """
    source, target = np.broadcast_arrays(source, target)
    z = source[..., 0] + 1j * source[..., 1].astype(np.float64)
    w = target[..., 0] + 1j * target[..., 1].astype(np.float64)
    z_mean, w_mean = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    spread = np.square(np.abs(z - z_mean)).sum(-1)
    if not spread.all():
        raise InputError("similarity: all source points coincide; give two or more")
    a = ((z - z_mean).conj() * (w - w_mean)).sum(-1) / spread
    b = w_mean[..., 0] - a * z_mean[..., 0]
    rows = [a.real, -a.imag, b.real, a.imag, a.real, b.imag]
    return np.stack(rows, -1).reshape(*a.shape, 2, 3)


def transform(
    matrix: Float[np.ndarray, "*#batch 2 3"], points: Float[np.ndarray, "*#batch n 2"]
) -> Float64[np.ndarray, "*_ n 2"]:
    """Applies a similarity to points: crop pixels -> picture pixels."""
    linear, shift = matrix[..., :2], matrix[..., None, :, 2]
    return (points @ np.swapaxes(linear, -1, -2) + shift).astype(np.float64)


def invert(
    matrix: Float[np.ndarray, "*batch 2 3"],
) -> Float64[np.ndarray, "*batch 2 3"]:
    """The similarity's inverse: picture pixels -> crop pixels."""
    linear = np.linalg.inv(matrix[..., :2])
    shift = -linear @ matrix[..., 2:]
    return np.concatenate([linear, shift], -1).astype(np.float64)


def align(
    points_px: Float[np.ndarray, "*batch 68 2"], template: Template = DEFAULT_TEMPLATE
) -> Float64[np.ndarray, "*batch 2 3"]:
    """68 points in a picture -> the similarity from crop to picture pixels."""
    stable = points_px[..., list(template.indices), :]
    target = np.broadcast_to(template.points, stable.shape)
    return similarity(target, stable)


def rescale(
    matrix: Float[np.ndarray, "2 3"], factor: float
) -> Float64[np.ndarray, "2 3"]:
    """Changes the resolution of the crop from which an affine map leads.

    factor: the size of the new crop's pixels in pixels of the given one.  The centres
    of pixels have whole coordinates: u -> (u + 1/2) factor - 1/2 is applied first.
    """
    linear = matrix[:, :2] * factor
    shift = matrix[:, :2].sum(1) * (factor - 1) / 2 + matrix[:, 2]
    return np.column_stack([linear, shift]).astype(np.float64)


def smooth(
    matrices: Float[np.ndarray, "T 2 3"], sigma: float | int
) -> Float64[np.ndarray, "T 2 3"]:
    """Smooths similarities over time with a Gaussian of standard deviation `sigma`.

    sigma: frames.  The six entries of the matrices are smoothed one by one.  At every
    frame a straight line is fitted with the Gaussian's weights: within the clip this
    is the Gaussian mean, and at its ends it does not lag behind a steady movement.
    """
    if sigma <= 0 or len(matrices) < 3:
        return matrices.astype(np.float64)
    steps = np.arange(-np.ceil(4 * sigma), np.ceil(4 * sigma) + 1)
    weights = np.exp(-0.5 * np.square(steps / sigma))
    middle = slice(len(steps) // 2, len(steps) // 2 + len(matrices))

    def weigh(power: int, values: np.ndarray) -> np.ndarray:
        """sum_s w_s s^power x_(t+s), over the frames t+s that exist."""
        return np.convolve(values, (weights * steps**power)[::-1])[middle]

    ones = np.ones(len(matrices))
    s0, s1, s2 = (weigh(power, ones) for power in range(3))
    columns = matrices.reshape(-1, 6).T.astype(np.float64)
    fitted = [s2 * weigh(0, x) - s1 * weigh(1, x) for x in columns]
    return (np.array(fitted) / (s0 * s2 - s1**2)).T.reshape(-1, 2, 3)


def warp(
    image: UInt8[np.ndarray, "H W 3"],
    matrix: Float[np.ndarray, "2 3"],
    size: int = CROP_SIZE,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Cuts the crop at `matrix` out, antialiased; edge pixels are repeated outside."""
    import cv2

    return resample(image, matrix, (size, size), cv2.INTER_LINEAR)


def resample(
    image: Real[np.ndarray, "H W *channels"],
    matrix: Float[np.ndarray, "2 3"],
    size: tuple[int, int],
    interpolation: int,
) -> Real[np.ndarray, "h w *channels"]:
    """Pixel u of the result, size (w, h), is `image` at M u, averaged over the pixel.

    interpolation: OpenCV's.  Where the image shrinks, a grid k times as fine is sampled
    and averaged k by k: its sample i lies at (i + 1/2) / k - 1/2, since whole numbers
    are pixel centres.
    """
    import cv2

    k = int(np.ceil(np.hypot(matrix[0, 0], matrix[1, 0]) - 1e-6))
    k = min(max(k, 1), MAX_SUPERSAMPLING)
    fine = matrix.astype(np.float64)
    fine[:, 2] += fine[:, :2].sum(1) * (0.5 / k - 0.5)
    fine[:, :2] /= k
    samples = cv2.warpAffine(
        np.ascontiguousarray(image),
        fine,
        (size[0] * k, size[1] * k),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return (
        samples if k == 1 else cv2.resize(samples, size, interpolation=cv2.INTER_AREA)
    )
