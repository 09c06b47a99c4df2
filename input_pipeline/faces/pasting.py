"""Puts a face that the networks drew back into the picture that it was cut from.

The networks' crop has fewer pixels than most pictures.  So only what they changed is
taken from it: where the crop is as it was cut out, the picture keeps its own pixels,
bit for bit, and with them all its detail.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from input_pipeline.clip import CROP_SIZE
from input_pipeline.faces import align

FEATHER = 10.0  # crop pixels over which a pasted crop fades in
# Where a pixel of the crop has changed by this much, 0..255, the picture's own detail
# there begins to go, and is gone.
DETAIL_STAYS, DETAIL_GONE = 4.0, 20.0
REACH = 8  # crop pixels around a changed one beyond which it has no say


class Paster:
    """Pastes crops into one picture at one place; the work they share is done once.

    matrix: from crop pixels to the picture's.  feather: crop pixels over which the crop
    fades in from its edge, where its weight is 0.  Pixels outside the crop are returned
    unchanged.  part: (x, y) of the first and the last pixel of the crops that may have
    changed; None: all may have.  own: o below, where it has been cut out before.
    With o the crop as it is cut out of the picture i, v the one to be pasted, and both
    enlarged, the result is i + weight (v - o - changed (i - o)), where changed is 0 for
    small differences of v and o, and 1 for large ones.
    """

    def __init__(
        self,
        picture: UInt8[np.ndarray, "H W 3"],
        matrix: Float[np.ndarray, "2 3"],
        size: int = CROP_SIZE,
        feather: float = FEATHER,
        part: Int[np.ndarray, "2 2"] | None = None,
        own: UInt8[np.ndarray, "size size 3"] | None = None,
    ):
        height, width = picture.shape[:2]
        part = np.array([(0, 0), (size - 1, size - 1)]) if part is None else part
        reached = part + np.array([[-REACH], [REACH]])
        edges = np.clip(reached, 0, size - 1) + np.array([[-0.5], [0.5]])
        corners = np.array([(x, y) for x in edges[:, 0] for y in edges[:, 1]])
        outline = align.transform(matrix, corners)
        low = np.floor(outline.min(0)).astype(int)
        high = np.ceil(outline.max(0)).astype(int) + 1
        x0, y0 = np.clip(low, 0, (width, height))
        x1, y1 = np.clip(high, 0, (width, height))
        self.picture, self.box = picture, (slice(y0, y1), slice(x0, x1))
        self.to_crop = align.invert(matrix)
        self.to_crop[:, 2] += self.to_crop[:, :2] @ (x0, y0)  # pixels of the box
        v, u = np.mgrid[0 : y1 - y0, 0 : x1 - x0].astype(np.float32)
        (a, b, c), (d, e, f) = self.to_crop.astype(np.float32)
        x, y = a * u + b * v + c, d * u + e * v + f  # crop pixels
        inside = np.minimum(np.minimum(x, size - 1 - x), np.minimum(y, size - 1 - y))
        ramp = np.clip((inside + 0.5) / feather, 0, 1)
        self.weight = (ramp * ramp * (3 - 2 * ramp))[..., None]  # smooth at both ends
        own = align.warp(picture, matrix, size) if own is None else own
        self.own = own.astype(np.float32)
        if self.weight.size:
            self.below = picture[self.box].astype(np.float32)
            self.detail = self.below - self._enlarged(self.own)

    def __call__(
        self, crop: UInt8[np.ndarray, "size size 3"]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """RGB, 0..255 -> a copy of the picture with the crop blended in."""
        result = self.picture.copy()
        if self.weight.size:
            difference = crop.astype(np.float32) - self.own
            changed = self._enlarged(changed_share(difference))[..., None]
            change = self._enlarged(difference) - np.clip(changed, 0, 1) * self.detail
            pasted = self.below + self.weight * change
            result[self.box] = np.rint(pasted).clip(0, 255).astype(np.uint8)
        return result

    def _enlarged(self, crop: Float32[np.ndarray, "size size *channels"]) -> np.ndarray:
        """What is given in crop pixels, in the pixels of the box."""
        import cv2

        height, width = self.weight.shape[:2]
        return align.resample(crop, self.to_crop, (width, height), cv2.INTER_CUBIC)


def changed_share(
    difference: Float32[np.ndarray, "S S 3"],
) -> Float32[np.ndarray, "S S"]:
    """0 where a crop is as it was, 1 where it is another, from the differences of its
    colours, 0..255; it changes smoothly from pixel to pixel."""
    import cv2

    largest = cv2.dilate(np.abs(difference).max(-1), np.ones((3, 3)))
    share = np.clip((largest - DETAIL_STAYS) / (DETAIL_GONE - DETAIL_STAYS), 0, 1)
    smooth = (share * share * (3 - 2 * share)).astype(np.float32)
    return cv2.GaussianBlur(smooth, (0, 0), 1.0)


def paste(
    picture: UInt8[np.ndarray, "H W 3"],
    crop: UInt8[np.ndarray, "size size 3"],
    matrix: Float[np.ndarray, "2 3"],
    feather: float = FEATHER,
    own: UInt8[np.ndarray, "size size 3"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the picture with the crop pasted in at `matrix`; see Paster.

    Only where the crop has changed is there anything to do: in a large picture that is
    much less than all of it.
    """
    own = align.warp(picture, matrix, len(crop)) if own is None else own
    changed = np.argwhere((crop != own).any(-1))
    if not len(changed):
        return picture.copy()
    part = np.array([changed.min(0), changed.max(0)])[:, ::-1]  # (x, y)
    return Paster(picture, matrix, len(crop), feather, part, own)(crop)
