"""Hears sound while it is being recorded."""

import numpy as np
from jaxtyping import Float, Float32

from input_pipeline.clip import ROWS_PER_FRAME, SAMPLE_RATE, WINDOW_ROWS, WINDOW_SIZE
from input_pipeline.media.audio import (
    IntegerSound,
    Resampler,
    Sound,
    as_columns,
    check_length,
    check_rate,
    mono_blocks,
)
from input_pipeline.media.features import PADDING, MfccRows, frames_of, windows_of


class SoundStream:
    """The audio windows of sound that is still being recorded: those of `hear`, each as
    soon as it can be computed.

    rate: samples a second.  Of several channels the mean is taken.
    InputError: the rate is not positive.
    """

    def __init__(self, rate: int = SAMPLE_RATE, name: str = "speech"):
        check_rate(rate, name)
        self.rate, self.name = rate, name
        self.resampler, self.rows = Resampler(rate), MfccRows(1)
        self.features = self.rows.push(np.zeros(PADDING, np.float32))
        self.taken = self.count = self.given = 0

    def push(self, samples: Sound | IntegerSound) -> Float32[np.ndarray, "n 28 12"]:
        """Takes the next samples; returns the windows that they complete.

        InputError: a sample is not finite, or they are not in [-1, 1]; nothing is taken
        of these samples.
        """
        columns = as_columns(samples)
        (mono,) = mono_blocks([columns], self.rate, self.name, start=self.taken)
        self.taken += len(mono)
        self._hear(self.resampler.push(mono))
        return self._complete()

    def close(self) -> Float32[np.ndarray, "n 28 12"]:
        """The rest of the windows: no sound will follow.  InputError: in all less than
        280 ms."""
        self._hear(self.resampler.close())
        check_length(self.count, self.name)
        total, end = frames_of(self.count), np.zeros(2 * PADDING, np.float32)
        self._add(self.rows.push(end))
        self._add(self.rows.close())
        return self._complete()[: total - self.given]

    def _hear(self, samples: Float[np.ndarray, "n"]) -> None:
        self.count += len(samples)
        self._add(self.rows.push(samples))

    def _add(self, rows: Float32[np.ndarray, "m 13"]) -> None:
        self.features = np.concatenate([self.features, rows])

    def _complete(self) -> Float32[np.ndarray, "n 28 12"]:
        """The windows of the rows that are there; only rows of later ones are kept."""
        if len(self.features) < WINDOW_ROWS:
            return np.zeros((0, WINDOW_ROWS, WINDOW_SIZE), np.float32)
        windows = windows_of(self.features)
        self.features = self.features[len(windows) * ROWS_PER_FRAME :]
        self.given += len(windows)
        return windows
