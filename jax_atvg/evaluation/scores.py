"""The scores of one clip that are computed in numpy and with dlib, on the host.

The other scores are computed on a device: PSNR and SSIM (pixels.py), and identity
(identity.py), for which faces are cut out here.  This file does not import jax, so that
processes which only compute such scores start fast and take no accelerator.

Letters: T frames.  Frames are 128x128 crops, u8[T,128,128,3]; points are f[T,68,2],
pixels of the crop.  An undefined score, such as the correlation with lips that never
move, is NaN.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.clip import CLOSED_LIPS, CROP_SIZE, MOUTH
from input_pipeline.faces import detection
from input_pipeline.faces.landmarks import opening
from input_pipeline.faces.recognition import face_chip
from jax_atvg.evaluation.confidence import LAGS
from jax_atvg.evaluation.metrics import PROTOCOLS, Frames, Points, luma

SAMPLE_EVERY = 5  # CPBD and identity are those of every fifth frame
MARGIN = 6  # pixels around the mouth's points
LEAST_OVERLAP = 3  # frames that a correlation needs
TRUE = PROTOCOLS["true"]

Scores = dict[str, float]
Chips = UInt8[np.ndarray, "N 150 150 3"]


class Case(NamedTuple):
    """A clip and what was generated for it, without its first frame but as the photo.

    photo: u8[128,128,3].  real, truth: the frames and their true points.  points:
    {mode: points}, of AT-net and its baselines.  fakes: {mode: frames}; {}: no scores
    of frames.  protocol: "atvg-compat" adds the authors' definitions.
    """

    photo: UInt8[np.ndarray, "H W 3"]
    real: Frames
    truth: Points
    points: dict[str, Points]
    fakes: dict[str, Frames]
    protocol: str = "true"


def host_scores(case: Case) -> tuple[dict[str, Scores], dict[str, Chips]]:
    """({mode: scores}, {mode: faces of every fifth frame}).

    With frames there are the further modes static and real, and the photo's face.
    """
    table = {name: point_scores(case.truth, p) for name, p in case.points.items()}
    if not case.fakes:
        return to_static(table), {}
    box = detection.box_of(case.truth.mean(axis=0))
    photo, real = seen(case.photo[None], box), seen(case.real, box)
    fakes = {name: seen(frames, box) for name, frames in case.fakes.items()}
    fakes["static"] = repeated(photo, len(case.real))
    table |= {name: frame_scores(case, real, fake) for name, fake in fakes.items()}
    everyone = {"photo": photo, "real": real, **fakes}
    chips = {name: one.chips for name, one in everyone.items()}
    return to_static(table) | {"real": own_scores(case, real)}, chips


def to_static(table: dict[str, Scores]) -> dict[str, Scores]:
    """Adds lmd_to_static, the mouth's error divided by that of the repeated photo."""
    for name, scores in table.items():
        doing_nothing = table["at_static" if name.startswith("at") else "static"]
        scores["lmd_to_static"] = scores["lmd"] / max(doing_nothing["lmd"], 1e-9)
    return table


# --- points ---


def point_scores(real: Points, fake: Points, truth: Points | None = None) -> Scores:
    """How well points follow the true ones.

    lmd, f_lmd: of the mouth and of the face, pixels per point.  r: correlation of the
    inner lips' opening; r_lag_+k: that of fake frame t + k with real frame t, so that a
    peak at +2 means 80 ms late.  velocity_error: of the mouth, pixels per frame.
    jitter_ratio: mean acceleration of the fake points over that of the real ones; above
    1 they tremble.  closing: see there; truth: the true points, `real` if not given.
    """
    a, b = opening(real), opening(fake)
    return {
        "lmd": float(TRUE.points["lmd"](real, fake).mean()),
        "f_lmd": float(TRUE.points["f_lmd"](real, fake).mean()),
        "r": correlation(a, b),
        "velocity_error": velocity_error(real, fake),
        "jitter_ratio": jitter(fake) / max(jitter(real), 1e-9),
        "closing": closing(real, fake, real if truth is None else truth),
    } | {f"r_lag_{k:+d}": lagged_correlation(a, b, k) for k in LAGS}


def correlation(a: Float[np.ndarray, "T"], b: Float[np.ndarray, "T"]) -> float:
    """Pearson's r; NaN where one of them does not move."""
    a, b = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (a, b))
    size = np.sqrt((a * a).sum() * (b * b).sum())
    if len(a) < LEAST_OVERLAP or min(np.abs(a).max(), np.abs(b).max()) < 1e-4:
        return np.nan
    return float((a * b).sum() / size)


def lagged_correlation(
    a: Float[np.ndarray, "T"], b: Float[np.ndarray, "T"], lag: int
) -> float:
    """The correlation of a[t] with b[t + lag], over the frames that both have."""
    count = len(a) - abs(lag)
    if count < LEAST_OVERLAP:
        return np.nan
    return correlation(a[max(-lag, 0) :][:count], b[max(lag, 0) :][:count])


