"""Finds faces and their 68 points in pictures, and follows one face through a video.

It uses dlib's frontal detector (HOG) and 68-point model, as the authors do
(docs/reference.md, section 3.2).  Points are in picture pixels, (x, y), with pixel
centres at whole numbers, and in the order of 300-W.
"""

import functools
import importlib.util
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from input_pipeline.clip import InputError

DETECTION_SIDE = 1024  # pixels; larger pictures are shrunk before detection
CHECK_EVERY = 5  # frames between the detector's checks of a followed face

# A box like the detector's is computed from points, as measured with dlib on 1148
# frames of 43 GRID training clips (6 speakers).  With c and s the mean and the RMS
# radius of points 0..47 (jaw, brows, nose, eyes), detected boxes are centred at
# c + (-.01, .11) s and 2.60 s wide; single boxes scatter by 3 % (place) and 7 % (width)
# of their width, mostly because the detector's own sizes come in steps of 20 %.
OUTLINE = slice(0, 48)
BOX_WIDTH = 2.60
BOX_DROP = 0.11

WINDOW_SIDE = 176  # pixels; a followed face is checked in a window of this side,
WINDOW_FACE = 100  # in which it is this wide (the detector wants 80 or more)
WINDOW_SCORE = -0.4  # the detector's threshold there: 0 is its default for any place
SAME_FACE = 0.4  # overlap (intersection over union) of two boxes of one face


class Box(NamedTuple):
    """A face's bounding box in pixels; as in dlib, right and bottom are inclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left + 1

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@functools.cache
def _detector():
    import dlib

    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor():
    import dlib

    return dlib.shape_predictor(model_file("shape_predictor_68_face_landmarks.dat"))


def model_file(name: str) -> str:
    """The path of one of dlib's models.  InputError: they are not installed."""
    # Only located, not imported: it needs pkg_resources, which setuptools dropped.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None:
        raise InputError(
            "dlib's face models are missing; pip install face-recognition-models"
        )
    return str(pathlib.Path(spec.submodule_search_locations[0]) / "models" / name)


