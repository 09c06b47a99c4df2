"""Runs a video to its end, back to its beginning, and so on, for as long as needed."""

import pathlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8

from input_pipeline.clip import FRAME_RATE
from input_pipeline.media.video import read_frames

HELD_BYTES = 256 << 20  # of frames, when a video runs backwards


def to_and_fro(
    path: str | pathlib.Path,
    count: int,
    total: int,
    fps: int | Fraction = FRAME_RATE,
) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"]]]:
    """(number of the frame in the file, frame), `total` of them; the video has `count`.

    Backwards it is read in parts that may be held in memory, the last one first.
    """
    left = total
    while left > 0:
        size = 1
        for number, frame in enumerate(read_frames(path, fps)):
            if number == count or not left:
                break
            size, left = frame.nbytes, left - 1
            yield number, frame
        at_once = max(1, HELD_BYTES // size)
        for end in range(count - 1, 1, -at_once):  # neither end is shown twice
            if not left:
                return
            begin = max(end - at_once, 1)
            held = []
            for number, frame in enumerate(read_frames(path, fps, begin), begin):
                held.append((number, frame))
                if number == end - 1:
                    break
            for item in held[::-1][:left]:
                left -= 1
                yield item
