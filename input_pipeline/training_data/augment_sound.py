"""Training augmentation of what AT-net hears: the cepstra of a clip, changed.

Noise and echoes add energies in the bands of the mel filters.  The cepstra are the
cosine transform of these energies' logarithms, of which 13 are kept: enough for their
smooth shape, which is what is changed here.
"""

import functools

import numpy as np
from jaxtyping import Float, Float32, Float64

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    MFCC_RATE,
    ROWS_PER_FRAME,
    SAMPLE_RATE,
    WINDOW_ROWS,
    WINDOW_SIZE,
)
from input_pipeline.training_data.augment import Augmentation

NUM_FILTERS, LIFTER = 26, 22  # of python_speech_features.mfcc
LOUDNESS = 0.75  # quantile of the rows' energy that stands for the speech's
FLUTTER = 0.5  # standard deviation of a noise's log energy, from row to row and band
TILT = 3.0  # largest difference of a noise's log energy from the middle to the ends
WET = 0.5  # energy of the echoes of a room, relative to the sound's


def change_sound(
    change: Augmentation, mfcc: Float32[np.ndarray, "M 13"]
) -> Float32[np.ndarray, "M 13"]:
    """Applies another vocal tract length, another microphone, echoes and a noise in the
    background, and adds noise to the cepstra.

    There is no change of loudness: a sound g times as loud has all log mel energies
    raised by 2 ln g, a constant over the bands, which the cosine transform puts into
    coefficient 0 alone.  Column 0 is not part of an audio window.
    """
    if change.voice != 1:
        mfcc = mfcc.copy()
        mfcc[:, 1:] = mfcc[:, 1:] @ other_voice(change.voice).T
    random = np.random.Generator(np.random.Philox(change.noise_seed))
    if change.channel:
        mfcc = other_microphone(mfcc, change.channel, random)
    if change.background or change.room:
        mfcc = in_a_place(mfcc, change.background, change.room, random)
    if not change.noise:
        return mfcc
    hiss = random.standard_normal(mfcc.shape, dtype=np.float32)
    return mfcc + np.float32(change.noise) * mfcc.std(0) * hiss


def other_microphone(
    mfcc: Float32[np.ndarray, "M 13"], channel: float, random: np.random.Generator
) -> Float32[np.ndarray, "M 13"]:
    """The cepstra as a microphone with another frequency response gives them: the same
    is added to those of every row.  The response's log energy is a sum of cosines over
    the bands, of normally distributed amplitudes: the n-th with channel / sqrt(n)."""
    order = np.arange(1, WINDOW_SIZE + 1)
    amplitudes = channel / np.sqrt(order) * random.standard_normal(WINDOW_SIZE)
    changed = mfcc.copy()
    changed[:, 1:] += lifter()[1:] * np.sqrt(NUM_FILTERS / 2) * amplitudes
    return changed


def in_a_place(
    mfcc: Float32[np.ndarray, "M 13"],
    background: float,
    room: float,
    random: np.random.Generator,
) -> Float32[np.ndarray, "M 13"]:
    """The cepstra of the sound in a room and with a noise behind it.

    background: the noise's energy relative to the speech's; its colour is random.
    room: seconds in which the echoes fall by 60 dB.  0 and 0 change nothing.
    """
    before = band_energies(mfcc)
    after = before
    if room:
        after = before + WET * echoes(before, room)
    if background:
        speech = np.quantile(before.sum(1), LOUDNESS)
        at = np.linspace(-1, 1, NUM_FILTERS)
        colour = random.uniform(-TILT, TILT, 2) @ np.stack([at, at**2])
        flutter = FLUTTER * random.standard_normal(before.shape)
        noise = np.exp(colour + flutter)
        after = after + background * speech * noise / noise.sum(1).mean()
    ratio = np.log(after / before)
    changed = mfcc.astype(np.float64)
    changed[:, 1:] += ratio @ cosines()[1:].T * lifter()[1:]
    changed[:, 0] = np.log(np.exp(changed[:, 0]) * after.sum(1) / before.sum(1))
    return changed.astype(np.float32)


def echoes(
    energies: Float64[np.ndarray, "M F"], room: float
) -> Float64[np.ndarray, "M F"]:
    """What the rows before leave in each row: they fade by 60 dB in `room` seconds; all
    that a row leaves has its energy in sum."""
    from scipy.signal import lfilter

    kept = 10 ** (-6 / (room * MFCC_RATE))
    return lfilter([0, 1 - kept], [1, -kept], energies, axis=0)


