"""Training augmentation: one random change for photo, frames, landmarks and sound.

Faces are mirrored, moved and given another shape and mouth, here; their light is drawn
here and changed by the training step; voices get another tempo, vocal tract length,
noise and room, in augment_sound.py.  A change is drawn once per example, so that
everything in the example stays consistent.
Positions are in the unit of landmarks: 0 at the crop's centre, -1 and 1 at its edges.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from input_pipeline.clip import CROP_SIZE, Colour


@dataclasses.dataclass
class Strength:
    """How strong the random changes may be; all zeros change nothing.

    Unless said otherwise, a change is drawn uniformly from -x to x for a strength of x.

    mirror: probability.  rotation: degrees.  scale: relative.  shift: crop pixels.
    warp: standard deviation of the displacements of control points, crop pixels.
    mouth_width, mouth_rise, mouth_curl: the arguments of mouth_field.
    keep_shape: probability that an example keeps its shape, without warp and mouth_*.
    gain, tint, saturation: relative.  offset: share of the full range.  gamma: the
    exponent's logarithm.
    noise: standard deviation, relative to that of each cepstral column; from 0 to x.
    tempo: logarithm of the factor by which the speech of AT-net's examples is faster.
    voice: logarithm of the factor by which the speaker's resonances are higher.
    first_photo: probability that the photo is the clip's first frame, not any frame.
    channel: standard deviation of the log energy by which a microphone colours each
    cosine over the bands of the mel filters, see other_microphone.
    background: energy of the loudest noise behind the speech, relative to it.  In half
    of the examples; its logarithm is uniform, from a thousandth of that on.
    room: seconds in which the longest echoes fall by 60 dB; from 0 to x in half of the
    examples, otherwise none.
    """

    mirror: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    warp: float = 0.0
    mouth_width: float = 0.0
    mouth_rise: float = 0.0
    mouth_curl: float = 0.0
    keep_shape: float = 0.0
    gain: float = 0.0
    tint: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    noise: float = 0.0
    tempo: float = 0.0
    voice: float = 0.0
    first_photo: float = 0.0
    channel: float = 0.0
    background: float = 0.0
    room: float = 0.0

    @property
    def changes_colour(self) -> bool:
        """Whether examples come with a Colour."""
        return any(getattr(self, name) for name in Colour._fields)


GRID = 5  # control points on each side
PIXEL = 2 / CROP_SIZE  # a crop pixel's width, in positions
INVERSIONS = 24  # iterations at most; each at least halves the error
EXACT = 1e-4 * PIXEL  # the error at which they end
MOUTH_CENTRE = np.array([0.0, 0.18])
MOUTH_REACH = 26 * PIXEL, 18 * PIXEL  # standard deviations, to the side and up
MOUTH_CORNER = 17 * PIXEL  # from the mouth's centre


class Augmentation(NamedTuple):
    """One random change of an example.

    mirror: left and right are exchanged.  motion: f64[2,3], similarity of positions,
    applied after the mirror.  field: f32[H,W,2], displacements applied after the motion
    (position q then shows what was at q - field(q)), or None.
    colour: of f32[] and f32[3], or None.  noise: see Strength; noise_seed: of the
    noise.  first_photo: whether the photo is the clip's first frame.
    tempo, voice, channel, background, room: see augment_sound.py.
    """

    mirror: bool
    motion: Float64[np.ndarray, "2 3"]
    field: Float32[np.ndarray, "H W 2"] | None
    colour: Colour | None
    noise: float
    noise_seed: int
    tempo: float
    voice: float
    first_photo: bool
    channel: float = 0.0
    background: float = 0.0
    room: float = 0.0


def draw(random: np.random.Generator, strength: Strength) -> Augmentation:
    """Draws a change; `random` advances by the same amount for every strength."""
    turn, grow, x, y, gain, offset, gamma, saturation = random.uniform(-1, 1, 8)
    mirror, noise = random.random(2)
    warp = random.standard_normal((GRID, GRID, 2), dtype=np.float32)
    tint = random.uniform(-1, 1, 3)
    noise_seed = int(random.integers(1 << 62))
    width, rise, curl = random.uniform(-1, 1, 3)
    shape = random.random(3)[2]  # as earlier versions, whose runs go on, drew it
    tempo, voice = random.uniform(-1, 1, 2)
    first_photo = random.random()
    loud, noisy, echo, echoing = random.random(4)
    scale = 1 + strength.scale * grow
    a = scale * np.exp(1j * np.deg2rad(strength.rotation * turn))
    shift = strength.shift * PIXEL
    field = None
    if shape < strength.keep_shape:
        strength = dataclasses.replace(
            strength, warp=0.0, mouth_width=0.0, mouth_rise=0.0, mouth_curl=0.0
        )
    if strength.warp:
        field = dense(np.float32(strength.warp * PIXEL) * warp)
    if strength.mouth_width or strength.mouth_rise or strength.mouth_curl:
        mouth = mouth_field(
            strength.mouth_width * width,
            strength.mouth_rise * rise,
            strength.mouth_curl * curl,
        )
        field = mouth if field is None else mouth + field
    colour = Colour(
        gain=np.float32(1 + strength.gain * gain),
        tint=np.float32(1 + strength.tint * tint),
        offset=np.float32(strength.offset * offset),
        gamma=np.float32(np.exp(strength.gamma * gamma)),
        saturation=np.float32(1 + strength.saturation * saturation),
    )
    return Augmentation(
        mirror=bool(mirror < strength.mirror),
        motion=np.array([[a.real, -a.imag, shift * x], [a.imag, a.real, shift * y]]),
        field=field,
        colour=colour if strength.changes_colour else None,
        noise=strength.noise * noise,
        noise_seed=noise_seed,
        tempo=float(np.exp(strength.tempo * tempo)),
        voice=float(np.exp(strength.voice * voice)),
        first_photo=bool(first_photo < strength.first_photo),
        channel=strength.channel,
        background=strength.background * 1000 ** (loud - 1) * (noisy < 0.5),
        room=strength.room * echo * (echoing < 0.5),
    )


def pixel_centres() -> Float64[np.ndarray, "H W 2"]:
    """The positions (x, y) of the centres of the crop's pixels."""
    centres = (np.arange(CROP_SIZE) + 0.5) * PIXEL - 1
    return np.stack(np.meshgrid(centres, centres), -1)