def velocity_error(real: Points, fake: Points) -> float:
    """Mean |(p_t - p_{t-1}) - (p'_t - p'_{t-1})| over the mouth's points."""
    steps = np.diff(real[:, MOUTH].astype(np.float64) - fake[:, MOUTH], axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean())


def closing(real: Points, fake: Points, truth: Points) -> float:
    """How much further open fake lips are than real ones, px, where lips are closed:
    the mean over the frames in which the true points are; NaN if there are none."""
    closed = opening(truth) < CLOSED_LIPS
    if not closed.any():
        return np.nan
    return float((opening(fake) - opening(real))[closed].mean())


def jitter(points: Points) -> float:
    """Mean |p_{t+1} - 2 p_t + p_{t-1}|, px: how much the points tremble."""
    second = np.diff(points.astype(np.float64), 2, axis=0)
    return float(np.linalg.norm(second, axis=-1).mean())


# --- frames ---


class Seen(NamedTuple):
    """Frames, and dlib's points on them.  sample, chips: every fifth frame, and the
    face in it as the embedding wants it."""

    frames: Frames
    points: Points
    sample: Frames
    chips: Chips


def seen(frames: Frames, box: detection.Box) -> Seen:
    """Looks for points in the same box of all frames."""
    points = np.stack([detection.find_points(frame, box) for frame in frames])
    sample = frames[::SAMPLE_EVERY]
    faces = zip(sample, points[::SAMPLE_EVERY], strict=True)
    chips = np.stack([face_chip(frame, face) for frame, face in faces])
    return Seen(frames, points, sample, chips)


def repeated(one: Seen, count: int) -> Seen:
    """A single frame, repeated; its sample remains one frame."""
    frames, points = (
        np.broadcast_to(x, (count, *x.shape[1:])) for x in (one.frames, one.points)
    )
    return one._replace(frames=frames, points=points)


def own_scores(case: Case, real: Seen) -> Scores:
    """Scores of the real frames themselves, with dlib's points against the true ones:
    the error of the detector, which limits all scores of points."""
    return {
        **point_scores(case.truth, real.points),
        "cpbd": float(TRUE.sharpness["cpbd"](real.sample).mean()),
        "mouth_sharpness": 1.0,
        "checkerboard": 1.0,
        "flicker": 1.0,
        "mouth_flicker": 1.0,
    }


def frame_scores(case: Case, real: Seen, fake: Seen) -> Scores:
    """The scores of generated frames; the protocol's are called "compat/..."."""
    rows, columns = mouth_box(case.truth)
    lips, fake_lips = (x.frames[:, rows, columns] for x in (real, fake))
    scores = {
        **{name: float(f(fake.sample).mean()) for name, f in TRUE.sharpness.items()},
        "mouth_sharpness": sharpness(fake_lips) / max(sharpness(lips), 1e-9),
        "checkerboard": checkerboard(fake_lips) / max(checkerboard(lips), 1e-9),
        "flicker": flicker(fake.frames) / max(flicker(real.frames), 1e-9),
        "mouth_flicker": flicker(fake_lips) / max(flicker(lips), 1e-9),
        **point_scores(real.points, fake.points, case.truth),
    }
    if case.protocol != "true":
        theirs = PROTOCOLS[case.protocol]
        found = {k: f(real.frames, fake.frames) for k, f in theirs.frames.items()}
        found |= {k: f(real.points, fake.points) for k, f in theirs.points.items()}
        found |= {k: f(fake.sample) for k, f in theirs.sharpness.items()}
        scores |= {f"compat/{k}": float(x.mean()) for k, x in found.items()}
    return scores


def mouth_box(points: Points) -> tuple[slice, slice]:
    """(rows, columns) of the crop that hold the mouth in all frames, with a margin."""
    low = points[:, MOUTH].min(axis=(0, 1)) - MARGIN
    high = points[:, MOUTH].max(axis=(0, 1)) + MARGIN
    low = np.clip(np.floor(low), 0, CROP_SIZE - 2 * MARGIN).astype(int)
    high = np.clip(np.ceil(high) + 1, low + 2 * MARGIN, CROP_SIZE).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def sharpness(frames: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Gradient energy of the luma: mean of dx^2 + dy^2."""
    grays = lumas(frames)
    return float(sum(np.square(g) for g in np.gradient(grays, axis=(1, 2))).mean())


def checkerboard(frames: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Root mean square of the luma under the filter [[1, -1], [-1, 1]], which answers
    to patterns that alternate from pixel to pixel both ways."""
    crosswise = np.diff(np.diff(lumas(frames), axis=1), axis=2)
    return float(np.sqrt(np.square(crosswise).mean()))


def flicker(frames: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Mean |y_{t+1} - 2 y_t + y_{t-1}| of the luma y, 0..255: how much it changes from
    frame to frame otherwise than steadily."""
    return float(np.abs(np.diff(lumas(frames), 2, axis=0)).mean())


def lumas(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W"]:
    return np.stack([luma(frame) for frame in frames]).astype(np.float64)
