"""What is done with a frame that the networks made before it is shown."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from input_pipeline.faces import align, eyelids
from input_pipeline.faces.drawing import labelled
from input_pipeline.faces.pasting import Paster
from jax_atvg.inference.life import Head, head_pose, lids_down
from jax_atvg.inference.options import PLAIN, Look
from jax_atvg.inference.predict import Photo


@dataclasses.dataclass(frozen=True)
class Subject:
    """A photo prepared for the networks.

    picture: u8[H,W,3], the whole photo.  points: f[68,2], the face's, in its pixels.
    matrix: f64[2,3], from pixels of the networks' crop to pixels of the picture.
    photo: the networks' inputs.
    """

    picture: np.ndarray
    points: np.ndarray
    matrix: np.ndarray
    photo: Photo


class Painter:
    """Makes the picture to show of every frame of one subject.

    size: (height, width) of these pictures.  closes_eyes: whether the networks do it,
    where `lids` says so; else the eyelids of their frames are moved by geometry.
    """

    def __init__(self, subject: Subject, look: Look = PLAIN, closes_eyes: bool = False):
        self.closes_eyes = closes_eyes
        self.look, side = look, subject.photo.image.shape[1]
        in_crop = align.transform(align.invert(subject.matrix), subject.points)
        self.eyelids = eyelids.Eyelids(in_crop, (side, side))
        self.size, self.paste, self.head = (side, side), None, None
        if look.full_frame:
            self.size = subject.picture.shape[:2]
            self.paste = Paster(subject.picture, subject.matrix, side)
            if look.head_movement:
                self.head = Head(subject.points, self.size)

    def __call__(
        self, frame: UInt8[np.ndarray, "S S 3"], number: int
    ) -> UInt8[np.ndarray, "height width 3"]:
        """frame: as the networks made it.  number: counted from the first, 0."""
        shown = self.face(frame, number)
        if self.paste is not None:
            shown = self.paste(shown)
        if self.head is not None:
            shown = self.head(shown, head_pose(self.look.seed, number))
        return labelled(shown) if self.look.label else shown

    def lids(self, count: int, first: int = 0) -> Float32[np.ndarray, "{count}"]:
        """How far the networks are to have the eyelids down in `count` frames from
        number `first` on."""
        down = [self._lids_down(first + i) for i in range(count)]
        return np.array(down, np.float32) * self.closes_eyes

    def face(
        self, frame: UInt8[np.ndarray, "S S 3"], number: int
    ) -> UInt8[np.ndarray, "S S 3"]:
        """The frame with its eyelids where they are in frame `number`."""
        return self.eyelids(frame, self._yet_to_move(number))

    def points(
        self, points: Float[np.ndarray, "68 2"], number: int
    ) -> Float64[np.ndarray, "68 2"]:
        """A face's points, in any unit, with those of the eyelids likewise."""
        return eyelids.closed(points, self._yet_to_move(number))

    def _yet_to_move(self, number: int) -> float:
        return 0.0 if self.closes_eyes else self._lids_down(number)

    def _lids_down(self, number: int) -> float:
        blinking = self.look.blinks and self.eyelids.able
        return lids_down(self.look.seed, number) if blinking else 0.0
