"""Any sound -> f32[N] mono 16 kHz -> MFCC f32[M,13] -> windows f32[T,28,12].

Files are read block by block, so that hours of sound at any rate pass through without
being held.  Features are the authors' (reference section 3.1), which are those of
python_speech_features.
"""

import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Int

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    FRAME_RATE,
    MFCC_RATE,
    MFCC_SIZE,
    ROWS_PER_FRAME,
    SAMPLE_RATE,
    WINDOW_ROWS,
    InputError,
)

HOP = SAMPLE_RATE // MFCC_RATE  # 160 samples from row to row
ROW_SAMPLES = 400  # 25 ms, what one row sees
FRAME_SAMPLES = SAMPLE_RATE // FRAME_RATE  # 640 samples a video frame
PADDING = CONTEXT_FRAMES * FRAME_SAMPLES  # 1920 zeros before and after, as the authors
MIN_SAMPLES = WINDOW_ROWS * HOP  # 280 ms, one window
SILENCE = 1e-3  # a peak below it (-60 dB) is silence
BLOCK_SAMPLES = 1 << 16
BLOCK_ROWS = 6000  # a minute of MFCC rows at a time: 20 MB while they are computed

Sound = Float[np.ndarray, "N"] | Float[np.ndarray, "N C"]
IntegerSound = Int[np.ndarray, "N"] | Int[np.ndarray, "N C"]


class AudioReader:
    """The sound of a file, in blocks; whatever libsndfile or FFmpeg reads.

    rate: samples a second.  channels.  blocks(): f32[n, channels] in [-1, 1], from the
    start at every call.  InputError: no file, empty, no sound in it.
    """

    def __init__(self, path: str | pathlib.Path):
        import av
        import soundfile

        self.path = pathlib.Path(path)
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "no such file"
            raise InputError(f"{path}: {what}; give the path of a sound or video file")
        if not self.path.stat().st_size:
            raise InputError(f"{path}: the file is empty; record or convert it again")
        try:
            info = soundfile.info(str(self.path))
            self.rate, self.channels = info.samplerate, info.channels
            self._read = self._soundfile_blocks
        except soundfile.LibsndfileError:
            try:
                with av.open(str(self.path)) as container:
                    stream = container.streams.audio[0]
                    self.rate, self.channels = stream.rate, stream.channels
            except (av.FFmpegError, IndexError) as error:
                raise InputError(
                    f"{path}: no readable sound; convert it to WAV, FLAC or MP3"
                ) from error
            self._read = self._ffmpeg_blocks

    def blocks(self) -> Iterator[Float32[np.ndarray, "_ channels"]]:
        """The samples from the start.  InputError: broken off in the middle."""
        import av
        import soundfile

        try:
            yield from self._read()
        except (av.FFmpegError, soundfile.LibsndfileError) as error:
            raise InputError(
                f"{self.path}: the sound is damaged; convert or record it again"
            ) from error

    def _soundfile_blocks(self) -> Iterator[np.ndarray]:
        import soundfile

        with soundfile.SoundFile(str(self.path)) as file:
            while len(block := file.read(BLOCK_SAMPLES, "float32", always_2d=True)):
                yield block

    def _ffmpeg_blocks(self) -> Iterator[np.ndarray]:
        import av

        with av.open(str(self.path)) as container:
            stream = container.streams.audio[0]
            planar = av.AudioResampler("fltp", stream.layout, stream.rate)
            for frame in container.decode(stream):
                for part in planar.resample(frame):
                    yield np.ascontiguousarray(part.to_ndarray().T)


def read_audio(path: str | pathlib.Path) -> Float32[np.ndarray, "N"]:
    """A file's sound, mono 16 kHz, checked.  As librosa.load(path, sr=16000) gives it.

    InputError: see AudioReader and check_audio.
    """
    reader = AudioReader(path)
    samples = _to_16k(_mono(reader.blocks(), reader.rate, str(path)), reader.rate)
    check_audio(samples, str(path))
    return samples


def from_array(
    samples: Sound | IntegerSound,
    rate: int,
    name: str = "samples",
) -> Float32[np.ndarray, "M"]:
    """Sound in memory at any rate -> mono 16 kHz, checked, as read_audio gives it.

    Integers are scaled by their type's range, floats taken as [-1, 1].
    InputError: a rate that is not positive; see check_audio.
    """
    if rate <= 0:
        raise InputError(f"{name}: rate={rate}; give samples a second, such as 16000")
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    columns = samples.reshape(len(samples), -1).astype(np.float32)
    blocks = (
        columns[i : i + BLOCK_SAMPLES] for i in range(0, len(columns), BLOCK_SAMPLES)
    )
    result = _to_16k(_mono(blocks, rate, name), rate)
    check_audio(result, name)
    return result


