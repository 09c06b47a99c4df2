"""What the networks must know of a photo and a recording: the face's points, the sound.

A second and 150 MB, most of them for libraries and models: main.py has it done by a
process of its own (workers.assistant) while the networks are loaded.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from input_pipeline.faces import detection
from input_pipeline.media import audio, image


class Perceived(NamedTuple):
    """points: of the face, pixels of the photo.  heard: the recording."""

    points: Float32[np.ndarray, "68 2"]
    heard: audio.Heard


def perceive(
    photo: str | pathlib.Path, speech: str | pathlib.Path, face: str = "largest"
) -> Perceived:
    """face: see detection.choose_face.  InputError: no picture, no such face, no sound."""
    points = detection.photo_points(image.read_image(photo), face, str(photo))
    return Perceived(points, audio.hear_file(speech))
