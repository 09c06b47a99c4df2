"""Redraws the lips in the frames of a video.

    p_t    the points that were found in frame t
    rest   the face with its lips closed
    b_t    p_t with the mouth and jaw of `rest`, carried along by the head
    q_t    b_t with the movement that belongs to the sound

Of each frame, the lips are closed by geometry, so that its points are b_t; VG-net draws
from this photo the face with the points q_t; and what it changed below the nose goes
back into the frame.  Points are pixels of the 128x128 crop.  n: frames of a scene.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from input_pipeline.clip import CROP_SIZE
from input_pipeline.faces import align, lips, mouth
from input_pipeline.faces.pasting import paste
from input_pipeline.media.image import to_size
from jax_atvg.inference.networks import Networks, ToDraw

SIGMA = 3.0  # frames: smoothing of the alignment, as in training
STEADY = 1.0  # frames: smoothing of the points
BATCH = 8  # frames that are drawn at a time


class Scene(NamedTuple):
    """Consecutive frames in which the face is seen.

    first, last: frames, last excluded.  matrices: f64[n,2,3], from crop pixels to the
    video's.  points: f64[n,68,2], p_t.
    """

    first: int
    last: int
    matrices: Float64[np.ndarray, "n 2 3"]
    points: Float64[np.ndarray, "n 68 2"]


class Shot(NamedTuple):
    """A frame of the result before it is redrawn.

    number: in the result.  t: in the video.  frame: u8[H,W,3].  scene: None where it
    stays as it is.  share: how much of it will be new.
    """

    number: int
    t: int
    frame: np.ndarray
    scene: Scene | None
    share: float = 1.0


def scene_of(
    first: int,
    last: int,
    points_px: Float64[np.ndarray, "n 68 2"],
    template: align.Template = align.DEFAULT_TEMPLATE,
) -> Scene:
    """points_px: in pixels of the video."""
    matrices = align.smooth(align.align(points_px, template), SIGMA)
    in_crop = align.transform(align.invert(matrices), points_px)
    return Scene(first, last, matrices, steadied(in_crop))


def steadied(points: Float64[np.ndarray, "n 68 2"]) -> Float64[np.ndarray, "n 68 2"]:
    """Points that tremble less: each is the Gaussian mean of its own at all times."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(points, STEADY, axis=0, mode="nearest")


class Prepared(NamedTuple):
    """A shot that is ready to be redrawn.  own: its crop, u8[128,128,3].  photo: the
    same with closed lips.  base, q: b_t and q_t.  p: p_t."""

    shot: Shot
    own: np.ndarray
    photo: np.ndarray
    base: np.ndarray
    q: np.ndarray
    p: np.ndarray


class Redrawer:
    """Redraws the lips of shots.

    rest: f64[68,2].  moves: f64[frames of the result,68,2], in mouth widths.
    """

    def __init__(
        self,
        networks: Networks,
        rest: Float64[np.ndarray, "68 2"],
        moves: Float64[np.ndarray, "T 68 2"],
    ):
        self.networks, self.rest, self.moves = networks, rest, moves
        self.size = networks.bundle.vg_net.image_size
        self.to_landmarks = align.invert(networks.bundle.landmark_to_crop)

    def __call__(
        self, shots: Iterable[Shot]
    ) -> Iterator[tuple[Shot, np.ndarray, np.ndarray | None]]:
        """Yields (shot, picture, q_t) in order; q_t is None where the frame is as it
        was."""
        waiting = collections.deque()  # groups that are being redrawn, or stay

        def batches() -> Iterator[tuple[bool, list[ToDraw]]]:
            last = None
            for group in grouped(shots):
                if group[0].scene is None:
                    waiting.append(group)
                    last = None
                    yield False, []
                    continue
                prepared = [self.prepare(shot) for shot in group]
                waiting.append(prepared)
                fresh = last is None or not adjoin(last, group[0])
                yield fresh, [self.to_draw(one) for one in prepared]
                last = group[-1]

        for pictures in self.networks.redraw(batches(), BATCH):
            group = waiting.popleft()
            if pictures is None:
                for shot in group:
                    yield shot, shot.frame, None
                continue
            for one, picture in zip(group, pictures, strict=True):
                yield one.shot, self.pasted(one, picture), one.q

    def prepare(self, shot: Shot) -> Prepared:
        at = shot.t - shot.scene.first
        matrix, p = shot.scene.matrices[at], shot.scene.points[at]
        base = mouth.carried(self.rest, p)
        (q,) = lips.moved(base, self.moves[shot.number, None])
        fine = align.rescale(matrix, 1 / lips.ENLARGED)
        photo = mouth.closed_lips(align.warp(shot.frame, fine, lips.SIZE), p, base)
        return Prepared(shot, align.warp(shot.frame, matrix), photo, base, q, p)

    def to_draw(self, one: Prepared) -> ToDraw:
        example, spoken = (
            align.transform(self.to_landmarks, points).ravel().astype(np.float32)
            for points in (one.base, one.q)
        )
        return ToDraw(to_size(one.photo, self.size), example, spoken)

    def pasted(self, one: Prepared, picture: UInt8[np.ndarray, "S S 3"]) -> np.ndarray:
        """The whole frame with the lips that the networks drew."""
        crop = self.composed(one, picture)
        scene, frame = one.shot.scene, one.shot.frame
        matrix = scene.matrices[one.shot.t - scene.first]
        return paste(frame, crop, matrix, own=one.own)

    def composed(
        self, one: Prepared, picture: UInt8[np.ndarray, "S S 3"]
    ) -> np.ndarray:
        """The crop: new around the mouth, as it was elsewhere."""
        own = one.own.astype(np.float32)
        share = one.shot.share * mouth.mask(one.p, one.base, one.q)
        new = to_size(picture, CROP_SIZE).astype(np.float32)
        return np.rint(own + share * (new - own)).astype(np.uint8)


def grouped(shots: Iterable[Shot]) -> Iterator[list[Shot]]:
    """Groups of at most BATCH shots that adjoin, or that all stay as they are."""
    group = []
    for shot in shots:
        if group and (len(group) == BATCH or not adjoin(group[-1], shot)):
            yield group
            group = []
        group.append(shot)
    if group:
        yield group


def adjoin(before: Shot, after: Shot) -> bool:
    """Whether a shot continues the one before: in its scene, to or fro."""
    return before.scene is after.scene and abs(after.t - before.t) <= 1
