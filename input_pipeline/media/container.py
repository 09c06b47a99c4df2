"""Opens media files with FFmpeg and keeps to what they say: which stream to take, and
when each picture and each block of sound is due.

Time stamps are believed as long as they go on.  Where they miss a moment, the earlier
picture stays and the sound is silent; where they jump further than LONGEST_GAP, or
start again, the file is refused, so that neither time nor memory depends on a gap.
"""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from input_pipeline.clip import InputError

LONGEST_GAP = 1.5  # seconds for which a picture may stay, or sound be missing
STAMP_ERROR = 0.015  # seconds by which the stamps of sound may be wrong: rounding
MOST_PIXELS = 64_000_000  # of a picture
BAD_PACKETS = 3  # of sound, without which it is still whole
STAMPED = {  # formats that store a time with every block of sound; in others it is told
    # from the number of bytes, which is wrong where the rate changes
    "asf",
    "flv",
    "matroska,webm",
    "mov,mp4,m4a,3gp,3g2,mj2",
    "mpeg",
    "mpegts",
    "nut",
    "ogg",
}
READ_BYTES = 1 << 18  # at a time


@contextlib.contextmanager
def open_media(path: str | pathlib.Path, what: str) -> Iterator:
    """Opens a file; `with` gives PyAV's container.

    FFmpeg is handed the open file and may open nothing else: a playlist, or a list of
    files to be joined, cannot name other files or addresses.
    what: the file should be, as "a video file".
    InputError: there is no such file, it is empty, or FFmpeg cannot read it.
    """
    import av

    path = pathlib.Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; give the path of {what}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a readable file"
        ) from error
    with file:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; record or convert it again")
        closed = {"protocol_whitelist": "none"}
        try:
            container = av.open(
                file, options=closed, buffer_size=READ_BYTES, **any_metadata()
            )
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"{path}: not {what} that can be read ({why}); convert it to MP4 or WAV"
            ) from error
        with container:
            yield container


@functools.cache
def any_metadata() -> dict[str, str]:
    """What has PyAV open files whose metadata are no text.  From version 19 on it does
    so by itself."""
    import av

    older = int(av.__version__.partition(".")[0]) < 19
    return {"metadata_errors": "replace"} if older else {}


def first_time(path: str | pathlib.Path, choose: Callable) -> float:
    """The time stamp at which a stream of a file begins, in seconds; 0 without any.

    choose: (container, path) -> the stream, such as video_stream.  InputError: see
    open_media and choose; the stream is damaged at its beginning.
    """
    import av

    with open_media(path, "a video file") as container:
        try:
            first = next(container.decode(choose(container, path)), None)
        except av.FFmpegError as error:
            raise InputError(
                f"{path}: damaged at its beginning ({error.strerror}); convert it "
                "again from the original"
            ) from error
    return getattr(first, "time", None) or 0.0


# --- pictures ---


def video_stream(container, path: str | pathlib.Path):
    """The first stream of moving pictures; cover art is none.

    InputError: there is none, or its pictures are too large.
    """
    from av.stream import Disposition

    for stream in container.streams.video:
        shown = not stream.disposition & Disposition.attached_pic
        if shown and stream.codec_context:  # FFmpeg can decode it
            check_size(stream.width, stream.height, path)
            return stream
    raise InputError(f"{path}: no video in the file; give one with moving pictures")


def check_size(width: int, height: int, path: str | pathlib.Path) -> None:
    """InputError: a picture of this size would take more memory than it is worth."""
    if width * height > MOST_PIXELS:
        raise too_large(path, f"{width}x{height}")


def too_large(path: str | pathlib.Path, pixels: str) -> InputError:
    return InputError(
        f"{path}: {pixels} pixels; {MOST_PIXELS // 1_000_000} million are the most; "
        "make it smaller"
    )


