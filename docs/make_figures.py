"""Draws the README's figure: python docs/make_figures.py."""

import pathlib
import sys

import cv2
import numpy as np
from skimage.data import astronaut

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from input_pipeline import align, faces, image  # noqa: E402
from input_pipeline.clip import CROP_SIZE  # noqa: E402
from jax_atvg.animate import draw_points  # noqa: E402

SIDE = 384


def main() -> None:
    """The photo with points and crop, the aligned crop, its landmarks."""
    photo = astronaut()
    points = faces.photo_points(photo)
    matrix = align.align(points)
    edge = (-0.5, CROP_SIZE - 0.5)
    corners = np.array(
        [(edge[i], edge[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    )
    marked = photo.copy()
    outline = np.round(align.transform(matrix, corners) * 16).astype(np.int32)
    cv2.polylines(marked, [outline], True, (255, 255, 255), 2, cv2.LINE_AA, 4)
    for x, y in np.round(points * 16).astype(int):
        cv2.circle(marked, (x, y), 24, (80, 255, 120), -1, cv2.LINE_AA, 4)
    in_crop = align.transform(align.invert(matrix), points)
    panels = [
        cv2.resize(marked, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
        align.warp(photo, align.align(points), SIDE // 3).repeat(3, 0).repeat(3, 1),
        draw_points(in_crop, SIDE),
    ]
    gap = np.full((SIDE, 8, 3), 255, np.uint8)
    rows = [panels[0], gap, panels[1], gap, panels[2]]
    image.write_image(ROOT / "docs" / "pipeline.png", np.concatenate(rows, 1))


if __name__ == "__main__":
    main()
