"""What a face does beside speaking: it blinks, and its head is never quite still.

Both are functions of (seed, number of the frame) alone: the same whichever frames are
asked for, and in which order.
"""

import functools

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from input_pipeline.clip import FRAME_RATE

# How far the lids are down in the frames of a blink, which takes a fifth of a second.
BLINK = (0.5, 1.0, 1.0, 0.6, 0.25)
# There is one blink in every BLINK_EVERY frames, somewhere in them: 19 a minute.
# People blink 26 times a minute in conversation, 17 at rest, with large differences
# between them (Bentivoglio et al., Movement Disorders 12(6), 1997).
BLINK_EVERY = 80
FIRST_PLACE = 12  # so that two blinks are never closer than half a second

# The head's movement is a sum of slow waves.
PERIODS = (2.7, 4.3, 7.1)  # seconds
TURN = 0.03  # largest, radians
SHIFT = 0.02  # largest, widths of the face
NEAR, FAR = 1.0, 2.2  # face widths from its middle: all of it moves, nothing does
BORDER = 0.35  # face widths from the picture's edge, at which nothing moves


def lids_down(seed: int, frame: int) -> float:
    """How far the eyelids are down in frame number `frame`: 0 open, 1 closed."""
    place = frame % BLINK_EVERY - _blink_place(seed, frame // BLINK_EVERY)
    return BLINK[place] if 0 <= place < len(BLINK) else 0.0


@functools.lru_cache(64)
def _blink_place(seed: int, number: int) -> int:
    """In which of its BLINK_EVERY frames blink `number` begins."""
    last = BLINK_EVERY - len(BLINK)
    return int(np.random.default_rng([seed, number]).integers(FIRST_PLACE, last + 1))


def head_pose(seed: int, frame: int) -> Float64[np.ndarray, "3"]:
    """(turn, right, down) of the head in frame number `frame`: radians, and shares of
    the face's width.  Frame 0 is not moved."""
    random = np.random.default_rng([seed, 1 << 32])
    phases = random.uniform(0, 2 * np.pi, (3, len(PERIODS)))
    angles = 2 * np.pi * frame / FRAME_RATE / np.array(PERIODS)
    waves = (np.sin(angles + phases) - np.sin(phases)).mean(1) / 2
    return waves * (TURN, SHIFT, SHIFT)


class Head:
    """Moves the head in a picture a little, without a seam: what is around it gives
    way, less and less with distance, and nothing moves at the picture's edges.

    points: the face's, in pixels of the picture.  size: the picture's height and width.
    """

    def __init__(
        self,
        points: Float32[np.ndarray, "68 2"] | Float64[np.ndarray, "68 2"],
        size: tuple[int, int],
    ):
        self.middle, self.width = points.mean(0), float(np.ptp(points[:, 0]))
        reach = FAR * self.width
        low = np.clip(np.floor(self.middle - reach).astype(int), 0, size[::-1])
        high = np.clip(np.ceil(self.middle + reach).astype(int) + 1, 0, size[::-1])
        self.box = slice(low[1], high[1]), slice(low[0], high[0])
        y, x = np.mgrid[self.box].astype(np.float32)
        self.place = x - int(low[0]), y - int(low[1])
        self.around = x - float(self.middle[0]), y - float(self.middle[1])
        away = np.hypot(*self.around) / self.width
        inside = np.minimum(
            np.minimum(x, size[1] - 1 - x), np.minimum(y, size[0] - 1 - y)
        )
        self.weight = falling(away, NEAR, FAR) * (
            1 - falling(inside / self.width, 0.0, BORDER)
        )

    def __call__(
        self, picture: UInt8[np.ndarray, "H W 3"], pose: Float64[np.ndarray, "3"]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A copy of the picture with its head moved.  pose: see head_pose."""
        import cv2

        turn, right, down = pose.tolist()
        (x, y), (u, v) = self.place, self.around
        x = x - self.weight * (right * self.width - turn * v)
        y = y - self.weight * (down * self.width + turn * u)
        result = picture.copy()
        below = np.ascontiguousarray(picture[self.box])
        if below.size:
            result[self.box] = cv2.remap(
                below, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
        return result


def falling(
    x: Float32[np.ndarray, "h w"], begin: float, end: float
) -> Float32[np.ndarray, "h w"]:
    """1 up to `begin`, 0 from `end` on, smooth between them."""
    share = np.clip((x - begin) / (end - begin), 0, 1)
    return (1 - share * share * (3 - 2 * share)).astype(np.float32)
