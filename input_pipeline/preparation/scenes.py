"""Finds scene cuts, and frames with several faces, while a video is read."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from input_pipeline.faces import detection

# The detector counts the faces in the whole picture in frames 12, 87, 162, ...
COUNT_FIRST, COUNT_EVERY = 12, 75
SECOND_FACE = 0.5  # relative to the widest face, the least width that counts

# Scene cuts are found in pictures shrunk to 32x32 with grey values 0..255.  Over 24
# GRID clips the mean difference of neighbouring frames is at most 0.9, and that of
# frames from different sessions of one speaker 3 to 35.
THUMB = 32
CUT_BASE, CUT_FACTOR, CUT_REACH = 6.0, 5.0, 12
JUMP = 0.35  # in jaw widths: a face does not move as far between two frames


class Notes:
    """Measurements of frames that are taken on their way to the tracker."""

    def __init__(self, count_faces: bool):
        self.count_faces = count_faces
        # How much frame t differs from t - 1, and from t - 2.
        self.change: list[float] = []
        self.over_two: list[float] = []
        self.several: list[int] = []  # frames that show several faces

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the frames as they are, and measures each."""
        import cv2

        suspicious, older, old = False, None, None
        for t, frame in enumerate(frames):
            gray = detection.to_gray(frame)
            thumb = cv2.resize(gray, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
            self.change.append(_difference(thumb, old))
            self.over_two.append(_difference(thumb, older))
            older, old = old, thumb
            if self.count_faces and (suspicious or t % COUNT_EVERY == COUNT_FIRST):
                widths = sorted(box.width for box in detection.detect(frame))
                crowd = len(widths) > 1 and widths[-2] >= SECOND_FACE * widths[-1]
                if crowd and suspicious:  # twice in a row: no false detection
                    self.several.append(t)
                suspicious = crowd and not suspicious
            yield frame


def _difference(a: np.ndarray, b: np.ndarray | None) -> float:
    """Mean absolute difference of two pictures; 0 if there is no second one."""
    import cv2

    return 0.0 if b is None else cv2.norm(a, b, cv2.NORM_L1) / a.size


def scene_cuts(notes: Notes, points: list[np.ndarray | None]) -> list[int]:
    """The indices of the frames that begin a new scene.

    Such a frame differs from the one before by more than the movement around it
    explains, and so do the frames beside these two, because a flash of one frame is not
    a cut.  A jump of the face is a cut as well.
    """
    change, over_two = np.array(notes.change), np.array(notes.over_two)
    cuts = set()
    for t in np.flatnonzero(change > CUT_BASE):
        around = change[max(t - CUT_REACH, 1) : t + CUT_REACH + 1]
        bound = CUT_BASE + CUT_FACTOR * np.median(around)
        # The last frame before against the second after, and the other way round.
        neighbours = [over_two[i] for i in (t, t + 1) if 2 <= i < len(change)]
        if min(change[t], *neighbours) > bound:
            cuts.add(int(t))
    for t in range(1, len(points)):
        past, now = points[t - 1], points[t]
        if past is not None and now is not None:
            way = np.linalg.norm(
                now[detection.OUTLINE].mean(0) - past[detection.OUTLINE].mean(0)
            )
            if way > JUMP * jaw_width(past):
                cuts.add(t)
    return sorted(cuts)


def jaw_width(
    points_px: Float[np.ndarray, "*batch 68 2"],
) -> Float[np.ndarray, "*batch"] | np.floating:
    """The jaw's width from ear to ear, in pixels."""
    return np.linalg.norm(points_px[..., 16, :] - points_px[..., 0, :], axis=-1)