def check_audio(samples: Float[np.ndarray, "N"], name: str = "samples") -> None:
    """InputError: NaN or infinity, or fewer than 280 ms (one window) at 16 kHz."""
    for _ in _mono([samples[:, None]], SAMPLE_RATE, name):
        pass
    if len(samples) < MIN_SAMPLES:
        raise InputError(
            f"{name}: {1000 * len(samples) / SAMPLE_RATE:.0f} ms of sound; "
            f"{1000 * MIN_SAMPLES // SAMPLE_RATE} ms is the least; give a longer one"
        )


def is_silent(samples: Float[np.ndarray, "N"]) -> bool:
    """No sample reaches 1e-3 of full scale: nothing to speak to."""
    return not len(samples) or bool(np.abs(samples).max() < SILENCE)


def _mono(blocks: Iterable[np.ndarray], rate: int, name: str) -> Iterator[np.ndarray]:
    """Channel means of blocks; at the end InputError if any sample was not finite."""
    seen, bad, first = 0, 0, 0
    for block in blocks:
        mono = block.mean(axis=1)
        wrong = np.flatnonzero(~np.isfinite(mono))
        if len(wrong):
            first = first if bad else seen + int(wrong[0])
            bad += len(wrong)
        seen += len(mono)
        yield mono
    if bad:
        raise InputError(
            f"{name}: {bad} samples are NaN or infinite, the first at sample {first}, "
            f"{first / rate:.3f} s; repair or cut the recording"
        )


def _to_16k(blocks: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """Mono blocks -> 16 kHz; ceil(n 16000 / rate) samples, as librosa's resampling."""
    import soxr

    if rate == SAMPLE_RATE:
        return np.concatenate([np.zeros(0, np.float32), *blocks])
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    count, parts = 0, []
    for block in blocks:
        count += len(block)
        parts.append(stream.resample_chunk(block))
    parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    missing = -(-count * SAMPLE_RATE // rate) - sum(map(len, parts))
    parts.append(np.zeros(max(missing, 0), np.float32))
    samples = np.concatenate(parts)
    return samples[: len(samples) + min(missing, 0)]


def mfcc(samples: Float[np.ndarray, "N"]) -> Float32[np.ndarray, "M 13"]:
    """16 kHz samples -> one row of 13 coefficients every 10 ms.

    M = 1 + ceil((N - 400) / 160), at least 1; the tail is padded with zeros.  Column 0
    is the log energy.  Computed a minute at a time; the rows do not depend on that.
    """
    from python_speech_features import mfcc as whole_mfcc

    if not len(samples):
        samples = np.zeros(1, np.float32)  # the package needs one
    rows = 1 + max(-(-(len(samples) - ROW_SAMPLES) // HOP), 0)
    result = np.empty((rows, MFCC_SIZE), np.float32)
    for first in range(0, rows, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, rows)
        # One hop more before: pre-emphasis y[n] = x[n] - .97 x[n-1] needs x[n-1].
        ahead = min(first, 1)
        part = samples[(first - ahead) * HOP : (last - 1) * HOP + ROW_SAMPLES]
        part = whole_mfcc(part.astype(np.float64), SAMPLE_RATE, winstep=1 / MFCC_RATE)
        result[first:last] = part[ahead:]
    return result


def windows(
    samples: Float[np.ndarray, "N"], num_frames: int | None = None
) -> Float32[np.ndarray, "T 28 12"]:
    """16 kHz samples -> what the networks hear for each video frame; a read-only view.

    Frame t, at t / 25 s, hears rows 4t .. 4t+27 of the MFCC of the sound padded with
    three video frames of silence before and behind (reference section 3.1): 0.12 s
    before its start to 0.16 s after it.  T is num_frames, or the sound's length,
    N / 640 rounded, at least 1; beyond its end there is silence.
    InputError: fewer than one window asked for.
    """
    if num_frames is None:
        num_frames = max(1, round(len(samples) / FRAME_SAMPLES))
    if num_frames < 1:
        raise InputError(f"num_frames={num_frames}: windows need 1 or more; ask for 1")
    rows = (num_frames - 1) * ROWS_PER_FRAME + WINDOW_ROWS
    enough = (rows - 1) * HOP + ROW_SAMPLES
    padded = np.zeros(max(PADDING + len(samples) + PADDING, enough), np.float32)
    padded[PADDING : PADDING + len(samples)] = samples
    features = mfcc(padded[:enough])
    view = np.lib.stride_tricks.sliding_window_view(features, WINDOW_ROWS, axis=0)
    return view[::ROWS_PER_FRAME, 1:].swapaxes(1, 2)
