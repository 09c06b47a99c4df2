"""Divides a video where its scene changes or its face is lost, and finds frames with
several faces, while it is read."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Float64

from input_pipeline.clip import NUM_POINTS
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
    seen = [t for t, one in enumerate(points) if one is not None]
    for before, t in itertools.pairwise(seen):
        past, now = points[before], points[t]
        way = np.linalg.norm(
            now[detection.OUTLINE].mean(0) - past[detection.OUTLINE].mean(0)
        )
        if way > (t - before) * JUMP * jaw_width(past):
            cuts.add(t)
    return sorted(cuts)


def runs(mask: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """The ranges in which the mask is True: [(first, last), ...], last excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def stretches(
    points: list[np.ndarray | None], cuts: list[int], max_gap: int
) -> list[tuple[int, int, Float64[np.ndarray, "T 68 2"]]]:
    """(first, last, points) of the parts of a video that show one face without a cut.

    points: of every frame, None where the face was not found.  cuts: see scene_cuts.
    max_gap: most frames in a row without the face that are interpolated; a part begins
    and ends with a frame that shows it.
    """
    seen = np.array([p is not None for p in points], bool)
    bridged = np.ones(len(points), bool)
    for a, b in runs(~seen):
        bridged[a:b] = b - a <= max_gap
    parts = []
    for begin, end in itertools.pairwise([0, *cuts, len(points)]):
        for a, b in runs(bridged[begin:end]):
            a, b = a + begin, b + begin
            inside = np.flatnonzero(seen[a:b])
            if len(inside):
                a, b = a + int(inside[0]), a + int(inside[-1]) + 1
                parts.append((a, b, _bridge(points[a:b])))
    return parts


def _bridge(points: list[np.ndarray | None]) -> Float64[np.ndarray, "T 68 2"]:
    """Points in which gaps are filled by linear interpolation over time."""
    found = np.array([p is not None for p in points])
    known, gaps = np.flatnonzero(found), np.flatnonzero(~found)
    none = np.zeros((NUM_POINTS, 2))
    filled = np.array([none if p is None else p for p in points], np.float64)
    for column in filled.reshape(len(points), -1).T:
        column[gaps] = np.interp(gaps, known, column[known])
    return filled


def jaw_width(
    points_px: Float[np.ndarray, "*batch 68 2"],
) -> Float[np.ndarray, "*batch"] | np.floating:
    """The jaw's width from ear to ear, in pixels."""
    return np.linalg.norm(points_px[..., 16, :] - points_px[..., 0, :], axis=-1)