def shown_size(stream, width: int, height: int) -> tuple[int, int]:
    """(width, height) in which pictures of so many pixels are shown: pixels need not be
    square.  The side that is too short grows."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / (aspect or 1))


def timed_pictures(
    decoded: Iterable,
    rate: float,
    path: str | pathlib.Path,
    zero: float | None = None,
) -> Iterator[tuple[float, object]]:
    """Decoded pictures with their seconds since the first, or since the stamp `zero`.

    A missing time stamp continues those before.  InputError: time stamps jump ahead, or
    start again.
    """
    time, last = 0.0, None
    for picture in decoded:
        if picture.time is not None:
            zero = picture.time if zero is None else zero
            time = picture.time - zero
        if last is not None:
            check_step(last, time - last, path)
        yield time, picture
        last = time
        time += 1 / rate


def check_step(at: float, step: float, path: str | pathlib.Path) -> None:
    """InputError: time stamps that were at `at` seconds go on by `step` seconds."""
    if abs(step) > LONGEST_GAP:
        how = f"jump {step:.1f} s ahead" if step > 0 else f"go back by {-step:.1f} s"
        raise InputError(
            f"{path}: the time stamps {how} after {at:.1f} s; a recording was cut or "
            "joined there; split it, or convert it again from the original"
        )


def decoded_near(media, stream, path: str | pathlib.Path, seconds: float):
    """(stamp of the file's first picture, pictures from one shortly before `seconds`
    after it on); None where the file cannot be entered there.  InputError: see
    first_time."""
    import av

    zero = first_time(path, video_stream)
    wanted = zero + seconds - LONGEST_GAP
    if wanted <= zero:
        return None
    try:
        media.seek(int(wanted * av.time_base))  # to the last key frame before it
        pictures = media.decode(stream)
        first = next(pictures, None)
    except av.FFmpegError:
        return None
    if first is None or first.time is None or not zero <= first.time <= wanted:
        return None
    return zero, itertools.chain([first], pictures)


# --- sound ---


def sound_streams(container) -> list:
    """The streams of sound that FFmpeg can decode."""
    return [s for s in container.streams.audio if s.codec_context]


def sound_stream(container, path: str | pathlib.Path, track: int = 0):
    """The file's sound stream number `track`, counted from 1; 0: the first.

    InputError: there is none, or no such one.
    """
    streams = sound_streams(container)
    if not streams:
        raise InputError(f"{path}: no sound in the file; give one with speech")
    if track > len(streams):
        raise InputError(
            f"{path}: no sound track {track}; it has {len(streams)}; choose one of them"
        )
    return streams[max(track, 1) - 1]


def decodable(media, stream) -> Iterator:
    """The decoded frames of a stream of sound.  As players do, it goes on after a few
    packets that cannot be decoded: tags and other things that writers leave there.

    av.FFmpegError: there are more.
    """
    import av

    bad = []
    for packet in media.demux(stream):
        try:
            yield from packet.decode()
        except ValueError as error:
            # A decoder that cannot be opened says so at the first packet.  At the rest
            # PyAV 19 has a ValueError of its own.
            if not (bad or isinstance(error, av.InvalidDataError)):
                raise
            bad.append(error)
            if len(bad) > BAD_PACKETS:
                raise bad[0] from None


class SoundConverter:
    """Decoded frames of sound -> f32[n, channels] at a fixed rate, whatever comes.

    One channel or two stay what they are, more are mixed to one by FFmpeg, which knows
    the weights of 5.1 and 7.1.  Rate, layout and format may change on the way.
    """

    def __init__(self, rate: int, channels: int):
        self.rate = rate
        self.channels = channels if channels <= 2 else 1
        self.known = self.resampler = None

    def __call__(self, frame) -> list[Float32[np.ndarray, "_ channels"]]:
        """The samples of the next frame, and those that an earlier one left."""
        import av

        known = frame.format.name, frame.layout.name, frame.sample_rate
        parts = self.rest() if known != self.known else []
        if self.resampler is None:
            self.known = known
            layout = "mono" if self.channels == 1 else "stereo"
            # Packed samples: PyAV writes beyond an array of many planar channels.
            options = {"rematrix_maxval": "1.0"}  # so that the sum is not clipped
            self.resampler = av.AudioResampler(
                "flt", layout, self.rate, options=options
            )
        frame.pts = None  # the filter would stretch sound to irregular stamps
        return parts + self._arrays(self.resampler.resample(frame))

    def rest(self) -> list[Float32[np.ndarray, "_ channels"]]:
        """What is still inside, at the end."""
        if self.resampler is None:
            return []
        parts, self.resampler = self._arrays(self.resampler.resample(None)), None
        return parts

    def _arrays(self, frames) -> list[np.ndarray]:
        return [f.to_ndarray().reshape(-1, self.channels) for f in frames]


def timed_sound(
    media, stream, converter: SoundConverter, path: str | pathlib.Path
) -> Iterator[Float32[np.ndarray, "_ channels"]]:
    """Blocks of a stream's samples, each where its time stamp says: zeros where sound
    is missing, and samples left out where two blocks overlap.

    InputError: time stamps jump ahead, or start again.
    """
    first, due, surplus = None, None, 0  # seconds; samples to be left out
    for frame in decodable(media, stream):
        time, parts = frame.time, converter(frame)
        if time is not None and media.format.name in STAMPED:
            if due is None:
                first = due = time
            late = time - due
            if abs(late) > STAMP_ERROR:
                check_step(due - first, late, path)
                due = time
                surplus -= round(late * converter.rate)
                if surplus < 0:
                    yield np.zeros((-surplus, converter.channels), np.float32)
                    surplus = 0
        due = (due or 0.0) + frame.samples / frame.sample_rate
        for part in parts:
            yield part[surplus:]
            surplus = max(surplus - len(part), 0)
    yield from converter.rest()
