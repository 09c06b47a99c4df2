"""Draws cartoon faces from equations: 68 points and a picture, for synthetic.py."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.clip import CROP_SIZE

SCALE = 2  # pictures are drawn so many times larger, then reduced
FRACTION_BITS = 4  # points are drawn to 1/16 pixel


class Speaker(NamedTuple):
    """Looks and voice of a cartoon speaker.  Colours in RGB; lengths in crop pixels."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    background: tuple[int, int, int]
    iris: tuple[int, int, int]
    jaw: float
    eyes: float
    lips: float
    pitch: float  # Hz


def make_speaker(seed: int, who: int) -> Speaker:
    """Speaker number `who`, with random looks and voice."""
    random = np.random.default_rng([seed, 1, who])

    def colour(low, high):
        return tuple(int(x) for x in random.uniform(low, high))

    light = random.uniform(0.55, 1)
    return Speaker(
        skin=tuple(int(light * x) for x in (245, 205, 170)),
        hair=colour((20, 10, 0), (200, 140, 80)),
        background=colour((60, 60, 60), (200, 220, 240)),
        iris=colour((20, 40, 40), (110, 110, 160)),
        jaw=random.uniform(41, 46),
        eyes=random.uniform(18, 22),
        lips=random.uniform(3, 5),
        pitch=random.uniform(100, 220),
    )


def face_points(
    speaker: Speaker, opening: Float[np.ndarray, "T"], width: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "T 68 2"]:
    """The 68 points of a speaker's face, in crop pixels, for each shape of the mouth.

    opening: in [0,1].  width: in [-1,1].
    """
    middle, gap = (CROP_SIZE - 1) / 2, 12 * opening[:, None]
    half = 14 + 4 * width[:, None]  # half the mouth's width
    level, lips = 78.0, speaker.lips

    def at(x, y):  # offsets from the middle line, heights -> [T,n,2]
        x, y = np.broadcast_arrays(x, y, subok=False)
        full = np.broadcast_shapes(x.shape, (len(opening), 1))
        return np.stack(np.broadcast_arrays(middle + x, y, np.zeros(full))[:2], axis=-1)

    def lip(u, side, share, thickness):  # u: places along the lip, from -1 to 1
        bulge = 1 - np.asarray(u) ** 2
        return at(
            half * u, level + side * (share * gap * bulge + thickness * bulge**0.5)
        )

    angle = np.pi * np.arange(17) / 16
    drop = 0.6 * gap * np.sin(angle) ** 2
    brow = np.linspace(-1, 1, 5)
    eye = np.array([-6, -2.5, 2.5, 6, 2.5, -2.5]), np.array([0, -3, -3, 0, 2.5, 2.5])
    arch = 16 - 3 * (1 - brow**2)
    outer, inner = np.linspace(-1, 1, 7), np.linspace(-0.8, 0.8, 5)
    parts = [
        at(-speaker.jaw * np.cos(angle), 28 + 78 * np.sin(angle) + drop),
        at(9 * brow - speaker.eyes - 1, arch),
        at(9 * brow + speaker.eyes + 1, arch),
        at(np.zeros(4), np.linspace(23, 47, 4)),
        at(np.linspace(-9, 9, 5), 57.5 - 2.5 * np.abs(brow)),
        at(eye[0] - speaker.eyes, 26 + eye[1]),
        at(eye[0] + speaker.eyes, 26 + eye[1]),
        lip(outer, -1, 0.2, lips),
        lip(outer[-2:0:-1], 1, 0.8, 1.3 * lips),
        lip(inner, -1, 0.2, 0.3),
        lip(inner[-2:0:-1], 1, 0.8, 0.3),
    ]
    return np.concatenate(parts, axis=1)


def draw_face(
    speaker: Speaker, points: Float[np.ndarray, "68 2"]
) -> UInt8[np.ndarray, "128 128 3"]:
    """The RGB picture of the speaker's face with these points, in crop pixels."""
    import cv2

    size = CROP_SIZE * SCALE
    canvas = np.full((size, size, 3), speaker.background, np.uint8)
    fine = 1 << FRACTION_BITS

    def polygon(corners, colour):
        place = np.rint(((corners + 0.5) * SCALE - 0.5) * fine).astype(np.int32)
        cv2.fillPoly(canvas, [place], colour, cv2.LINE_AA, FRACTION_BITS)

    def line(corners, colour, thickness):
        place = np.rint(((corners + 0.5) * SCALE - 0.5) * fine).astype(np.int32)
        cv2.polylines(
            canvas, [place], False, colour, thickness, cv2.LINE_AA, FRACTION_BITS
        )

    def disc(centre, radii, colour):
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        polygon(centre + radii * np.stack([np.cos(angle), np.sin(angle)], 1), colour)

    def shade(factor):
        return tuple(int(factor * x) for x in speaker.skin)

    disc(points[27] + (0, 15), (speaker.jaw + 9, 55), speaker.hair)
    polygon(np.array([[35, 100], [92, 100], [100, 140], [27, 140]]), shade(0.8))
    jaw = points[:17]
    across = (jaw[::-1, 0] - points[27, 0]) / speaker.jaw
    height = jaw[0, 1] - 31 * np.sqrt(np.clip(1 - across**2, 0, None))
    forehead = np.stack([jaw[::-1, 0], height], axis=1)
    polygon(np.concatenate([jaw, forehead]), speaker.skin)
    for brow in (points[17:22], points[22:27]):
        line(brow, speaker.hair, 3 * SCALE)
    for eye in (points[36:42], points[42:48]):
        polygon(eye, (250, 250, 250))
        disc(eye.mean(axis=0), (2.8, 2.8), speaker.iris)
        disc(eye.mean(axis=0), (1.2, 1.2), (10, 10, 10))
    line(points[27:31], shade(0.85), SCALE)
    line(points[31:36], shade(0.6), 2 * SCALE)
    polygon(points[48:60], (190, 70, 80))
    polygon(points[60:68], (60, 15, 20))
    upper = points[60:65]
    gap = np.maximum(points[66, 1] - points[62, 1] - 2, 0) * 0.4  # teeth show
    lower = upper[::-1] + np.array([[0, 0], [0, gap], [0, gap], [0, gap], [0, 0]])
    polygon(np.concatenate([upper, lower]), (245, 245, 235))
    return cv2.resize(canvas, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)


def encode(picture: UInt8[np.ndarray, "128 128 3"]) -> bytes:
    """JPEG of quality 95, as `prepare` writes it."""
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes()
