"""Cuts a file's sound, and what is said in it, to the frames that it belongs to.

The clock is that of the frames: sample 0 is at the beginning of frame 0.  A file's
sound begins `start` seconds after it, or before it where that is negative.
"""

import numpy as np
from jaxtyping import Float, Float32

from input_pipeline.clip import FRAME_RATE, ROWS_PER_FRAME, SAMPLE_RATE, WINDOW_ROWS
from input_pipeline.media import features
from input_pipeline.preparation.corpora import Word

Words = tuple[Word, ...]


def of_frames(
    samples: Float[np.ndarray, "N"], start: float, first: int, count: int
) -> Float32[np.ndarray, "n"]:
    """The sound of the frames first <= t < first + count."""
    begin = first * features.FRAME_SAMPLES
    return between(samples, start, begin, begin + count * features.FRAME_SAMPLES)


def rows_of_frames(
    samples: Float[np.ndarray, "N"], start: float, first: int, count: int
) -> Float32[np.ndarray, "M 13"]:
    """MFCC rows of the frames first <= t < first + count: M = 4 count + 24, see Clip.

    samples: of the whole file, so that the first and last windows of a piece contain
    the sound around it.
    """
    rows = (count - 1) * ROWS_PER_FRAME + WINDOW_ROWS
    # One row more before: pre-emphasis y[n] = x[n] - .97 x[n-1] needs x[n-1].
    begin = first * features.FRAME_SAMPLES - features.PADDING - features.HOP
    end = begin + rows * features.HOP + features.ROW_SAMPLES
    return features.mfcc(between(samples, start, begin, end))[1:]


def between(
    samples: Float[np.ndarray, "N"], start: float, begin: int, end: int
) -> Float32[np.ndarray, "n"]:
    """Samples begin <= n < end of the clock; zeros outside the recording."""
    result = np.zeros(end - begin, np.float32)
    shift = round(start * SAMPLE_RATE)  # samples[0] is sound number `shift`
    a, b = max(begin, shift), min(end, shift + len(samples))
    if a < b:
        result[a - begin : b - begin] = samples[a - shift : b - shift]
    return result


def frames_with_sound(
    samples: Float[np.ndarray, "N"], start: float, first: int, last: int
) -> tuple[int, int]:
    """(first, last) of the frames first <= t < last of which half or more has sound;
    both are the same where no frame has."""
    end = start + len(samples) / SAMPLE_RATE
    first = max(first, round(start * FRAME_RATE))
    return first, max(first, min(last, round(end * FRAME_RATE)))


# --- words ---


def words_of_frames(words: Words, first: int, last: int) -> Words:
    """The words whose middle is in the frames first <= t < last, in seconds from the
    beginning of frame `first`."""
    start, end = first / FRAME_RATE, last / FRAME_RATE
    return tuple(
        (w, a - start, b - start) for w, a, b in words if start <= (a + b) / 2 < end
    )


def words_earlier(words: Words, seconds: float) -> Words:
    return tuple((word, a - seconds, b - seconds) for word, a, b in words)
