"""Finds the face in a photo and computes the audio features of a recording.

This takes a second and 150 MB, mostly for loading libraries and dlib's models: the
command line has another process do it (workers.assistant) while the networks are read.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from input_pipeline.faces import detection
from input_pipeline.media import audio, image


class Perceived(NamedTuple):
    """The result of `perceive`.

    points: the face's, in pixels of the photo.  heard: the recording's features.
    """

    points: Float32[np.ndarray, "68 2"]
    heard: audio.Heard


def perceive(
    photo: str | pathlib.Path,
    speech: str | pathlib.Path,
    face: str = "largest",
    track: int = 0,
) -> Perceived:
    """Finds the points of the face and computes the features of the sound.

    photo, speech: files.  face: see detection.choose_face.  track: see
    audio.AudioReader.
    InputError: there is no picture, no such face, or no usable sound.
    """
    points = detection.photo_points(image.read_image(photo), face, str(photo))
    return Perceived(points, audio.hear_file(speech, track))
