"""Tells persons apart by their faces, and follows one of them through a video with
cuts.

dlib's network describes a face by a vector.  A face that was lost, or may be elsewhere
after a cut, is searched for by it.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from input_pipeline.faces import detection
from input_pipeline.faces.detection import CHECK_EVERY

MODEL = "dlib_face_recognition_resnet_model_v1.dat"  # a file
SAME_PERSON = 0.6  # distance of descriptors: the threshold of dlib's author
CHIPS = 5  # of whose descriptors a person's is the mean


@functools.cache
def _recogniser():
    import dlib

    return dlib.face_recognition_model_v1(detection.model_file(MODEL))


def face_chip(
    image: UInt8[np.ndarray, "H W 3"], points: Float[np.ndarray, "68 2"]
) -> UInt8[np.ndarray, "150 150 3"]:
    """The face alone, upright, as dlib describes it.  points: pixels of the image."""
    import dlib

    box = detection.box_of(points.astype(np.float32))
    shape = detection.as_dlib(points, box)
    return dlib.get_face_chip(np.ascontiguousarray(image), shape)


def descriptor(chip: UInt8[np.ndarray, "150 150 3"]) -> Float64[np.ndarray, "128"]:
    """dlib's description of a face: those of one person are less than SAME_PERSON
    apart."""
    return np.array(_recogniser().compute_face_descriptor(chip))


def track_person(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    cuts: list[int],
    face: str = "largest",
    name: str = "video",
) -> Iterator[Float32[np.ndarray, "68 2"] | None]:
    """As detection.track, but after a cut, or where the face was lost, it is taken up
    again wherever it is in the frame, and that of nobody else.

    Where it stays away for five frames, it is searched for in every fifth that follows.
    cuts: the frames that begin a new scene.  InputError: see detection.choose_face.
    """
    tracker, frames = PersonTracker(face, name), iter(frames)
    for begin, end in itertools.pairwise([0, *cuts, None]):
        scene = itertools.islice(frames, None if end is None else end - begin)
        while group := list(itertools.islice(scene, CHECK_EVERY)):
            yield from tracker.follow(group)
        tracker.cut()


class PersonTracker(detection.FaceTracker):
    """The state of `track_person`: that of `track`, and what the person looks like."""

    def __init__(self, face: str = "largest", name: str = "video"):
        super().__init__(face, name)
        self.chips, self.descriptors = [], []

    def cut(self) -> None:
        """The next frame begins a new scene, in which the face may be elsewhere."""
        self.lost = 1

    def follow(self, group: list[np.ndarray]) -> list[np.ndarray | None]:
        if self.lost >= CHECK_EVERY and self._find(group[-1]) is None:
            self.lost += len(group)
            return [None] * len(group)
        points = super().follow(group)
        seen = [pair for pair in zip(group, points, strict=True) if pair[1] is not None]
        if seen and len(self.chips) < CHIPS:
            self.chips.append(face_chip(*seen[-1]))
        return points

    def _find(self, frame: np.ndarray) -> detection.Box | None:
        """Searches the whole frame: first for the chosen face, later for the face that
        is most like it."""
        if not self.chips:
            return super()._find(frame)
        new = self.chips[len(self.descriptors) :]  # needed for the first time
        self.descriptors += [descriptor(chip) for chip in new]
        own = np.mean(self.descriptors, axis=0)

        def distance(box: detection.Box) -> float:
            points = detection.find_points(frame, box)
            return float(np.linalg.norm(descriptor(face_chip(frame, points)) - own))

        found = [(distance(box), box) for box in detection.detect(frame)]
        nearest, box = min(found, default=(np.inf, None))
        return box if nearest < SAME_PERSON else None
