"""Draws the points of a face, as lines on black or dots on a picture, and a label."""

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.clip import CROP_SIZE

# Lines (first point, last + 1): jaw, brows, bridge, nostrils; closed: eyes and lips.
OPEN_LINES = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36)]
CLOSED_LINES = [(36, 42), (42, 48), (48, 60), (60, 68)]
LABEL = "synthetic"
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


def labelled(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the picture that says in its lower left corner what it is."""
    import cv2

    drawn, height = picture.copy(), max(8, picture.shape[0] // 24)  # of the letters
    font = cv2.FONT_HERSHEY_SIMPLEX
    width = max(1, height // 10)
    scale = cv2.getFontScaleFromHeight(font, height, width)
    (across, _), below = cv2.getTextSize(LABEL, font, scale, width)
    ground = drawn[-(height + 2 * below) :, : across + 2 * below]
    ground //= 3
    foot = (below, len(drawn) - below - 1)
    white = (255, 255, 255)
    return cv2.putText(drawn, LABEL, foot, font, scale, white, width, cv2.LINE_AA)
