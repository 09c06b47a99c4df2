"""One example seen otherwise: mirrored, moved, another face's shape and colour, in
another light, less clearly heard.

Drawn once per example, so that the photo, all its frames, their landmarks and the sound
change together.  Positions are the landmarks' (landmarks.normalise): the crop's centre
is 0, its edges are -1 and 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from input_pipeline.clip import CROP_SIZE


class Strength(NamedTuple):
    """How far a change may go; each but warp is drawn uniformly from -x to x.

    mirror: probability.  rotation: degrees.  scale: share of 1.  shift: crop pixels.
    warp: standard deviation of the control points' displacements, crop pixels.
    gain, tint, saturation: share of 1.  offset: of the full range.  gamma: its
    logarithm.
    noise: standard deviation, as a share of every cepstral column's own; from 0 to x.
    """

    mirror: float = 0.5
    rotation: float = 4.0
    scale: float = 0.04
    shift: float = 3.0
    warp: float = 2.5
    gain: float = 0.15
    tint: float = 0.12
    offset: float = 0.06
    gamma: float = 0.2
    saturation: float = 0.3
    noise: float = 0.3


USUAL = Strength()
GRID = 5  # control points a side
INVERSIONS = 4  # steps; each leaves a seventh of the error at the usual strength


class Augmentation(NamedTuple):
    """What was drawn.  motion: f64[2,3], similarity of positions, after the mirror.
    warp: f32[GRID,GRID,2], how far the control points of a grid over the crop are moved
    then, positions; between them cubically interpolated.

    A colour c in [0,1] becomes gain tint c^gamma + offset, and its distance to grey
    saturation times as large.  noise: see Strength; noise_seed: which noise.
    """

    mirror: bool
    motion: Float64[np.ndarray, "2 3"]
    warp: Float32[np.ndarray, "grid grid 2"]
    gain: float
    tint: Float64[np.ndarray, "3"]
    offset: float
    gamma: float
    saturation: float
    noise: float
    noise_seed: int


def draw(random: np.random.Generator, strength: Strength = USUAL) -> Augmentation:
    """Asks for equally many random numbers whatever the strength."""
    turn, grow, x, y, gain, offset, gamma, colour = random.uniform(-1, 1, 8)
    mirror, noise = random.random(2)
    warp = random.standard_normal((GRID, GRID, 2), dtype=np.float32)
    tint = random.uniform(-1, 1, 3)
    scale = 1 + strength.scale * grow
    a = scale * np.exp(1j * np.deg2rad(strength.rotation * turn))
    shift = strength.shift * 2 / CROP_SIZE
    return Augmentation(
        mirror=bool(mirror < strength.mirror),
        motion=np.array([[a.real, -a.imag, shift * x], [a.imag, a.real, shift * y]]),
        warp=np.float32(strength.warp * 2 / CROP_SIZE) * warp,
        gain=1 + strength.gain * gain,
        tint=1 + strength.tint * tint,
        offset=strength.offset * offset,
        gamma=float(np.exp(strength.gamma * gamma)),
        saturation=1 + strength.saturation * colour,
        noise=strength.noise * noise,
        noise_seed=int(random.integers(1 << 62)),
    )


def mirrored_points() -> np.ndarray:
    """i64[68]: point i of a mirrored face is point mirrored[i] of the face."""
    groups = [
        range(16, -1, -1),  # jaw
        range(26, 16, -1),  # brows
        range(27, 31),  # nose, downwards
        range(35, 30, -1),  # nostrils
        (45, 44, 43, 42, 47, 46),  # eyes: upper lids, lower lids
        (39, 38, 37, 36, 41, 40),
        (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # lips: outer
        (64, 63, 62, 61, 60, 67, 66, 65),  # inner
    ]
    return np.array([point for group in groups for point in group])


def change_landmarks(
    change: Augmentation, landmarks: Float[np.ndarray, "T 68 2"]
) -> Float32[np.ndarray, "T 68 2"]:
    """The mirrored face's left eye is the right one's picture: points change names."""
    if change.mirror:
        landmarks = landmarks[:, mirrored_points()] * np.array([-1, 1])
    linear, shift = change.motion[:, :2], change.motion[:, 2]
    moved = landmarks @ linear.T + shift
    if change.warp.any():
        moved = moved + displacement(dense(change.warp), moved)
    return moved.astype(np.float32)


def change_frames(
    change: Augmentation, frames: UInt8[np.ndarray, "T 128 128 3"]
) -> UInt8[np.ndarray, "T 128 128 3"]:
    """RGB; the crop's edge pixels are repeated where the picture ends."""
    if change.mirror:
        frames = frames[:, :, ::-1]
    return change_colour(change, move(change.motion, change.warp, frames))


