"""Closes the eyes of a face by geometry: the skin above them comes down over them.

A photo shows what a blink needs but the lids themselves, which are stretched from the
skin between eye and brow.  The eye does not move: the upper lid covers it from above,
and the lower lid comes a little way up to meet it.
"""

import numpy as np
from jaxtyping import Float, Float64, UInt8

# Of each eye: its corners with what lies between them on the upper and lower lid.
EYES = (((36, 37, 38, 39), (36, 41, 40, 39)), ((42, 43, 44, 45), (42, 47, 46, 45)))
# The points that move, of both eyes.
UPPER, LOWER = ([i for eye in EYES for i in eye[lid][1:3]] for lid in (0, 1))
BROWS = ((17, 18, 19, 20, 21), (22, 23, 24, 25, 26))
MEETING = 0.75  # lids meet so far down from the upper one towards the lower one
LID = 0.75  # of the way from the eye up to the brow: the skin that stretches
CHEEK = 1.0  # heights of the eye below it that give way to the lower lid
OPEN = 0.13  # height of an eye, of its width, from which on it counts as open
FINE = 4  # rows computed for each row of the picture


def openness(points: Float[np.ndarray, "68 2"]) -> float:
    """The height of the eyes in units of their width; the mean of both."""
    heights = []
    for upper, lower in EYES:
        height = (points[list(lower[1:3]), 1] - points[list(upper[1:3]), 1]).mean()
        heights.append(height / np.linalg.norm(points[upper[3]] - points[upper[0]]))
    return float(np.mean(heights))


def closed(
    points: Float[np.ndarray, "*batch 68 2"], share: float
) -> Float64[np.ndarray, "*batch 68 2"]:
    """The points of faces with their eyelids moved.

    share: 0 leaves them where they are, with 1 the lids meet.
    """
    result = points.astype(np.float64)
    gap = result[..., LOWER, :] - result[..., UPPER, :]
    result[..., UPPER, :] += share * MEETING * gap
    result[..., LOWER, :] -= share * (1 - MEETING) * gap
    return result


class Eyelids:
    """The eyelids of one face, in pictures in which it stays at one place.

    points: the face's, in pixels of these pictures.  size: their height and width.
    able: whether both eyes are open and within the picture, so that they can be closed.
    """

    def __init__(self, points: Float[np.ndarray, "68 2"], size: tuple[int, int]):
        self.eyes = [
            eye
            for (upper, lower), brow in zip(EYES, BROWS, strict=True)
            if (eye := Eye.of(points, upper, lower, brow, size)) is not None
        ]
        self.able = openness(points) > OPEN and len(self.eyes) == len(EYES)

    def __call__(
        self, picture: UInt8[np.ndarray, "H W 3"], share: float
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A copy of the picture with the lids moved by `share`, 0 to 1; the picture
        itself where there is nothing to move."""
        if share <= 0 or not self.able:
            return picture
        result = picture.copy()
        for eye in self.eyes:
            eye.close(picture, result, share)
        return result


class Eye:
    """One eye in a picture.

    columns: the picture's, from corner to corner.  rows: those that may change.  top,
    upper, lower, bottom: f64[columns], rows: where the skin that stretches begins, the
    lids' edges, and where the skin below no longer moves.
    """

    def __init__(self, columns, rows, top, upper, lower, bottom):
        self.columns, self.rows = columns, rows
        self.top, self.upper, self.lower, self.bottom = top, upper, lower, bottom

    @classmethod
    def of(cls, points, upper, lower, brow, size) -> "Eye | None":
        """None: the eye is not within the picture, or is too narrow to be drawn."""
        upper, lower, brow = (points[list(one)] for one in (upper, lower, brow))
        left, right = np.ceil(upper[0, 0]), np.floor(upper[3, 0])
        if not (0 <= left < right < size[1]) or (np.diff(upper[:, 0]) <= 0).any():
            return None
        x = np.arange(left, right + 1)
        above, below = (np.interp(x, one[:, 0], one[:, 1]) for one in (upper, lower))
        below = np.maximum(above, below)
        height = float((below - above).max())
        top = above - LID * np.maximum(above - brow[:, 1].mean(), height)
        bottom = below + CHEEK * height
        rows = slice(int(np.floor(top.min())), int(np.ceil(bottom.max())) + 1)
        if not (0 <= rows.start < rows.stop <= size[0]):
            return None
        columns = slice(int(left), int(right) + 1)
        return cls(columns, rows, top, above, below, bottom)

    def close(self, picture: np.ndarray, result: np.ndarray, share: float) -> None:
        """Draws the eye of `picture` with its lids moved by `share` into `result`."""
        import cv2

        gap = self.lower - self.upper
        upper = self.upper + share * MEETING * gap
        lower = self.lower - share * (1 - MEETING) * gap
        count = (self.rows.stop - self.rows.start) * FINE
        y = self.rows.start + (np.arange(count)[:, None] + 0.5) / FINE - 0.5
        # Where the skin above, the eye, and the skin below show what is at `source`.
        source = np.where(y < upper, stretched(y, self.top, upper, self.upper), y)
        cheek = stretched(y, self.bottom, lower, self.lower)
        source = np.where(y > lower, cheek, source)
        x = np.arange(self.columns.start, self.columns.stop)
        x = np.broadcast_to(x, source.shape).astype(np.float32)
        drawn = cv2.remap(
            picture,
            x,
            source.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        drawn = drawn.reshape(-1, FINE, *drawn.shape[1:]).astype(np.float32).mean(1)
        result[self.rows, self.columns] = np.rint(drawn)


def stretched(y, end, now, before):
    """Skin from `end`, where it stays, to its edge `before` reaches to `now`: which row
    of the skin as it was is at row y?  Beyond the end: y."""
    share = np.clip((y - end) / np.where(now == end, 1, now - end), 0, None)
    return np.where(share > 0, end + share * (before - end), y)
