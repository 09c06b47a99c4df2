"""The audio features that AT-net takes.

f32[N] mono 16 kHz -> MFCC f32[M,13] -> audio windows f32[T,28,12].  The authors'
features (docs/reference.md, section 3.1), which are python_speech_features'.
"""

import numpy as np
from jaxtyping import Float, Float32

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    FRAME_RATE,
    MFCC_RATE,
    MFCC_SIZE,
    ROWS_PER_FRAME,
    SAMPLE_RATE,
    WINDOW_ROWS,
)

HOP = SAMPLE_RATE // MFCC_RATE  # 160 samples from one MFCC row to the next
ROW_SAMPLES = 400  # 25 ms, from which one row is computed
FRAME_SAMPLES = SAMPLE_RATE // FRAME_RATE  # 640 samples a video frame
PADDING = CONTEXT_FRAMES * FRAME_SAMPLES  # 1920 zeros on each side, as the authors
BLOCK_ROWS = 500  # 5 s of MFCC rows are computed at a time, in 10 MB


def mfcc(samples: Float[np.ndarray, "N"]) -> Float32[np.ndarray, "M 13"]:
    """16 kHz samples -> one row of 13 coefficients every 10 ms.

    M = 1 + ceil((N - 400) / 160), at least 1; the tail is padded with zeros.  Column 0
    is the log energy.  The rows are computed 5 s at a time and do not depend on that.
    """
    rows = MfccRows()
    return np.concatenate([rows.push(samples), rows.close()])


class MfccRows:
    """The MFCC rows of samples that come in blocks; they do not depend on the blocks.

    least: rows are computed when so many can be; BLOCK_ROWS unless given.
    """

    def __init__(self, least: int | None = None):
        self.least = least or BLOCK_ROWS
        self.kept = np.zeros(0, np.float32)
        self.ahead = 0  # with so many rows, already given, `kept` begins

    def push(self, block: Float[np.ndarray, "n"]) -> Float32[np.ndarray, "m 13"]:
        """Takes the next samples and returns the rows that are computed with them."""
        found = [np.zeros((0, MFCC_SIZE), np.float32)]
        self.kept = np.concatenate([self.kept, block]) if len(self.kept) else block
        while (ready := (len(self.kept) - ROW_SAMPLES) // HOP + 1 - self.ahead) >= (
            self.least
        ):
            rows = min(ready, BLOCK_ROWS)
            found.append(self._compute(rows))
            # One hop more is kept: pre-emphasis y[n] = x[n] - .97 x[n-1] needs x[n-1].
            self.kept = self.kept[(self.ahead + rows - 1) * HOP :]
            self.ahead = 1
        return np.concatenate(found)

    def close(self) -> Float32[np.ndarray, "m 13"]:
        """The rest, the last row being padded with zeros.  Of no samples at all there
        is one row."""
        if not len(self.kept):
            self.kept = np.zeros(1, np.float32)  # python_speech_features needs one
        rest = 1 + max(-(-(len(self.kept) - ROW_SAMPLES) // HOP), 0) - self.ahead
        if not rest:
            return np.zeros((0, MFCC_SIZE), np.float32)
        return self._compute(rest)

    def _compute(self, rows: int) -> Float32[np.ndarray, "{rows} 13"]:
        from python_speech_features import mfcc as whole_mfcc

        end = (self.ahead + rows - 1) * HOP + ROW_SAMPLES
        part = self.kept[:end].astype(np.float64)
        # Samples that are not finite are reported when all have been seen.
        with np.errstate(invalid="ignore", over="ignore"):
            part = whole_mfcc(part, SAMPLE_RATE, winstep=1 / MFCC_RATE)
        return part[self.ahead :].astype(np.float32)


def windows_of(features: Float32[np.ndarray, "M 13"]) -> Float32[np.ndarray, "T 28 12"]:
    """The audio windows of MFCC rows, one a video frame: rows 4t to 4t+27 without the
    energy.  A view, so that it takes no memory."""
    view = np.lib.stride_tricks.sliding_window_view(features, WINDOW_ROWS, axis=0)
    return view[::ROWS_PER_FRAME, 1:].swapaxes(1, 2)


def frames_of(samples: int) -> int:
    """How many video frames belong to so many samples at 16 kHz."""
    return max(1, round(samples / FRAME_SAMPLES))