def move(
    motion: Float[np.ndarray, "2 3"],
    warp: Float32[np.ndarray, "grid grid 2"],
    frames: UInt8[np.ndarray, "T H W 3"],
) -> UInt8[np.ndarray, "T H W 3"]:
    """What lies at position p goes to q = m + displacement(m), m = motion(p)."""
    import cv2

    if np.array_equal(motion, np.eye(2, 3)) and not warp.any():
        return frames
    centres = (2 * np.arange(CROP_SIZE) + 1) / CROP_SIZE - 1
    q = np.stack(np.meshgrid(centres, centres), -1)
    m = q
    if warp.any():
        field = dense(warp)
        for _ in range(INVERSIONS):
            m = q - displacement(field, m)
    p = (m - motion[:, 2]) @ np.linalg.inv(motion[:, :2]).T
    source = ((p + 1) * (CROP_SIZE / 2) - 0.5).astype(np.float32)
    moved = [
        cv2.remap(
            np.ascontiguousarray(frame),
            source,
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for frame in frames
    ]
    return np.stack(moved)


def dense(
    warp: Float32[np.ndarray, "grid grid 2"],
) -> Float32[np.ndarray, "H W 2"]:
    """The warp's displacement of every pixel of the crop."""
    import cv2

    return cv2.resize(warp, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC)


def displacement(
    field: Float32[np.ndarray, "H W 2"], positions: Float[np.ndarray, "A B 2"]
) -> Float32[np.ndarray, "A B 2"]:
    """How far these positions are moved; beyond the crop, as its edge."""
    import cv2

    pixels = ((positions + 1) * (CROP_SIZE / 2) - 0.5).astype(np.float32)
    return cv2.remap(
        field, pixels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def change_colour(
    change: Augmentation, frames: UInt8[np.ndarray, "T H W 3"]
) -> UInt8[np.ndarray, "T H W 3"]:
    """A curve for every channel, then more or less colour."""
    import cv2

    levels = np.linspace(0, 1, 256)[:, None]
    curve = 255 * (change.gain * change.tint * levels**change.gamma + change.offset)
    tall = np.ascontiguousarray(frames).reshape(-1, *frames.shape[2:])
    lit = cv2.LUT(tall, curve.astype(np.float32)[:, None])
    if change.saturation != 1:
        grey = np.full((3, 3), (1 - change.saturation) / 3)
        lit = cv2.transform(lit, change.saturation * np.eye(3) + grey)
    np.clip(lit + np.float32(0.5), 0, 255, out=lit)
    return lit.astype(np.uint8).reshape(frames.shape)


def change_sound(
    change: Augmentation, mfcc: Float32[np.ndarray, "M 13"]
) -> Float32[np.ndarray, "M 13"]:
    """Adds noise to the cepstra.

    There is no gain: a sound g times as loud has all log mel energies raised by
    2 ln g, a constant over the bands, which the cosine transform puts into coefficient
    0 alone.  Column 0 is not part of an audio window, so the networks cannot hear it.
    """
    if not change.noise:
        return mfcc
    random = np.random.Generator(np.random.Philox(change.noise_seed))
    hiss = random.standard_normal(mfcc.shape, dtype=np.float32)
    return mfcc + np.float32(change.noise) * mfcc.std(0) * hiss
