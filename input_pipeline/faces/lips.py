"""Moves the lips and the jaw of a photo by geometry: a still that talks.

VG-net learns from pairs of pictures of one face with different landmarks.  A photo
gives such pairs itself: its skin is bent so that the lips open and close, and what is
behind the lips shows where they part.  Everything here happens in the aligned crop at
twice its resolution: points and pixels are those of a picture of SIZE x SIZE.

    p      the photo's 68 points
    rest   the same face with its lips closed
    q_t    the points that frame t is to have: rest plus a speaker's movement
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from input_pipeline.clip import (
    CROP_SIZE,
    INNER_LIPS,
    LOWER_RIM,
    MOUTH,
    NUM_POINTS,
    UPPER_RIM,
)
from input_pipeline.faces.landmarks import opening
from input_pipeline.faces.rest import JAW, closed

ENLARGED = 2
SIZE = ENLARGED * CROP_SIZE

CORNERS = (48, 54)  # of the outer lips; those of the inner ones are 60 and 64
UPPER_LIP, LOWER_LIP = (
    (49, 50, 51, 52, 53, 61, 62, 63),
    (55, 56, 57, 58, 59, 65, 66, 67),
)
UPPER_EDGE, LOWER_EDGE = (50, 51, 52), (58, 57, 56)  # outer points over the rims
# Points of the lips from left to right: outer above and below.  (The inner ones are
# between them.)
ROWS = np.array([[48, 49, 50, 51, 52, 53, 54], [48, 59, 58, 57, 56, 55, 54]])
OUTLINE = (*range(17), *range(26, 16, -1))  # jaw, and back along the brows

CLOSED_SHARE = 0.2  # of a speaker's frames: those with the least open lips are at rest
LEAST_SPACING = 0.5  # of neighbouring points of the lips, of that at rest
LEAST_THICKNESS = 0.8  # of a lip, of that at rest
GRID_STEP = 4  # pixels between the places at which the splines are evaluated
STILL_BEYOND = 14.0  # pixels outside the face's outline from which nothing moves
LIPS_OVERLAP = 0.8  # pixels by which each lip covers what is behind it
TEETH_EDGE = 1.2  # pixels of teeth that a photo's points of open lips may include
SHADOW, SHADOW_HEIGHT = 0.45, 6.0  # under the upper lip: strength, pixels
FADE = 8.0  # pixels over which teeth fade into the dark
DARK = 0.6  # the dark of a mouth, of the darkest colour that it shows
LEAST_TEETH = 5.0  # pixels that lips must be open to show what is behind them


class Behind(NamedTuple):
    """What is behind the lips of a face: it stays where it is when they move.

    picture: f32[SIZE,SIZE,3], 0..255.  rest: f64[68,2], the face's points at rest.
    chin: f64[3], the colour of the skin there, to compare the light of two faces.
    """

    picture: Float32[np.ndarray, "H W 3"]
    rest: Float64[np.ndarray, "68 2"]
    chin: Float64[np.ndarray, "3"]


# --- shapes ---


def movement(speaker: Float[np.ndarray, "T 68 2"]) -> Float64[np.ndarray, "T 68 2"]:
    """How a speaker's mouth and jaw move away from rest, in units of the mouth's width.

    Rest: see at_rest.  All points but the mouth's and the jaw's stay.
    """
    rest = at_rest(speaker)
    moved = (speaker - rest).astype(np.float64)
    return moved * follows()[:, None] / mouth_width(rest)


def at_rest(
    speaker: Float[np.ndarray, "T 68 2"],
) -> Float64[np.ndarray, "68 2"]:
    """The mean of the fifth of the frames in which the lips are least open."""
    order = np.argsort(opening(speaker), kind="stable")
    least_open = order[: max(1, round(CLOSED_SHARE * len(speaker)))]
    return speaker[least_open].mean(0, dtype=np.float64)


def follows() -> Float64[np.ndarray, "68"]:
    """How far each point takes part in speech: the mouth's do, and those of the jaw
    the more, the nearer they are to the chin."""
    share = np.zeros(NUM_POINTS)
    share[MOUTH] = 1
    share[list(JAW)] = list(JAW.values())
    return share


def mouth_width(points: Float[np.ndarray, "68 2"]) -> float:
    """Between the corners of the outer lips."""
    return float(np.linalg.norm(points[CORNERS[1]] - points[CORNERS[0]]))


def moved(
    rest: Float[np.ndarray, "68 2"], movement: Float[np.ndarray, "T 68 2"]
) -> Float64[np.ndarray, "T 68 2"]:
    """q: the face at rest with a movement.

    The movement is another face's, and may be too much for this one, whose skin would
    fold: lips that would cross meet half-way; a lip that would become too thin takes
    its outer edge along; corners that would pass their neighbours move less.
    """
    width = mouth_width(rest)
    least = LEAST_SPACING * np.diff(rest[ROWS, 0])
    q = rest + width * movement
    for share in np.linspace(1, 0, 11):
        crowded = (np.diff(q[:, ROWS, 0]) < least).any((1, 2))
        q[crowded, MOUTH, 0] = (rest + share * width * movement[crowded])[:, MOUTH, 0]
    half = np.minimum(q[:, LOWER_RIM, 1] - q[:, UPPER_RIM, 1], 0) / 2
    q[:, UPPER_RIM, 1] += half
    q[:, LOWER_RIM, 1] -= half
    for rim, edge, way in ((UPPER_RIM, UPPER_EDGE, 1), (LOWER_RIM, LOWER_EDGE, -1)):
        thin = LEAST_THICKNESS * way * (rest[rim, 1] - rest[edge, 1])
        lacking = np.maximum(thin - way * (q[:, rim, 1] - q[:, edge, 1]), 0)
        q[:, edge, 1] -= way * lacking
    return q


# --- what is behind the lips ---


def behind(
    photo: UInt8[np.ndarray, "H W 3"], p: Float[np.ndarray, "68 2"]
) -> Behind | None:
    """What the photo shows between its lips, continued behind them.

    The uppermost row is continued upwards; downwards and to the sides teeth fade into
    the dark.  None: its lips are not open.
    """
    if float(opening(p[None])[0]) < LEAST_TEETH:
        return None
    inside = _between(p, LIPS_OVERLAP) > 0.5
    columns = np.flatnonzero(inside.any(0))
    if len(columns) < 2:
        return None
    rows = np.arange(SIZE)[:, None]
    top = np.argmax(inside, 0)
    bottom = SIZE - 1 - np.argmax(inside[::-1], 0)
    x = np.clip(np.arange(SIZE), columns[0], columns[-1])
    # Columns whose lips nearly touch show lips: their neighbours' height is taken.
    y = np.clip(rows, top[x], bottom[x])
    outside = np.hypot(np.maximum(rows - bottom[x], 0), np.abs(np.arange(SIZE) - x))
    share = np.clip(outside / FADE, 0, 1)[..., None]
    shown = photo[y, x[None, :]].astype(np.float32)
    picture = (1 - share) * shown + share * _dark(photo, inside)
    return Behind(picture.astype(np.float32), closed(p), _chin(photo, p))


def nothing_behind(
    photo: UInt8[np.ndarray, "H W 3"], p: Float[np.ndarray, "68 2"]
) -> Behind:
    """A dark mouth, where no face shows its teeth."""
    skin = _chin(photo, p)
    picture = np.broadcast_to(0.2 * skin, (SIZE, SIZE, 3)).astype(np.float32)
    return Behind(picture, closed(p), skin)


def borrowed(
    other: Behind, photo: UInt8[np.ndarray, "H W 3"], p: Float[np.ndarray, "68 2"]
) -> Behind:
    """What is behind another face's lips, put behind this one's.

    It is scaled by the mouths' widths, its line of closed lips put onto this one's, and
    its brightness changed as the skin of the chins differs.
    """
    import cv2

    rest, skin = closed(p), _chin(photo, p)
    scale = mouth_width(other.rest) / mouth_width(rest)
    shift = _mouth_centre(other.rest) - scale * _mouth_centre(rest)
    there = np.column_stack([scale * np.eye(2), shift])
    picture = cv2.warpAffine(
        other.picture,
        there,
        (SIZE, SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    light = np.clip(skin.mean() / max(other.chin.mean(), 1.0), 0.5, 1.6)
    return Behind(np.clip(light * picture, 0, 255).astype(np.float32), rest, skin)


def _dark(photo: np.ndarray, inside: Bool[np.ndarray, "H W"]) -> np.ndarray:
    """The dark of the mouth: of the tenth of its pixels that are darkest, dimmed."""
    colours = photo[inside].astype(np.float32)
    light = colours.sum(1)
    return DARK * colours[light <= np.quantile(light, 0.1)].mean(0)


def _chin(photo: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The median colour in a small square between the lower lip and the chin."""
    x, y = np.round((p[57] + p[8]) / 2).astype(int)
    x, y = np.clip((x, y), 4, SIZE - 5)
    return np.median(photo[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3), 0)


