"""Distributes clips over the rows of a batch, so that several are computed at once.

A row plays one clip from its beginning to its end, `chunk` frames a call of the
networks.  Where a clip ends, the next one takes the row at the following call: clips of
different lengths leave no row idle while there are more of them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Part(NamedTuple):
    """What a row plays in one call: `count` frames of a clip, from number `start` on.

    last: whether the clip ends with them.
    """

    row: int
    clip: Any
    start: int
    count: int
    last: bool


def assign(
    clips: Iterable[Any], length: Callable[[Any], int], rows: int, chunk: int
) -> Iterator[list[Part]]:
    """Yields the parts that are played in one call, at most one a row.

    clips: begun in this order; None stands for "none before the next call", so that a
    clip can wait for what becomes of another; it is asked for only when a row is free.
    length: of a clip, in frames; it is asked at every call, so that a clip is given up
    by making it 0.  Where there is nothing to play, the list is empty.
    """
    clips, playing, more = iter(clips), {}, True  # playing: {row: (clip, start)}
    while True:
        playing = {
            row: (clip, start)
            for row, (clip, start) in playing.items()
            if start < length(clip)
        }
        for row in range(rows):
            if not more or row in playing:
                continue
            try:
                clip = next(clips)
            except StopIteration:
                more = False
                break
            if clip is None:
                break
            playing[row] = clip, 0
        if not playing and not more:
            return
        parts = []
        for row, (clip, start) in sorted(playing.items()):
            left = length(clip) - start
            parts.append(Part(row, clip, start, min(left, chunk), left <= chunk))
            playing[row] = clip, start + chunk
        yield parts
