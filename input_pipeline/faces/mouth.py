"""Prepares the frames of a video for another mouth: closes the lips that were filmed,
and tells where new ones are to be drawn.

Points are pixels of the 128x128 crop.
"""

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from input_pipeline.clip import CROP_SIZE, NOSE
from input_pipeline.faces import align, lips

# Points that carry a mouth along: brows, nose, eyes, and the jaw beside the ears.
CARRYING = (*range(17, 48), 0, 1, 2, 14, 15, 16)
REDRAWN = (*range(2, 15), *range(31, 36), *range(48, 68))  # they surround what changes
MASK_GROWTH, MASK_SIGMA = 9, 2.5  # crop pixels


def carried(
    rest: Float64[np.ndarray, "68 2"], points: Float64[np.ndarray, "68 2"]
) -> Float64[np.ndarray, "68 2"]:
    """b_t: the points with the mouth and jaw of `rest`, where the rest of the face has
    carried them."""
    place = align.similarity(rest[list(CARRYING)], points[list(CARRYING)])
    share = lips.follows()[:, None]
    return (1 - share) * points + share * align.transform(place, rest)


def closed_lips(
    crop: UInt8[np.ndarray, "256 256 3"],
    points: Float64[np.ndarray, "68 2"],
    base: Float64[np.ndarray, "68 2"],
) -> UInt8[np.ndarray, "128 128 3"]:
    """The photo of a frame: its skin bent so that its points are b_t.

    crop: of twice the resolution.
    """
    points, base = lips.to_enlarged(points), lips.to_enlarged(base)
    still = lips.Still(crop, points, lips.nothing_behind(crop, points))
    return still.frame(base)


def mask(
    *faces: Float64[np.ndarray, "68 2"],
) -> Float32[np.ndarray, "128 128 1"]:
    """1 where mouth, chin and lower cheeks of any of the faces are, falling to 0 around
    them."""
    import cv2

    points = np.concatenate([face[list(REDRAWN)] for face in faces])
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    inside = np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    cv2.fillConvexPoly(inside, hull, 1.0)
    grown = cv2.dilate(inside, np.ones((MASK_GROWTH, MASK_GROWTH)))
    # The nose stays: what the networks change there is not wanted.
    tip = max(float(face[NOSE, 1].max()) for face in faces)
    grown[: max(int(tip), 0)] = 0
    return cv2.GaussianBlur(grown, (0, 0), MASK_SIGMA)[..., None]
