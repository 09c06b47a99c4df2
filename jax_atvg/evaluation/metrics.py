"""Metrics that compare generated frames with real ones, frame by frame, in numpy.

    PSNR, SSIM   how close the pixels are         real frames, fake frames -> f64[T]
    LMD, F-LMD   how close the lips, the face     real points, fake points -> f64[T]
    CPBD         how sharp the picture is         frames                   -> f64[T]

The plain functions give the true values.  The evaluation computes PSNR and SSIM on a
device (pixels.py); the functions here are what that is held to.
`PROTOCOLS["atvg-compat"]` computes what the authors' evaluator computes, its uint8
overflow included, for comparison with numbers made by it (docs/reference.md, section
4); never compare such numbers with true ones.

Letters: T frames, H x W pixels.  Frames are u8[T,H,W,3], RGB, 0..255; points are
f[T,68,2], (x, y) in pixels, NaN in a frame where no face was found.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, UInt8

from input_pipeline.clip import MOUTH, InputError

Frames = UInt8[np.ndarray, "T H W 3"]
Points = Float[np.ndarray, "T 68 2"]
Scores = Float64[np.ndarray, "T"]

IDENTICAL_DB = 100.0  # the PSNR of identical frames, so that means stay finite

COMPAT_SIZE = 256  # pixels: the authors' evaluator resizes before SSIM and PSNR

CPBD_BLOCK = 64  # pixels, both sides
CPBD_MAX_STEPS = 101  # of a scan along one side of an edge
CPBD_MIN_EDGE_SHARE = 0.002  # a block with fewer Canny pixels is smooth and left out
CPBD_BETA = 3.6
CPBD_JUST_NOTICEABLE = 62  # per cent: detection probability at the noticeable width


# --- pixels: PSNR and SSIM ---


def psnr(real: Frames, fake: Frames) -> Scores:
    """20 log10(255 / sqrt(mse)) in dB, mse over the three channels of each frame.

    Identical frames score 100, which nothing else reaches in frames up to 128 x 128.
    """
    pairs = zip(real, fake, strict=True)
    return np.array([decibels(_squared_error(r, f).mean()) for r, f in pairs])


def ssim(real: Frames, fake: Frames) -> Scores:
    """Structural similarity in [-1,1], Wang et al. 2004; mean over the three channels.

    7x7 uniform window (so H, W >= 7), K1 = .01, K2 = .03, sample covariance, borders of
    3 pixels left out: skimage's defaults, which the authors' evaluator uses as well.
    """
    from skimage.metrics import structural_similarity

    return np.array(
        [
            structural_similarity(r, f, channel_axis=-1, data_range=255)
            for r, f in zip(real, fake, strict=True)
        ],
        dtype=np.float64,
    )


def compat_ssim(real: Frames, fake: Frames) -> Scores:
    """`ssim` of the frames resized to 256 x 256, as in the authors' evaluator."""
    return ssim(_resize(real), _resize(fake))


def compat_psnr(real: Frames, fake: Frames) -> Scores:
    """The authors' PSNR: 256 x 256, gray, with an error that wraps in uint8.

    mse = mean(((fake - real) mod 256)^2 mod 256): no frame is ever off by more than
    sqrt(255), so two unrelated faces score about 28 dB.  Identical frames score 100.
    """
    pairs = zip(_gray(_resize(real)), _gray(_resize(fake)), strict=True)
    return np.array([decibels(np.square(f - r).mean()) for r, f in pairs])


def compat_psnr_gray(real: Frames, fake: Frames) -> Scores:
    """`compat_psnr` without the overflow: 256 x 256, gray, in real numbers."""
    pairs = zip(_gray(_resize(real)), _gray(_resize(fake)), strict=True)
    return np.array([decibels(_squared_error(r, f).mean()) for r, f in pairs])


def _squared_error(real, fake):
    return np.square(real.astype(np.float64) - fake)


def decibels(mse: float) -> float:
    """The PSNR that belongs to a mean squared error of grey levels 0..255."""
    if mse == 0:
        return IDENTICAL_DB
    return min(20 * np.log10(255 / np.sqrt(mse)), IDENTICAL_DB)