def to_gray(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """RGB -> the gray image that dlib reads (the same as OpenCV's from BGR)."""
    import cv2

    # dlib misses faces at random in strided views, such as a video decoder's planes.
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def detect(image: UInt8[np.ndarray, "H W 3"]) -> list[Box]:
    """The frontal, upright faces of a picture, RGB, 0..255; best first, maybe none.

    A picture of up to 1024 pixels a side is enlarged once, as the authors do, so that
    faces of 40 pixels are found.  A larger one is shrunk to 1024 first; if no face is
    found in that, faces of 80 pixels or more are searched for at full size.
    """
    return _detect_gray(to_gray(image))


def _detect_gray(gray: np.ndarray) -> list[Box]:
    import cv2

    scale = max(gray.shape) / DETECTION_SIDE
    if scale <= 1:
        return [_box(found) for found in _detector()(gray, 1)]
    size = (round(gray.shape[1] / scale), round(gray.shape[0] / scale))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    boxes = [_box(found, scale) for found in _detector()(small, 1)]
    return boxes or [_box(found) for found in _detector()(gray, 0)]


def _box(rectangle, scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> Box:
    """dlib's rectangle in a picture shrunk by `scale` and cut out at (x, y) -> Box."""
    left, top = rectangle.left() * scale + x, rectangle.top() * scale + y
    right = left + rectangle.width() * scale - 1
    bottom = top + rectangle.height() * scale - 1
    return Box(round(left), round(top), round(right), round(bottom))


def find_points(
    image: UInt8[np.ndarray, "H W 3"], box: Box
) -> Float32[np.ndarray, "68 2"]:
    """The 68 points (x, y), pixels, of the face in `box`; may lie off the image."""
    return _points(to_gray(image), box)


def _points(gray: np.ndarray, box: Box) -> np.ndarray:
    import dlib

    shape = _predictor()(gray, dlib.rectangle(*box))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def as_dlib(points: Float[np.ndarray, "68 2"], box: Box):
    """dlib's own object for a face with these points."""
    import dlib

    parts = [dlib.point(round(float(x)), round(float(y))) for x, y in points]
    return dlib.full_object_detection(dlib.rectangle(*box), parts)


def choose_face(boxes: list[Box], policy: str = "largest", name: str = "photo") -> Box:
    """Chooses a face: the "largest", or by index from left to right: "0", "1", ...

    InputError: there are no boxes, the index is beyond them, or `policy` is neither.
    (The authors take the detector's first box, whichever that is.)
    """
    if not boxes:
        raise InputError(f"{name}: no face to choose from; use a frontal, upright face")
    if policy == "largest":
        return max(boxes, key=lambda box: box.width * box.height)
    if not policy.isdecimal():
        raise InputError(f"face={policy!r}: choose 'largest' or an index '0', '1', ...")
    if int(policy) >= len(boxes):
        last = len(boxes) - 1
        faces, choice = f"{last + 1} faces", f"choose from 0 (left) to {last} (right)"
        if not last:
            faces, choice = "1 face", "choose 0"
        raise InputError(
            f"{name}: face={policy} asked for, but {faces} found; {choice}, or "
            "'largest'"
        )
    return sorted(boxes, key=lambda box: box.centre)[int(policy)]


def photo_points(
    image: UInt8[np.ndarray, "H W 3"], face: str = "largest", name: str = "photo"
) -> Float32[np.ndarray, "68 2"]:
    """The points, in pixels, of a photo's face.  InputError: none; see choose_face."""
    gray = to_gray(image)
    boxes = _detect_gray(gray)
    if not boxes:
        height, width = gray.shape
        raise InputError(
            f"{name}: no face found in the {width}x{height} picture; use a frontal "
            "face at least 80 pixels wide, and turn the picture upright"
        )
    return _points(gray, choose_face(boxes, face, name))


def box_of(points_px: Float32[np.ndarray, "68 2"]) -> Box:
    """The box the detector would, on average, draw around these points."""
    outline = points_px[OUTLINE]
    x, y = outline.mean(0)
    radius = np.sqrt(np.square(outline - outline.mean(0)).sum(1).mean())
    half, y = BOX_WIDTH * radius / 2, y + BOX_DROP * radius
    return Box(round(x - half), round(y - half), round(x + half), round(y + half))


def track(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    face: str = "largest",
    name: str = "video",
) -> Iterator[Float32[np.ndarray, "68 2"] | None]:
    """Follows one face through a video: its 68 points per frame, None where not found.

    `face` chooses among the faces of the first frame that shows any (`choose_face`).
    The points of a frame give the box for the next one, without the detector.  Every
    fifth frame, the detector checks a window around that box; if it finds no face
    there, all five frames are checked one by one.  A lost face is searched for near
    the place where it was last seen, within a radius that grows with time.
    Five frames are held in memory.  InputError: see choose_face.
    """
    tracker, frames = FaceTracker(face, name), iter(frames)
    while group := list(itertools.islice(frames, CHECK_EVERY)):
        yield from tracker.follow(group)


class FaceTracker:
    """The state of `track`: where the face was last seen."""

    def __init__(self, face: str = "largest", name: str = "video"):
        self.face, self.name = face, name
        self.last: Box | None = None  # where the face was last seen
        self.lost = 0  # frames since then

    def follow(self, group: list[np.ndarray]) -> list[np.ndarray | None]:
        """Consecutive frames -> points; checks the last, or each if that fails."""
        start = self.last
        if start is not None and not self.lost:
            points = []
            for frame in group:
                gray = to_gray(frame)
                points.append(_points(gray, self.last))
                self.last = box_of(points[-1])
            if _seen(gray, self.last):
                return points
        self.last = start
        return [self._look(frame) for frame in group]

    def _look(self, frame: np.ndarray) -> np.ndarray | None:
        """The points in one frame, where the detector must find the face, or None."""
        gray = to_gray(frame)
        if self.last is not None and not self.lost:
            points = _points(gray, self.last)
            box = box_of(points)
            if _seen(gray, box):
                self.last = box
                return points
        box = self._find(frame)
        if box is None:
            self.lost += 1
            return None
        points = _points(gray, box)
        self.last, self.lost = box_of(points), 0
        return points

    def _find(self, frame: np.ndarray) -> Box | None:
        """Searches the whole frame: first for the chosen face, later near the last."""
        boxes = detect(frame)
        if not boxes:
            return None
        if self.last is None:
            return choose_face(boxes, self.face, self.name)

        def distance(box: Box) -> float:
            return np.hypot(*np.subtract(box.centre, self.last.centre))

        nearest = min(boxes, key=distance)
        reach = self.last.width * (0.5 + self.lost / 10)
        return nearest if distance(nearest) <= reach else None


def _seen(gray: np.ndarray, box: Box) -> bool:
    """Whether the detector, less strict than usual, finds a face at `box`."""
    import cv2

    scale = box.width / WINDOW_FACE
    (x, y), side = box.centre, WINDOW_SIDE
    x, y = x - scale * (side - 1) / 2, y - scale * (side - 1) / 2
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    window = cv2.warpAffine(gray, matrix, (side, side), flags=flags)
    found, _, _ = _detector().run(window, 0, WINDOW_SCORE)
    return any(_overlap(box, _box(one, scale, x, y)) > SAME_FACE for one in found)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left) + 1
    height = min(a.bottom, b.bottom) - max(a.top, b.top) + 1
    both = max(width, 0) * max(height, 0)
    return both / (a.width * a.height + b.width * b.height - both)
