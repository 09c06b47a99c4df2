"""Converts points in crop pixels to landmarks in [-1, 1], and fits their PCA model.

Landmarks are f32[...,136]: x0, y0, x1, y1, ... of the 68 points (L in clip.py).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from input_pipeline.clip import (
    CROP_SIZE,
    LOWER_RIM,
    NUM_POINTS,
    UPPER_RIM,
    InputError,
    Pca,
)

OPENED = slice(96, 136)  # the mouth's coordinates; see normalise_like_authors
OPENING = -0.06


def normalise(
    points_px: Float[np.ndarray, "*batch 68 2"],
) -> Float32[np.ndarray, "*batch 136"]:
    """Pixels of the aligned crop -> landmarks: p = (p_px + 1/2) * 2 / 128 - 1.

    Pixel centres lie at whole numbers, so the crop's outer edges -1/2 and 127.5 become
    -1 and 1.  A point outside the crop leaves [-1, 1]; nothing is clipped.
    """
    landmarks = (points_px + 0.5) * (2 / CROP_SIZE) - 1
    return landmarks.reshape(*points_px.shape[:-2], 2 * NUM_POINTS).astype(np.float32)


def to_pixels(
    landmarks: Float[np.ndarray, "*batch 136"],
) -> Float32[np.ndarray, "*batch 68 2"]:
    """The inverse of `normalise`: landmarks -> pixels of the aligned crop."""
    points = landmarks.reshape(*landmarks.shape[:-1], NUM_POINTS, 2)
    return ((points + 1) * (CROP_SIZE / 2) - 0.5).astype(np.float32)


def as_points(
    landmarks: Float[np.ndarray, "*batch 136"],
) -> Float[np.ndarray, "*batch 68 2"]:
    """Landmarks x0, y0, x1, y1, ... -> points (x, y), in the same unit."""
    return landmarks.reshape(*landmarks.shape[:-1], NUM_POINTS, 2)


def opening(points: Float[np.ndarray, "T 68 2"]) -> Float[np.ndarray, "T"]:
    """How far the mouth is open: mean height between the inner lips, points' unit."""
    return (points[:, LOWER_RIM, 1] - points[:, UPPER_RIM, 1]).mean(axis=1)


class Moments(NamedTuple):
    """What a PCA model needs to know of landmarks; those of several sets can be joined.

    count: how many there are.  mean: f64[L].  scatter: f64[L,L], the sum of
    (p - mean)(p - mean)^T.
    """

    count: int
    mean: Float64[np.ndarray, "136"]
    scatter: Float64[np.ndarray, "136 136"]

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets together."""
        count = self.count + other.count
        if not count:
            return self
        share = other.count / count
        apart = other.mean - self.mean
        between = self.count * share * np.outer(apart, apart)
        return Moments(
            count, self.mean + share * apart, self.scatter + other.scatter + between
        )


def moments(batches: Iterable[Float[np.ndarray, "_ 136"]]) -> Moments:
    """The moments of batches of landmarks, which need not fit into memory.

    InputError: landmarks are not finite.
    """
    size = 2 * NUM_POINTS
    count, total, scatter = 0, np.zeros(size), np.zeros((size, size))
    shift = None  # sums relative to one of the landmarks lose less precision
    for batch in batches:
        if not np.isfinite(batch).all():
            rows = np.flatnonzero(~np.isfinite(batch).all(axis=1))
            raise InputError(
                f"landmarks {count + rows[0]}: not finite; leave out lost faces"
            )
        if shift is None and len(batch):
            shift = batch[0].astype(np.float64)
        centred = batch.astype(np.float64) - shift if len(batch) else batch
        count += len(batch)
        total += centred.sum(axis=0)
        scatter += centred.T @ centred
    if not count:
        return Moments(0, total, scatter)
    mean = total / count
    return Moments(count, shift + mean, scatter - count * np.outer(mean, mean))


def checked_pca(mean: np.ndarray, components: np.ndarray) -> Pca:
    """A PCA that was read from a file.  ValueError: it is none of landmarks."""
    size = 2 * NUM_POINTS
    most = components.shape[1] if components.ndim == 2 else size
    check_array("mean", mean, (size,))
    check_array("components", components, (size, min(max(most, 1), size)))
    return Pca(mean, components)


def checked_moments(count: np.ndarray, mean: np.ndarray, scatter: np.ndarray):
    """Moments that were read from a file.  ValueError: they are none of landmarks."""
    size = 2 * NUM_POINTS
    if count.shape or count.dtype.kind not in "iu" or count < 0:
        raise ValueError(f"a count of {count}, not a whole number from 0 on")
    check_array("mean", mean, (size,))
    check_array("scatter", scatter, (size, size))
    return Moments(int(count), mean, scatter)


def check_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """ValueError: it has another shape, or not all are finite numbers."""
    if array.shape != shape:
        raise ValueError(f"{name} of {array.shape}, not of {shape}")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError(f"{name}: not all are finite numbers")


def fit_pca(
    landmarks: Moments | Iterable[Float[np.ndarray, "_ 136"]], num_coefficients: int
) -> tuple[Pca, Float64[np.ndarray, "136"]]:
    """Fits the PCA model to landmarks, given as their moments or in batches.

    Returns the model (f32; each component's largest entry is positive, so that fits
    can be compared) and the variance along each of the 136 directions, largest first:
    the coefficients' standard deviations are sqrt(variance[:K]), and
    variance[:K].sum() / variance.sum() is the share of the variance they explain.
    InputError: landmarks are not finite, or too few for so many coefficients.
    """
    known = landmarks if isinstance(landmarks, Moments) else moments(landmarks)
    count, size = known.count, 2 * NUM_POINTS
    if not 1 <= num_coefficients <= min(size, count - 1):
        raise InputError(
            f"num_coefficients={num_coefficients} of {count} landmarks: "
            f"must be 1..{max(min(size, count - 1), 0)}; give more clips"
        )
    variance, directions = np.linalg.eigh(known.scatter / (count - 1))
    variance, directions = np.maximum(variance[::-1], 0), directions[:, ::-1]
    components = directions[:, :num_coefficients]
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, range(num_coefficients)])
    model = Pca(known.mean.astype(np.float32), components.astype(np.float32))
    return model, variance


def normalise_like_authors(
    points: Float[np.ndarray, "N 68 2"],
    mean_shape_img: Float[np.ndarray, "68 2"],
    mean_shape_norm: Float[np.ndarray, "1 136"],
    S: Float[np.ndarray, "_ 136"],
) -> Float64[np.ndarray, "N 68 2"]:
    """The authors' normLmarks (docs/reference.md, section 3.4), for their networks.

    With q_i the Procrustes fit of shape i and q_ref that of the mean shape:
    a_i = S (q_i - q_ref);  result_i = (a_i - a_N - S d) S + mean_shape_norm.
    Because a_N, of the last shape, is subtracted, the last or only shape always maps to
    the same constant, whatever it was: a photo's own landmarks are lost.
    """
    from scipy.spatial import procrustes

    fits = [procrustes(mean_shape_img, shape)[:2] for shape in points]
    fitted = np.array([fit.ravel() for _, fit in fits])
    basis = S.astype(np.float64)
    coefficients = (fitted - fits[0][0].ravel()) @ basis.T
    opened = np.zeros(2 * NUM_POINTS)
    opened[OPENED] = OPENING * basis[1, OPENED]
    coefficients = coefficients - coefficients[-1] - basis @ opened
    return (coefficients @ basis + mean_shape_norm).reshape(-1, NUM_POINTS, 2)
