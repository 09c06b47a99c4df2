"""Whole videos and sounds in memory, as the tests compare them."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from input_pipeline.clip import FRAME_RATE, ROWS_PER_FRAME, SAMPLE_RATE, WINDOW_ROWS
from input_pipeline.media import audio, features
from input_pipeline.media.video import read_frames, read_sound


class Video(NamedTuple):
    """A video in memory.

    frames: u8[T,H,W,3] RGB at 25 fps.  samples: f32[N] mono 16 kHz, N = 640 T.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    samples: Float32[np.ndarray, "N"]


def read_video(path: str | pathlib.Path) -> Video:
    """A file's frames at 25 fps, and its sound cut or padded with zeros to fit them.

    The whole clip is held in memory; for long ones there is read_frames.
    InputError: see read_frames and read_sound.
    """
    frames = np.stack(list(read_frames(path)))
    samples = np.zeros(len(frames) * SAMPLE_RATE // FRAME_RATE, np.float32)
    sound, start = read_sound(path)
    begin = round(start * SAMPLE_RATE)  # negative: the sound starts before the frames
    sound = sound[max(-begin, 0) :]
    begin = min(max(begin, 0), len(samples))
    sound = sound[: len(samples) - begin]
    samples[begin : begin + len(sound)] = sound
    return Video(frames, samples)


def windows(
    samples: Float[np.ndarray, "N"], num_frames: int | None = None
) -> Float32[np.ndarray, "T 28 12"]:
    """The audio windows of 16 kHz samples, from their definition: rows 4t .. 4t+27 of
    the MFCC of the sound, with three frames of silence before it and silence after."""
    num_frames = num_frames or max(1, round(len(samples) / features.FRAME_SAMPLES))
    rows = (num_frames - 1) * ROWS_PER_FRAME + WINDOW_ROWS
    padded = np.zeros((rows - 1) * features.HOP + features.ROW_SAMPLES, np.float32)
    kept = samples[: len(padded) - features.PADDING]
    padded[features.PADDING : features.PADDING + len(kept)] = kept
    return audio.Heard(features.mfcc(padded), False).windows
