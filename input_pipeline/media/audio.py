"""Reads sound and hears it: any sound -> f32[N] mono 16 kHz -> features (features.py).

Files are read block by block, so that hours of sound can be processed in little memory.
"""

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Integer

from input_pipeline.clip import (
    ROWS_PER_FRAME,
    SAMPLE_RATE,
    WINDOW_ROWS,
    InputError,
)
from input_pipeline.media import container
from input_pipeline.media.features import (
    HOP,
    PADDING,
    MfccRows,
    frames_of,
    windows_of,
)

MIN_SAMPLES = WINDOW_ROWS * HOP  # 280 ms, one audio window
SILENCE = 1e-3  # sound with a lower peak (-60 dB) is silence
LEAST_RATE, MOST_RATE = 1000, 768_000  # samples a second
LOUDEST = 16.0  # floats beyond it are no samples in [-1, 1] that were overdriven
FAR_WEAKER = 0.01  # of a channel's energy
LIBSNDFILE = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff")  # files begin so
BLOCK_SAMPLES = 1 << 16

Sound = Float[np.ndarray, "N"] | Float[np.ndarray, "N C"]
IntegerSound = Integer[np.ndarray, "N"] | Integer[np.ndarray, "N C"]


class Heard(NamedTuple):
    """The audio features of a recording.

    features: MFCC.  silent: see is_silent.  note: what a user should know of the way in
    which the recording was read, or "".
    """

    features: Float32[np.ndarray, "M 13"]
    silent: bool
    note: str = ""

    @property
    def windows(self) -> Float32[np.ndarray, "T 28 12"]:
        """One audio window a video frame; a view, so that it takes no memory."""
        return windows_of(self.features)


class AudioReader:
    """Reads the sound of a file in blocks; all formats of libsndfile and FFmpeg.

    rate: samples a second.  channels: 1 or 2; more are mixed to one.  note: see Heard.
    track: which sound track of the file, counted from 1; 0: the first that is not
    silent.  most: seconds; of a longer sound no more than these are decoded, in
    whatever way it is read.
    InputError: there is no such file or track, it is empty, or it holds no sound.
    """

    def __init__(
        self, path: str | pathlib.Path, track: int = 0, most: int | None = None
    ):
        self.path, self.track, self.note = pathlib.Path(path), track, ""
        self.most = most
        with container.open_media(path, "a sound or video file") as media:
            stream = container.sound_stream(media, path, track)
            tracks = len(container.sound_streams(media))
            self.rate, channels = stream.rate, stream.channels
        if not LEAST_RATE <= self.rate <= MOST_RATE:
            raise InputError(
                f"{path}: {self.rate} samples a second; {LEAST_RATE} to {MOST_RATE} "
                "are read; convert it to 16000"
            )
        self.channels = channels if channels <= 2 else 1
        self._read = self._ffmpeg_blocks
        if tracks == 1 and channels <= 2 and (rate := self._of_libsndfile()):
            self.rate, self._read = rate, self._soundfile_blocks
        if tracks > 1 and not track:
            self._choose_track(tracks)

    def _of_libsndfile(self) -> int:
        """The rate, if libsndfile reads the file, or 0.  Of MP3 it would print
        complaints of its own; sizes of 0 in a WAV's header it believes."""
        import soundfile

        with self.path.open("rb") as file:
            if file.read(4) not in LIBSNDFILE:
                return 0
        try:
            info = soundfile.info(str(self.path))
        except (soundfile.LibsndfileError, TypeError):  # TypeError: *.raw
            return 0
        usable = info.frames and not info.subtype.startswith("MPEG")
        return info.samplerate if usable else 0

    def _choose_track(self, tracks: int) -> None:
        """Takes the first track that is not silent, or the first."""
        for self.track in range(1, tracks + 1):
            if any(np.abs(block).max(initial=0) >= SILENCE for block in self.blocks()):
                break
        else:
            self.track = 1
            return
        self.note = (
            f"{self.path}: sound track {self.track} of {tracks} is taken, the first "
            "that is not silent; --track chooses another"
        )

    def blocks(self) -> Iterator[Float32[np.ndarray, "_ channels"]]:
        """The samples from the start.  InputError: the sound is damaged, or longer than
        `most`."""
        import av
        import soundfile

        count, limit = 0, math.inf if self.most is None else self.most * self.rate
        try:
            for block in self._read():
                count += len(block)
                if count > limit:
                    raise InputError(
                        f"{self.path} is longer than {self.most} s; cut it"
                    )
                yield block
        except (av.FFmpegError, soundfile.LibsndfileError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.path}: the sound is damaged ({why}); convert or record it again"
            ) from error

    def _soundfile_blocks(self) -> Iterator[np.ndarray]:
        import soundfile

        with soundfile.SoundFile(str(self.path)) as file:
            while len(block := file.read(BLOCK_SAMPLES, "float32", always_2d=True)):
                yield block

    def _ffmpeg_blocks(self) -> Iterator[np.ndarray]:
        with container.open_media(self.path, "a sound or video file") as media:
            stream = container.sound_stream(media, self.path, self.track)
            converter = container.SoundConverter(self.rate, self.channels)
            yield from container.timed_sound(media, stream, converter, self.path)

    def mono_16k(self) -> Iterator[Float32[np.ndarray, "_"]]:
        """The samples from the start, mixed to one channel, at 16 kHz.

        InputError: see `blocks`; the sound is too loud, or not finite.
        """
        return _mixed_16k(self.blocks, self.channels, self.rate, str(self.path))