def _mouth_centre(points: Float[np.ndarray, "68 2"]) -> Float64[np.ndarray, "2"]:
    return points[INNER_LIPS].mean(0).astype(np.float64)


# --- pictures ---


class Still:
    """A photo whose lips can be moved.

    photo: u8[SIZE,SIZE,3], the enlarged crop.  p: its points.  behind: see Behind.
    """

    def __init__(
        self,
        photo: UInt8[np.ndarray, "H W 3"],
        p: Float[np.ndarray, "68 2"],
        behind: Behind,
    ):
        self.photo, self.behind = photo, behind
        # Lips begin a little beyond the points found on open lips: a seam of teeth
        # would otherwise stick to them, and show when they are closed.
        self.p = p.astype(np.float64)
        edge = np.minimum((p[LOWER_RIM, 1] - p[UPPER_RIM, 1]) / 2, TEETH_EDGE)
        self.p[UPPER_RIM, 1] -= np.maximum(edge, 0)
        self.p[LOWER_RIM, 1] += np.maximum(edge, 0)

    def frame(self, q: Float[np.ndarray, "68 2"]) -> UInt8[np.ndarray, "128 128 3"]:
        """The photo with its points moved to q, reduced to the crop's resolution."""
        import cv2

        skin = cv2.remap(
            self.photo,
            (_pixels() + self._displacement(q)).astype(np.float32),
            None,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        between = _between(q, LIPS_OVERLAP)
        shade = self._shade(q)[..., None]
        inner = between[..., None]
        picture = (1 - inner) * skin + inner * shade * self.behind.picture
        return reduced(np.clip(np.round(picture), 0, 255).astype(np.uint8))

    def _displacement(self, q: np.ndarray) -> Float32[np.ndarray, "H W 2"]:
        """What each pixel of the frame shows lies so far away in the photo.

        Two skins, because one cannot tear the lips apart: above the line between the
        lips a spline over all points but the lower lip's, below it one over all but the
        upper lip's.  Beside the mouth they fade into each other.
        """
        upper = self._spline(q, without=LOWER_LIP)
        lower = self._spline(q, without=UPPER_LIP)
        x, y = _pixels()[..., 0], _pixels()[..., 1]
        line = np.interp(x[0], *_line_between(q))
        left, right = q[CORNERS[0], 0], q[CORNERS[1], 0]
        beside = np.maximum(np.maximum(left - x, x - right), 0)
        share = np.clip(0.5 + (y - line) / (1 + 1.6 * beside), 0, 1)[..., None]
        field = (1 - share) * upper + share * lower
        return (field * _near_face(q)[..., None]).astype(np.float32)

    def _spline(self, q: np.ndarray, without: tuple[int, ...]) -> np.ndarray:
        """A thin-plate spline from q back to the photo's points, as displacements."""
        import cv2
        from scipy.interpolate import RBFInterpolator

        kept = np.setdiff1d(np.arange(NUM_POINTS), without)
        spline = RBFInterpolator(q[kept], (self.p - q)[kept], smoothing=1e-3)
        coarse = np.arange(GRID_STEP / 2 - 0.5, SIZE, GRID_STEP)
        x, y = np.meshgrid(coarse, coarse)
        values = spline(np.column_stack([x.ravel(), y.ravel()]))
        field = values.reshape(len(coarse), len(coarse), 2).astype(np.float32)
        return cv2.resize(field, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)

    def _shade(self, q: np.ndarray) -> Float64[np.ndarray, "H W"]:
        """The upper lip's shadow: darkest at the lip, gone SHADOW_HEIGHT below it."""
        x, y = _pixels()[..., 0], _pixels()[..., 1]
        points = q[[60, 61, 62, 63, 64]]
        lip = np.interp(x[0], points[:, 0], points[:, 1])
        depth = np.clip((y - lip) / SHADOW_HEIGHT, 0, 1)
        return 1 - SHADOW * (1 - depth)


def reduced(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The enlarged crop at the crop's own resolution, averaged over its pixels."""
    import cv2

    size = (CROP_SIZE, CROP_SIZE)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _pixels() -> Float64[np.ndarray, "H W 2"]:
    centres = np.arange(SIZE, dtype=np.float64)
    return np.stack(np.meshgrid(centres, centres), -1)


def _line_between(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the line on which the lips meet or would meet, from left to right."""
    middle = (q[UPPER_RIM, :] + q[LOWER_RIM, :]) / 2
    line = np.concatenate([q[60:61], middle, q[64:65]])
    return line[:, 0], line[:, 1]


def _between(q: np.ndarray, overlap: float) -> Float64[np.ndarray, "H W"]:
    """1 between the inner lips, 0 elsewhere, antialiased.  overlap: pixels by which
    each lip reaches over what is behind it."""
    import cv2

    lips = q[INNER_LIPS].copy()
    upper, lower = slice(1, 4), slice(7, 4, -1)  # in the order of the facing points
    half = np.maximum((lips[lower, 1] - lips[upper, 1]) / 2, 0)
    lips[upper, 1] += np.minimum(overlap, half)
    lips[lower, 1] -= np.minimum(overlap, half)
    fine, bits = 4, 4  # drawn so many times as large, points to 1/16 pixel
    polygon = np.round(((lips + 0.5) * fine - 0.5) * 2**bits).astype(np.int32)
    mask = np.zeros((SIZE * fine, SIZE * fine), np.uint8)
    cv2.fillPoly(mask, [polygon], 255, cv2.LINE_8, bits)
    # OpenCV draws the outline of a polygon, too: one of no height would be a line.
    if not half.max() > overlap:
        mask[:] = 0
    return cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255.0


def _near_face(q: np.ndarray) -> Float64[np.ndarray, "H W"]:
    """1 inside the face's outline, falling to 0 at STILL_BEYOND pixels outside it."""
    import cv2

    inside = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(inside, [np.round(q[list(OUTLINE)]).astype(np.int32)], 1)
    away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    ramp = np.clip(1 - away / STILL_BEYOND, 0, 1).astype(np.float64)
    return ramp * ramp * (3 - 2 * ramp)


def to_enlarged(
    points: Float[np.ndarray, "*batch 68 2"],
) -> Float[np.ndarray, "*batch 68 2"]:
    """Pixels of the crop -> of the enlarged crop; centres are at whole numbers."""
    return (points + 0.5) * (SIZE / CROP_SIZE) - 0.5


def to_crop(
    points: Float[np.ndarray, "*batch 68 2"],
) -> Float[np.ndarray, "*batch 68 2"]:
    """The inverse of to_enlarged."""
    return (points + 0.5) * (CROP_SIZE / SIZE) - 0.5
