"""Draws the points of a face: as lines on black, or as dots on a picture."""

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.clip import CROP_SIZE

# Lines (first point, last + 1): jaw, brows, bridge, nostrils; closed: eyes and lips.
OPEN_LINES = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36)]
CLOSED_LINES = [(36, 42), (42, 48), (48, 60), (60, 68)]
BITS = 4  # points are drawn to 1/16 pixel
GREEN = (60, 255, 90)


def draw_lines(
    points_px: Float[np.ndarray, "68 2"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Draws the face as white lines on black; points in pixels of the 128x128 crop."""
    import cv2

    canvas = np.zeros((size, size, 3), np.uint8)
    scaled = (points_px + 0.5) * (size / CROP_SIZE) - 0.5
    fixed = np.round(scaled * 2**BITS).astype(np.int32)
    for lines, closed in ((OPEN_LINES, False), (CLOSED_LINES, True)):
        parts = [fixed[first:last] for first, last in lines]
        cv2.polylines(
            canvas, parts, closed, (255, 255, 255), 1, cv2.LINE_AA, shift=BITS
        )
    return canvas


def draw_dots(
    picture: UInt8[np.ndarray, "H W 3"],
    points_px: Float[np.ndarray, "n 2"],
    radius: float = 1.0,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the picture with a green dot on every point; radius in pixels."""
    import cv2

    drawn, fine = picture.copy(), 2**BITS
    for x, y in np.rint(points_px * fine).astype(int).tolist():
        cv2.circle(
            drawn, (x, y), round(radius * fine), GREEN, -1, cv2.LINE_AA, shift=BITS
        )
    return drawn