def read_audio(path: str | pathlib.Path) -> Float32[np.ndarray, "N"]:
    """A file's sound as checked mono 16 kHz samples, as librosa.load(path, sr=16000).

    InputError: see AudioReader and check_audio.
    """
    samples = joined(AudioReader(path).mono_16k())
    check_audio(samples, str(path))
    return samples


def hear_file(path: str | pathlib.Path, track: int = 0) -> Heard:
    """The audio features of a file: hear([read_audio(path)]), but in little memory.

    track: see AudioReader.  InputError: see AudioReader and check_audio.
    """
    reader = AudioReader(path, track)
    return hear(reader.mono_16k(), str(path))._replace(note=reader.note)


def from_array(
    samples: Sound | IntegerSound,
    rate: int,
    name: str = "samples",
) -> Float32[np.ndarray, "M"]:
    """Sound in memory at any rate -> mono 16 kHz, checked, as read_audio gives it.

    Integers are scaled by their type's range, whose middle is silence; floats are taken
    to be in [-1, 1].
    InputError: the rate is not positive; see check_audio.
    """
    check_rate(rate, name)
    columns = as_columns(samples)

    def blocks() -> Iterator[np.ndarray]:
        for i in range(0, len(columns), BLOCK_SAMPLES):
            yield columns[i : i + BLOCK_SAMPLES]

    result = joined(_mixed_16k(blocks, columns.shape[1], rate, name))
    check_audio(result, name)
    return result


def check_rate(rate: int, name: str) -> None:
    """InputError: the rate is not positive."""
    if rate <= 0:
        raise InputError(f"{name}: rate={rate}; give samples a second, such as 16000")


def as_columns(samples: Sound | IntegerSound) -> Float32[np.ndarray, "N C"]:
    """Samples of any type as floats, one column a channel."""
    if np.issubdtype(samples.dtype, np.integer):
        info = np.iinfo(samples.dtype)
        half = (info.max + 1 - info.min) / 2
        samples = (samples.astype(np.float64) - (info.min + half)) / half
    columns = samples[:, None] if samples.ndim == 1 else samples
    return columns.astype(np.float32)


def joined(blocks: Iterable[np.ndarray]) -> Float32[np.ndarray, "N"]:
    """Blocks of samples as one array; unlike np.concatenate it does not hold all of
    them beside it."""
    whole = bytearray()
    for block in blocks:
        whole += np.ascontiguousarray(block, np.float32).data.cast("B")
    return np.frombuffer(whole, np.float32)


def check_audio(samples: Float[np.ndarray, "N"], name: str = "samples") -> None:
    """Checks 16 kHz samples.  InputError: NaN, infinity, or less than 280 ms."""
    for _ in mono_blocks([samples[:, None]], SAMPLE_RATE, name):
        pass
    check_length(len(samples), name)


def check_length(count: int, name: str) -> None:
    if count < MIN_SAMPLES:
        raise InputError(
            f"{name}: {1000 * count / SAMPLE_RATE:.0f} ms of sound; "
            f"{1000 * MIN_SAMPLES // SAMPLE_RATE} ms is the least; give a longer one"
        )


def is_silent(samples: Float[np.ndarray, "N"]) -> bool:
    """Whether no sample reaches 1e-3 of full scale, so that there is no speech."""
    loudest = max(samples.max(initial=0), -samples.min(initial=0))
    return bool(loudest < SILENCE)


