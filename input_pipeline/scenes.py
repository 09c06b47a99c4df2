"""What is seen in passing: several faces, a change of scene."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline import faces

# Several faces: the detector looks at the whole picture in frame 12, 87, 162, ...
COUNT_FIRST, COUNT_EVERY = 12, 75
SECOND_FACE = 0.5  # a face at least so wide, relative to the largest, counts

# A scene cut, on pictures shrunk to 32x32 with grey values 0..255.  Over 24 GRID clips
# the mean difference of neighbouring frames is at most 0.9, and that of frames from
# different sessions of one speaker 3 to 35.
THUMB = 32
CUT_BASE, CUT_FACTOR, CUT_REACH = 6.0, 5.0, 12
JUMP = 0.35  # of the face's width, between two frames: not a movement


class Notes:
    """What is noted while the frames pass by on their way to the tracker."""

    def __init__(self, count_faces: bool):
        self.count_faces = count_faces
        self.thumbs: list[np.ndarray] = []
        self.several: list[int] = []  # frames that show several faces

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        import cv2

        suspicious = False
        for t, frame in enumerate(frames):
            gray = faces.to_gray(frame)
            size = (THUMB, THUMB)
            self.thumbs.append(cv2.resize(gray, size, interpolation=cv2.INTER_AREA))
            if self.count_faces and (suspicious or t % COUNT_EVERY == COUNT_FIRST):
                widths = sorted(box.width for box in faces.detect(frame))
                crowd = len(widths) > 1 and widths[-2] >= SECOND_FACE * widths[-1]
                if crowd and suspicious:  # twice in a row: not the detector's whim
                    self.several.append(t)
                suspicious = crowd and not suspicious
            yield frame


def scene_cuts(
    thumbs: UInt8[np.ndarray, "T h w"], points: list[np.ndarray | None]
) -> list[int]:
    """The frames that begin a new scene.

    A frame unlike the one before, by more than the movement around accounts for; and
    so are their neighbours, because a flash of one frame is no cut.  Or the face jumps.
    """
    if len(thumbs) < 2:
        return []
    pictures = thumbs.astype(np.float32)
    change = np.abs(np.diff(pictures, axis=0)).mean((1, 2))  # into frame 1, 2, ...
    over_two = np.abs(pictures[2:] - pictures[:-2]).mean((1, 2))
    after, before = np.append(over_two, change[-1]), np.append(change[0], over_two)
    lasting = np.minimum(change, np.minimum(before, after))
    cuts = set()
    for i in np.flatnonzero(change > CUT_BASE):
        around = change[max(i - CUT_REACH, 0) : i + CUT_REACH + 1]
        bound = CUT_BASE + CUT_FACTOR * np.median(around)
        if lasting[i] > bound:
            cuts.add(int(i) + 1)
    for t in range(1, len(points)):
        past, now = points[t - 1], points[t]
        if past is not None and now is not None:
            way = np.linalg.norm(
                now[faces.OUTLINE].mean(0) - past[faces.OUTLINE].mean(0)
            )
            if way > JUMP * jaw_width(past):
                cuts.add(t)
    return sorted(cuts)


def jaw_width(
    points_px: Float[np.ndarray, "*batch 68 2"],
) -> Float[np.ndarray, "*batch"] | np.floating:
    """The jaw's width in pixels: from ear to ear."""
    return np.linalg.norm(points_px[..., 16, :] - points_px[..., 0, :], axis=-1)
