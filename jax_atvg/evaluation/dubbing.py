"""Dubs the clips of a dataset, so that they can be compared with what was filmed."""

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.faces.lips import at_rest
from input_pipeline.faces.rest import closed
from jax_atvg.evaluation.metrics import Frames, Points
from jax_atvg.inference.dub import spoken_movement
from jax_atvg.inference.networks import Networks
from jax_atvg.inference.redraw import Redrawer, Scene, Shot, steadied


def dubbed(
    networks: Networks,
    frames: Frames,
    points: Points,
    sound: Float32[np.ndarray, "T 28 12"],
) -> UInt8[np.ndarray, "T 128 128 3"]:
    """The clip as `dub` would make it of a video that shows no more than the crop.

    frames, points: of the clip.  sound: MFCC windows, its own or others.
    """
    count = len(frames)
    crop = np.broadcast_to(np.eye(2, 3), (count, 2, 3))
    scene = Scene(0, count, crop, steadied(points.astype(np.float64)))
    rest = closed(at_rest(scene.points))
    redrawer = Redrawer(networks, rest, spoken_movement(networks, rest, sound))
    shots = (Shot(t, t, frame, scene) for t, frame in enumerate(frames))
    return np.stack([picture for _, picture, _ in redrawer(shots)])
