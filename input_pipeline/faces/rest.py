"""A face at rest: its points with the lips closed."""

import numpy as np
from jaxtyping import Float, Float32, Float64

from input_pipeline.clip import LOWER_RIM, UPPER_RIM, Pca
from input_pipeline.faces.landmarks import as_points

# How far these points of the jaw follow the chin.
JAW = {3: 0.25, 4: 0.5, 5: 0.75, **dict.fromkeys(range(6, 11), 1.0)}
JAW |= {11: 0.75, 12: 0.5, 13: 0.25}
MEETING = 0.25  # lips meet so far down from the upper one towards the lower one
CHIN_AT_REST = 0.5  # the chin's share of the lower lip's way to its rest


def closed(
    points: Float[np.ndarray, "*batch 68 2"],
) -> Float64[np.ndarray, "*batch 68 2"]:
    """The points of faces, closed at the lips, in any unit; y grows downwards.

    The inner lips meet a quarter of the way from the upper one to the lower one; the
    outer lips go with them, and the chin goes half of the lower lip's way.  The corners
    stay where they are, and so does a face whose lips are closed.
    """
    rest = points.astype(np.float64)
    gap = np.maximum(points[..., LOWER_RIM, 1] - points[..., UPPER_RIM, 1], 0)
    down, up = MEETING * gap, (1 - MEETING) * gap
    rest[..., UPPER_RIM, 1] += down
    rest[..., LOWER_RIM, 1] -= up
    rest[..., (50, 51, 52), 1] += down
    rest[..., (58, 57, 56), 1] -= up
    rest[..., (49, 53), 1] += down[..., [0, 2]] / 2
    rest[..., (59, 55), 1] -= up[..., [0, 2]] / 2
    for point, share in JAW.items():
        rest[..., point, 1] -= CHIN_AT_REST * share * up.mean(-1)
    return rest


def photo_coefficients(
    pca: Pca, landmarks: Float[np.ndarray, "*batch 136"], from_rest: bool
) -> Float32[np.ndarray, "*batch K"]:
    """h_p, which AT-net is given of a photo with these landmarks.

    from_rest: of the face with its lips closed, so that how far they are open in the
    photo is not taken for the shape of the face.
    """
    if from_rest:
        rest = closed(as_points(landmarks)).reshape(landmarks.shape)
        landmarks = rest.astype(np.float32)
    return pca.project(landmarks)