def band_energies(mfcc: Float32[np.ndarray, "M 13"]) -> Float64[np.ndarray, "M F"]:
    """The energies in the mel bands for which the cepstra stand, smooth over the bands;
    their sum is the row's energy, whose logarithm is column 0."""
    shape = np.exp((mfcc[:, 1:] / lifter()[1:]) @ cosines()[1:])
    energy = np.exp(mfcc[:, :1].astype(np.float64))
    return energy * shape / shape.sum(1, keepdims=True)


@functools.cache
def cosines() -> Float64[np.ndarray, "13 F"]:
    """The rows of the orthonormal cosine transform of the bands, 0 .. 12."""
    cepstra, bands = np.arange(WINDOW_SIZE + 1), np.arange(NUM_FILTERS)
    rows = np.cos(np.pi * cepstra[:, None] * (bands + 0.5) / NUM_FILTERS)
    return rows * np.sqrt(np.where(cepstra, 2, 1) / NUM_FILTERS)[:, None]


@functools.cache
def lifter() -> Float64[np.ndarray, "13"]:
    """By which the cepstra 0 .. 12 are multiplied."""
    cepstra = np.arange(WINDOW_SIZE + 1)
    return 1 + LIFTER / 2 * np.sin(np.pi * cepstra / LIFTER)


def other_voice(factor: float) -> Float32[np.ndarray, "12 12"]:
    """The matrix that turns cepstra 1..12 into those of a voice whose resonances are
    `factor` times as high: vocal tract length normalisation (Pitz and Ney 2005).

    The cepstra stand for a sum of cosines over the mel filters, which is evaluated at
    the frequencies f / factor and transformed again.  Factor 1 gives the identity.
    """
    filters, cepstra = np.arange(NUM_FILTERS), np.arange(1, WINDOW_SIZE + 1)
    top = mel(SAMPLE_RATE / 2) / (NUM_FILTERS + 1)
    heard = mel(hertz((filters + 1) * top) / factor) / top - 1
    heard = np.minimum(heard, NUM_FILTERS - 0.5)

    sums = np.cos(np.pi * cepstra * (heard[:, None] + 0.5) / NUM_FILTERS)
    warped = np.sqrt(2 / NUM_FILTERS) * cosines()[1:] @ sums
    scale = lifter()[1:]
    return (scale[:, None] * warped / scale).astype(np.float32)


def mel(frequency):
    """Hertz to mel."""
    return 2595 * np.log10(1 + frequency / 700)


def hertz(pitch):
    """Mel to hertz."""
    return 700 * (10 ** (pitch / 2595) - 1)


def usable_tempo(tempo: float, length: int, least: int) -> tuple[float, int]:
    """(the tempo, or a slower one at which `least` frames of a clip are left, how many
    of its `length` frames are left): these are (length - 1) / tempo + 1, rounded down.
    """
    tempo = min(tempo, max(length - 1, 1) / max(least - 1, 1))
    # At the slower tempo the quotient is least - 1, or rounded to a little below that.
    return tempo, max(int((length - 1) / tempo) + 1, least)


def change_tempo(
    tempo: float,
    count: int,
    landmarks: Float32[np.ndarray, "T 68 2"],
    mfcc: Float32[np.ndarray, "M 13"],
) -> tuple[Float32[np.ndarray, "{count} 68 2"], Float32[np.ndarray, "m 13"]]:
    """The same words spoken `tempo` times as fast, at the same pitch: `count` frames,
    see usable_tempo.  Frames and rows are interpolated linearly; the first and last
    rows are repeated beyond the sound's ends."""
    if tempo == 1:
        return landmarks, mfcc
    rows = np.arange((count + 2 * CONTEXT_FRAMES) * ROWS_PER_FRAME)
    middle = (WINDOW_ROWS - 1) / 2  # of frame 0's audio window
    return (
        between(landmarks, tempo * np.arange(count)),
        between(mfcc, tempo * (rows - middle) + middle),
    )


def between(
    x: Float32[np.ndarray, "N *rest"], at: Float[np.ndarray, "n"]
) -> Float32[np.ndarray, "n *rest"]:
    """x at fractional indices of its first axis, by linear interpolation."""
    at = np.clip(at, 0, len(x) - 1)
    low = np.minimum(at.astype(int), max(len(x) - 2, 0))
    share = (at - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return x[low] + share * (x[np.minimum(low + 1, len(x) - 1)] - x[low])