def _mixed_16k(
    blocks: Callable[[], Iterable[np.ndarray]], channels: int, rate: int, name: str
) -> Iterator[np.ndarray]:
    """Blocks [n, channels], which can be had repeatedly -> mono at 16 kHz."""
    alone = _alone(blocks()) if channels == 2 else None
    return _to_16k(mono_blocks(blocks(), rate, name, alone), rate)


def _alone(blocks: Iterable[np.ndarray]) -> int | None:
    """The louder one of two channels of which one is the other inverted, as a wrongly
    wired microphone gives it: their mean would be silence.  None: take the mean."""
    each, mean = np.zeros(2), 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # reported by mono_blocks
        for block in blocks:
            each += np.sum(np.square(block, dtype=np.float64), axis=0)
            mean += float(np.sum(np.square(block.mean(axis=1), dtype=np.float64)))
    return int(np.argmax(each)) if mean < FAR_WEAKER * each.max() else None


def mono_blocks(
    blocks: Iterable[np.ndarray],
    rate: int,
    name: str,
    channel: int | None = None,
    start: int = 0,
) -> Iterator[np.ndarray]:
    """The mean of the blocks' channels, or one channel.  start: how many samples came
    before.

    InputError, at the end: a sample was not finite, or they are not in [-1, 1].
    """
    seen, bad, first, peak = start, 0, 0, 0.0
    for block in blocks:
        mono = block.mean(axis=1) if channel is None else block[:, channel].copy()
        wrong = np.flatnonzero(~np.isfinite(mono))
        if len(wrong):
            first = first if bad else seen + int(wrong[0])
            bad += len(wrong)
        seen += len(mono)
        peak = max(peak, float(mono.max(initial=0)), -float(mono.min(initial=0)))
        yield mono
    if bad:
        raise InputError(
            f"{name}: {bad} samples are NaN or infinite, the first at sample {first}, "
            f"{first / rate:.3f} s; repair or cut the recording"
        )
    if peak > LOUDEST:
        raise InputError(
            f"{name}: samples reach {peak:.0f}; floats must be in [-1, 1]; divide them "
            "by their full scale, such as 32768"
        )


def _to_16k(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Mono blocks -> 16 kHz; see Resampler."""
    resampler = Resampler(rate)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.close()


class Resampler:
    """Mono blocks of samples -> 16 kHz, as librosa resamples: of n samples in all
    ceil(n 16000 / rate).  What comes back is late by the resampler's own delay."""

    def __init__(self, rate: int):
        import soxr

        self.rate, self.count, self.given, self.stream = rate, 0, 0, None
        if rate != SAMPLE_RATE:
            self.stream = soxr.ResampleStream(
                rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )

    def push(self, block: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
        """Takes the next samples and returns what can be computed by now."""
        if self.stream is None:
            return block
        part = self.stream.resample_chunk(block)
        self.count, self.given = self.count + len(block), self.given + len(part)
        return part

    def close(self) -> Float32[np.ndarray, "m"]:
        """The rest, when all samples were given."""
        if self.stream is None:
            return np.zeros(0, np.float32)
        # The output is delayed, so that only its last part can be too long.
        part = self.stream.resample_chunk(np.zeros(0, np.float32), last=True)
        missing = -(-self.count * SAMPLE_RATE // self.rate) - self.given
        return np.pad(part[:missing], (0, max(missing - len(part), 0)))


def hear(blocks: Iterable[Float32[np.ndarray, "_"]], name: str = "samples") -> Heard:
    """16 kHz samples in blocks -> the audio features, with one window a video frame.

    Only the features stay in memory, 5 kB per second.  InputError: see check_audio.
    """
    count, peak = 0, 0.0

    def padded() -> Iterator[np.ndarray]:
        nonlocal count, peak
        yield np.zeros(PADDING, np.float32)
        for block in mono_blocks((b[:, None] for b in blocks), SAMPLE_RATE, name):
            count, peak = count + len(block), max(peak, np.abs(block).max(initial=0))
            yield block
        check_length(count, name)
        yield np.zeros(2 * PADDING, np.float32)  # enough for the last window

    rows = MfccRows()
    features = [rows.push(block) for block in padded()]
    features = np.concatenate([*features, rows.close()])
    total = frames_of(count)
    rows = (total - 1) * ROWS_PER_FRAME + WINDOW_ROWS
    return Heard(features[:rows], bool(peak < SILENCE))
