"""All scores of one clip: its generated frames and points against the real ones.

Letters: T frames.  Frames are 128x128 crops, u8[T,128,128,3]; points are f[T,68,2],
pixels of the crop.  An undefined score, such as the correlation with lips that never
move, is NaN.
"""

import functools
import importlib.util
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.clip import CLOSED_LIPS, CROP_SIZE, MOUTH, InputError
from input_pipeline.faces import detection
from input_pipeline.faces.landmarks import opening
from jax_atvg.evaluation.confidence import LAGS
from jax_atvg.evaluation.metrics import (
    PROTOCOLS,
    Frames,
    Points,
    Protocol,
    luma,
)

IDENTITY_EVERY = 5  # frames between two that are compared with the photo
MARGIN = 6  # pixels around the mouth's points
LEAST_OVERLAP = 3  # frames that a correlation needs
EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"
TRUE = PROTOCOLS["true"]

Scores = dict[str, float]


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


class Face:
    """The real side of a comparison: a clip's real frames, and dlib's points on them.

    photo: the clip's first frame.  frames, points: the others, and their true points,
    which give the one box in which dlib looks for points in all frames.
    """

    def __init__(
        self, photo: UInt8[np.ndarray, "H W 3"], frames: Frames, points: Points
    ):
        self.photo, self.frames, self.points = photo, frames, points
        self.box = detection.box_of(points.mean(axis=0))
        self.mouth = mouth_box(points)
        self.found = self.find(frames)
        self.identity = embedding(
            photo, detection.find_points(photo, self.box), self.box
        )

    def find(self, frames: Frames) -> Points:
        """dlib's points of the face in the clip's box."""
        return np.stack([detection.find_points(frame, self.box) for frame in frames])

    def likeness(self, frames: Frames, found: Points) -> float:
        """CSIM-dlib: mean cosine between the photo's embedding and every fifth frame's.

        dlib's embeddings of different people are far from orthogonal: only differences
        between such scores mean something.
        """
        which = range(0, len(frames), IDENTITY_EVERY)
        whose = [embedding(frames[t], found[t], self.box) for t in which]
        return float(np.mean([cosine(self.identity, one) for one in whose]))

    def own_scores(self) -> Scores:
        """Scores of the real frames themselves, with dlib's points against the true
        ones: the error of the detector, which limits all scores of points."""
        return {
            **point_scores(self.points, self.found),
            "cpbd": float(TRUE.sharpness["cpbd"](self.frames).mean()),
            "mouth_sharpness": 1.0,
            "checkerboard": 1.0,
            "csim_dlib": self.likeness(self.frames, self.found),
        }


def frame_scores(face: Face, fake: Frames, protocol: Protocol | None = None) -> Scores:
    """All scores of generated frames.

    protocol: its metrics are added under the names "compat/...".
    """
    real, found = face.frames, face.find(fake)
    lips, fake_lips = (x[:, face.mouth[0], face.mouth[1]] for x in (real, fake))
    scores = {
        **{name: float(f(real, fake).mean()) for name, f in TRUE.frames.items()},
        **{name: float(f(fake).mean()) for name, f in TRUE.sharpness.items()},
        **{
            f"mouth_{k}": float(f(lips, fake_lips).mean())
            for k, f in TRUE.frames.items()
        },
        "mouth_sharpness": sharpness(fake_lips) / max(sharpness(lips), 1e-9),
        "checkerboard": checkerboard(fake_lips) / max(checkerboard(lips), 1e-9),
        **point_scores(face.found, found, face.points),
        "csim_dlib": face.likeness(fake, found),
    }
    if protocol is not None:
        theirs = {k: f(real, fake) for k, f in protocol.frames.items()}
        theirs |= {k: f(face.found, found) for k, f in protocol.points.items()}
        theirs |= {k: f(fake) for k, f in protocol.sharpness.items()}
        scores |= {f"compat/{k}": float(x.mean()) for k, x in theirs.items()}
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


def lumas(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W"]:
    return np.stack([luma(frame) for frame in frames]).astype(np.float64)


# --- identity ---


def embedding(
    frame: UInt8[np.ndarray, "H W 3"],
    points: Float[np.ndarray, "68 2"],
    box: detection.Box,
) -> Float[np.ndarray, "128"]:
    """dlib's embedding of the face that has these points."""
    import dlib

    parts = [dlib.point(round(float(x)), round(float(y))) for x, y in points]
    shape = dlib.full_object_detection(dlib.rectangle(*box), parts)
    frame = np.ascontiguousarray(frame)
    return np.array(_network().compute_face_descriptor(frame, shape))


@functools.cache
def _network():
    import dlib

    return dlib.face_recognition_model_v1(str(model_path()))


def model_path() -> pathlib.Path:
    """The file of dlib's embedding network.

    InputError: the package face_recognition_models is not installed.
    """
    # The package is located but not imported: it needs pkg_resources, which newer
    # versions of setuptools do not have.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None:
        raise InputError(
            "the face embedding is missing; pip install face-recognition-models"
        )
    return pathlib.Path(spec.submodule_search_locations[0]) / "models" / EMBEDDING


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