def dense(
    warp: Float32[np.ndarray, "grid grid 2"],
) -> Float32[np.ndarray, "H W 2"]:
    """Displacements of control points -> of all pixels, by cubic interpolation."""
    import cv2

    return cv2.resize(warp, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC)


def mouth_field(
    width: float = 0.0, rise: float = 0.0, curl: float = 0.0
) -> Float32[np.ndarray, "H W 2"]:
    """The displacements that make the mouth wider (width > 0), lower (rise > 0), less
    smiling (curl > 0).  They fade out around the mouth.

    width: 1 - 1 / (factor of the width).  rise: crop pixels downwards.  curl: crop
    pixels by which the corners are lowered.
    """
    u = pixel_centres() - MOUTH_CENTRE
    near = np.exp(-0.5 * np.sum((u / MOUTH_REACH) ** 2, -1))
    lowered = PIXEL * (rise + curl * (u[..., 0] / MOUTH_CORNER) ** 2)
    field = np.stack([width * u[..., 0], lowered], -1)
    return (near[..., None] * field).astype(np.float32)


def mirrored_points() -> np.ndarray:
    """i64[68], m: point i of the mirrored face is point m[i] of the face."""
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
    """Applies mirror, motion and field; a mirrored left eye becomes a right eye."""
    if change.mirror:
        landmarks = landmarks[:, mirrored_points()] * np.array([-1, 1])
    linear, shift = change.motion[:, :2], change.motion[:, 2]
    moved = shown = landmarks @ linear.T + shift
    if change.field is not None:
        for _ in range(INVERSIONS):
            last, shown = shown, moved + at_positions(change.field, shown)
            if np.abs(shown - last).max() < EXACT:
                break
    return shown.astype(np.float32)


def change_frames(
    change: Augmentation, frames: UInt8[np.ndarray, "T 128 128 3"]
) -> UInt8[np.ndarray, "T 128 128 3"]:
    """Applies mirror, motion and field to RGB frames; beyond the crop, its edge is
    repeated."""
    import cv2

    if change.mirror:
        frames = np.stack([cv2.flip(frame, 1) for frame in frames])
    return move(change.motion, change.field, frames)


def move(
    motion: Float[np.ndarray, "2 3"],
    field: Float32[np.ndarray, "H W 2"] | None,
    frames: UInt8[np.ndarray, "T H W 3"],
) -> UInt8[np.ndarray, "T H W 3"]:
    """Moves the content: position q shows what was at p, motion(p) = q - field(q)."""
    import cv2

    if np.array_equal(motion, np.eye(2, 3)) and field is None:
        return frames
    q = pixel_centres()
    m = q if field is None else q - field
    p = (m - motion[:, 2]) @ np.linalg.inv(motion[:, :2]).T
    source = ((p + 1) / PIXEL - 0.5).astype(np.float32)
    moved = [
        cv2.remap(
            frame,
            source,
            None,
            cv2.INTER_CUBIC,  # INTER_LINEAR loses an eighth of the gradients' energy
            borderMode=cv2.BORDER_REPLICATE,
        )
        for frame in frames
    ]
    return np.stack(moved)


def at_positions(
    field: Float32[np.ndarray, "H W 2"], positions: Float[np.ndarray, "A B 2"]
) -> Float32[np.ndarray, "A B 2"]:
    """The field, interpolated at positions; beyond the crop, as at its edge."""
    import cv2

    pixels = ((positions + 1) / PIXEL - 0.5).astype(np.float32)
    return cv2.remap(
        field, pixels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