def _resize(frames):
    """u8[T,H,W,3] -> u8[T,256,256,3], by area."""
    import cv2

    size = (COMPAT_SIZE, COMPAT_SIZE)
    return np.array([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def _gray(frames):
    """u8[T,H,W,3] -> u8[T,H,W], OpenCV's 0.299 R + 0.587 G + 0.114 B."""
    import cv2

    return np.array([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames])


# --- points: LMD ---


def lmd(real: Points, fake: Points, region: slice = MOUTH) -> Scores:
    """Landmark distance of the mouth in pixels per point; CVPR 2019, section 4.

    mean_i |(p_i - mean(p)) - (p'_i - mean(p'))| over the points of `region`: each
    frame's own centre is taken off, so that moving the head costs nothing.  A frame
    without points in either video is NaN: average with `np.nanmean`.
    """
    return _point_distances(real, fake, region).mean(axis=1)


def f_lmd(real: Points, fake: Points) -> Scores:
    """`lmd` of the whole face: all 68 points, less the mean of them all."""
    return lmd(real, fake, slice(None))


def compat_lmd(real: Points, fake: Points) -> Scores:
    """The authors' LMD: the *sum* over the 20 mouth points, 20 times `lmd`."""
    return _point_distances(real, fake, MOUTH).sum(axis=1)


def _point_distances(real, fake, region):
    """f[T,68,2] x 2 -> f64[T,N], for the N points of `region`."""

    def centred(points):
        points = points[:, region].astype(np.float64)
        return points - points.mean(axis=1, keepdims=True)

    return np.linalg.norm(centred(real) - centred(fake), axis=-1)


# --- sharpness: CPBD ---


def cpbd(frames: Frames) -> Scores:
    """Cumulative probability of blur detection in [0,1]; 1 is sharp.

    Narvekar and Karam 2011, in the form of the authors' evaluator (docs/reference.md,
    section 4).  It is computed over blocks of 64 x 64 pixels: a frame smaller than that
    scores 0, as does a frame without edges.
    """
    from skimage.feature import canny

    def score(frame):
        y = luma(frame)
        # Thresholds on 0..255: nearly every maximum of the gradient counts.
        thresholds = {"low_threshold": 0.1, "high_threshold": 0.2}
        return cpbd_of_luma(y, canny(y.astype(np.float32), sigma=1, **thresholds))

    return np.array([score(frame) for frame in frames], dtype=np.float64)


def luma(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """0.299 R + 0.587 G + 0.114 B, rounded in fixed point as PIL's mode "L" does."""
    weighted = frame.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def cpbd_of_luma(y: UInt8[np.ndarray, "H W"], edges: Bool[np.ndarray, "H W"]) -> float:
    """CPBD of one picture; `edges` decide which blocks of 64 x 64 pixels count.

    P = 1 - exp(-(w / w_jnb)^3.6) at every edge of width w in a block with enough edges;
    the just noticeable width w_jnb is 5 pixels in a block of low contrast, else 3.
    CPBD is the share of the edges with P <= 62 %.
    """
    rows, columns = (n // CPBD_BLOCK for n in y.shape)
    whole = np.s_[: rows * CPBD_BLOCK, : columns * CPBD_BLOCK]

    def blocks(image):
        tiles = image[whole].reshape(rows, CPBD_BLOCK, columns, CPBD_BLOCK)
        return tiles.swapaxes(1, 2).reshape(-1, CPBD_BLOCK**2)  # (block, pixel)

    pixels, widths = blocks(y), blocks(edge_widths(y))
    contrast = np.ptp(pixels, axis=1)
    busy = blocks(edges).mean(axis=1) > CPBD_MIN_EDGE_SHARE
    noticeable = np.where(contrast <= 50, 5, 3)[:, None]

    blur = 1 - np.exp(-((widths / noticeable) ** CPBD_BETA))
    unnoticed = np.round(100 * blur) <= CPBD_JUST_NOTICEABLE
    counted = (widths > 0) & busy[:, None]
    return float(unnoticed[counted].mean()) if counted.any() else 0.0


def edge_widths(y: UInt8[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Width in pixels of the edge at each pixel, measured along its row; 0: no edge.

    An edge is where the horizontal Sobel sum exceeds 16 grey levels and the gradient,
    rounded to 45 degrees, points right (0, as does one without a horizontal part) or
    left (180); never on the border.  From either neighbour of the pixel we step away
    from it for as long as the picture goes on rising (or falling).  The width is the
    number of steps on both sides, each including the one that stopped it, each at most
    101.
    """
    from scipy import ndimage

    y = y.astype(np.int32)  # exact, where the original computes in float32
    down, right = np.gradient(y.astype(np.float64))
    angle = np.where(right != 0, np.degrees(np.arctan2(down, right)), 0)
    angle = 45 * np.round(angle / 45)
    edge = np.abs(ndimage.sobel(y, axis=1)) > 16
    edge[[0, -1], :] = edge[:, [0, -1]] = False

    step = np.diff(y, axis=1)  # step[:, j] leads from column j to column j + 1
    rising = _width_left(step > 0) + _width_right(step > 0)
    # Not symmetric: on the right of a falling edge, level ground belongs to the edge.
    falling = _width_left(step < 0) + _width_right(step <= 0)
    widths = np.where(angle == 0, rising, np.where(np.abs(angle) == 180, falling, 0))
    return np.where(edge, widths, 0)


def _width_right(goes_on):
    """Steps of a scan to the right; goes_on: bool[H,W-1], step j to j + 1 continues.

    The scan of column n starts with the step n+1 -> n+2 and counts where it stops: one
    more than the number of steps from there to the first that does not go on.
    """
    width = goes_on.shape[1] + 1
    goes_on = np.pad(goes_on, ((0, 0), (0, 2)))  # past the border nothing goes on
    step = np.arange(width + 1)
    stop = np.where(goes_on, width, step)
    stop = np.minimum.accumulate(stop[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(1 + (stop - step)[:, 1:], CPBD_MAX_STEPS)


def _width_left(goes_on):
    """The same to the left: the scan of column n starts with the step n-1 -> n-2."""
    return _width_right(goes_on[:, ::-1])[:, ::-1]


# --- protocols ---


class Protocol(NamedTuple):
    """The metrics of one way to evaluate, by the names of the columns they fill.

    report.py has the columns' headings.
    """

    frames: dict[str, Callable]  # (real frames, fake frames) -> f64[T]
    points: dict[str, Callable]  # (real points, fake points) -> f64[T], NaN: no face
    sharpness: dict[str, Callable]  # (frames) -> f64[T], of real or of fake


PROTOCOLS = {
    "true": Protocol(
        frames={"psnr": psnr, "ssim": ssim},
        points={"lmd": lmd, "f_lmd": f_lmd},
        sharpness={"cpbd": cpbd},
    ),
    "atvg-compat": Protocol(
        frames={
            "psnr": compat_psnr,
            "psnr_gray": compat_psnr_gray,
            "ssim": compat_ssim,
        },
        points={"lmd": compat_lmd},
        sharpness={"cpbd": cpbd},
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.  InputError, which names the choices: no such one."""
    if name not in PROTOCOLS:
        choices = ", ".join(PROTOCOLS)
        raise InputError(f"protocol={name!r} is unknown; choose one of {choices}")
    return PROTOCOLS[name]
