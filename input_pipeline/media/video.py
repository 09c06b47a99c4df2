"""Reads and writes videos: frames u8[T,H,W,3] at 25 fps and sound, on one clock.

Time is counted from the first frame; frame t is what is shown at t / 25 s.  PyAV
includes FFmpeg.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import FRAME_RATE, InputError
from input_pipeline.files import check_place, replacing
from input_pipeline.media import audio, hdr
from input_pipeline.media.container import (
    decoded_near,
    first_time,
    open_media,
    shown_size,
    sound_stream,
    sound_streams,
    timed_pictures,
    video_stream,
)

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000)
AAC_FALLBACK = 48000  # for every other rate
LAYOUTS = {1: "mono", 2: "stereo"}
A_VIDEO = "a video file"
FRAME_RATES = (5, 120)  # least and most frames a second of a video whose rate is kept
QUALITY = {"crf": "18", "preset": "medium"}  # x264: 18 is visually lossless


class NoSound(InputError):
    """The video has no sound track."""


def read_frames(
    path: str | pathlib.Path, fps: int | Fraction = FRAME_RATE, first: int = 0
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Reads a file's frames one by one, from number `first` on: RGB, 0..255, upright,
    at exactly `fps`.

    From a video of another rate, the frame nearest in presentation time is taken at
    each t / fps (of two equally near, the earlier), but none more than half a frame
    before its time: where a video pauses, the earlier frame stays.  Pixels that are not
    square become so, and high dynamic range (PQ, HLG) becomes ordinary (hdr.py).
    InputError: there is no such file, no video in it, it is damaged, its time stamps
    jump or its pictures change their size.
    """
    import av

    with open_media(path, A_VIDEO) as media:
        stream = video_stream(media, path)
        rate = float(stream.guessed_rate or stream.average_rate or FRAME_RATE)
        last, picture, count, size = None, None, first, None
        near = first and decoded_near(media, stream, path, float(first / fps))
        if first and near is None:  # from the beginning, then
            yield from itertools.islice(read_frames(path, fps), first, None)
            return
        zero, decoded = near or (None, media.decode(stream))
        timed = timed_pictures(decoded, rate, path, zero)
        try:
            for frame in _nearest(timed, 1 / rate, float(fps), first):
                if frame is not last:  # a slower source repeats frames
                    size = size or (frame.width, frame.height)
                    if (frame.width, frame.height) != size:
                        was, now = ("{}x{}".format(*s) for s in (size, _size(frame)))
                        raise InputError(
                            f"{path}: the picture changes from {was} to {now} at "
                            f"{float(count / fps):.1f} s; split the file there"
                        )
                    picture = _upright(frame, shown_size(stream, *size))
                    last = frame
                yield picture
                count += 1
        except av.FFmpegError as error:
            raise InputError(
                f"{path}: damaged after {count} frames ({error.strerror}); "
                "convert it again from the original"
            ) from error
        if not count:
            raise InputError(f"{path}: the video has no frames; record it again")


def _size(frame) -> tuple[int, int]:
    return frame.width, frame.height


def _upright(frame, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded picture as RGB with square pixels, turned upright (phones)."""
    width, height = size
    transfer = int(frame.color_trc)
    if transfer in (hdr.PQ, hdr.HLG):
        deep = frame.to_ndarray(format="rgb48le", width=width, height=height)
        picture = hdr.to_sdr(deep, transfer)
    else:
        picture = frame.to_ndarray(format="rgb24", width=width, height=height)
    # Contiguous, unlike PyAV's view.
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def _nearest(
    timed: Iterable[tuple[float, object]],
    duration: float,
    fps: float = FRAME_RATE,
    tick: int = 0,
) -> Iterator:
    """For every tick of a clock, from number `tick` on, the item nearest to it in time,
    at most half a tick before its own."""
    before, shown = 0.0, None
    for time, item in timed:
        # A microsecond is allowed for: time stamps are rounded, and a tie goes to the
        # earlier item.
        until = max((before + time) / 2, time - 0.5 / fps) + 5e-7
        while shown is not None and tick / fps <= until:
            yield shown
            tick += 1
        before, shown = time, item
    if shown is not None:
        for _ in range(tick, max(round((before + duration) * fps), tick, 1)):
            yield shown


def frame_rate(path: str | pathlib.Path) -> Fraction:
    """The frames a second of a file's video: what the file says or, where that is out
    of FRAME_RATES (as in what browsers record), the mean over its time stamps.

    InputError: see read_frames; it is out of FRAME_RATES.
    """
    with open_media(path, A_VIDEO) as media:
        stream = video_stream(media, path)
        rate = stream.average_rate or stream.guessed_rate or Fraction(FRAME_RATE)
        if not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
            packets = media.demux(stream)
            stamps = [float(x.pts * x.time_base) for x in packets if x.pts is not None]
            lasts = max(stamps, default=0) - min(stamps, default=0)
            if lasts > 0:
                rate = Fraction((len(stamps) - 1) / lasts).limit_denominator(1001)
    if not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
        raise InputError(
            f"{path}: {float(rate):.4g} frames a second; {FRAME_RATES[0]} to "
            f"{FRAME_RATES[1]} can be kept; convert it to 25, as with ffmpeg -r 25"
        )
    return Fraction(rate)


def read_sound(
    path: str | pathlib.Path, track: int = 0
) -> tuple[Float32[np.ndarray, "N"], float]:
    """A file's mono 16 kHz samples, and their start in seconds after the first frame.

    track: see audio.AudioReader.
    InputError: there is no such file or track, or it is damaged.  NoSound: it has no
    sound.
    """
    with open_media(path, A_VIDEO) as media:
        video_stream(media, path)
        if not sound_streams(media):
            raise NoSound(f"{path}: the video has no sound; give one with speech")
    reader = audio.AudioReader(path, track)
    samples = audio.joined(reader.mono_16k())
    picture = first_time(path, video_stream)
    sound = first_time(path, lambda *args: sound_stream(*args, reader.track))
    return samples, sound - picture


class VideoWriter:
    """Writes an MP4 (H.264 yuv420p, AAC) frame by frame; a context manager.

        with VideoWriter("out.mp4", (reader.rate, reader.blocks()), "how") as video:
            for frame in frames:
                video.write(frame)

    sound: (samples a second, iterator of f32[n, channels] blocks).  The blocks are read
    along with the frames, so that memory stays bounded, and are cut where the frames
    end.  Rate and channels (mono or stereo) are kept if AAC allows it.
    comment: stored in the file.  fps: frames a second.
    The file appears under its name when it is complete, or not at all.
    InputError: the folder is missing or not writable, frames differ in size, or none
    was written.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        sound: tuple[int, Iterable[Float32[np.ndarray, "_ channels"]]] | None = None,
        comment: str = "",
        fps: int | Fraction = FRAME_RATE,
    ):
        self.path, self.comment, self.fps = pathlib.Path(path), comment, fps
        if self.path.is_dir() or not self.path.parent.is_dir():
            what = "is a folder" if self.path.is_dir() else "its folder does not exist"
            raise InputError(f"{path}: {what}; give a file in an existing folder")
        try:
            check_place(self.path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        self.sound_rate, blocks = sound or (0, ())
        self.blocks = iter(blocks)
        self.pending = np.zeros((0, 1), np.float32)  # read, not yet written
        self.count = self.heard = 0  # frames and samples written
        self.shape = self.video = self.audio = None

    def __enter__(self):
        import av

        with contextlib.ExitStack() as stack:
            unfinished = stack.enter_context(replacing(self.path))
            options = {"movflags": "+faststart"}
            container = av.open(str(unfinished), "w", format="mp4", options=options)
            self.container = stack.enter_context(container)
            if self.comment:
                container.metadata["comment"] = self.comment
            self.stack = stack.pop_all()
        return self

    def write(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Adds a frame, RGB, 0..255.

        H.264 needs even sides: the last row or column of an odd side is repeated.
        """
        import av
        from av.video.reformatter import ColorRange, Colorspace

        if self.video is None:
            self._start(frame.shape)
        if frame.shape != self.shape:
            raise InputError(
                f"{self.path}: frame {self.count} is {frame.shape}, the first was "
                f"{self.shape}; write frames of one size"
            )
        height, width, _ = frame.shape
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709
        )
        picture.colorspace, picture.color_range = Colorspace.ITU709, ColorRange.MPEG
        picture.pts = self.count
        self.container.mux(self.video.encode(picture))
        self.count += 1
        self._write_sound(int(self.count * self.sound_rate / Fraction(self.fps)))

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width, _ = self.shape = shape
        video = self.container.add_stream("libx264", self.fps, options=QUALITY)
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuv420p"
        context = video.codec_context  # tags for players: BT.709, 16..235
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 1
        self.video = video
        self._pull()
        if len(self.pending):
            known = self.sound_rate in AAC_RATES
            rate = self.sound_rate if known else AAC_FALLBACK
            layout = LAYOUTS[self.pending.shape[1]]
            self.audio = self.container.add_stream("aac", rate, layout=layout)

    def _pull(self) -> bool:
        """Reads a block of sound into `pending`; False if none is left.

        More than two channels are mixed to one.
        """
        block = next(self.blocks, None)
        if block is None:
            return False
        if block.shape[1] > 2:
            block = block.mean(axis=1, keepdims=True)
        joined = [self.pending, block] if len(self.pending) else [block]
        self.pending = np.concatenate(joined)
        return True

    def _write_sound(self, until: int) -> None:
        """Encodes the samples up to number `until`, as far as there are any."""
        import av

        if self.audio is None:
            return
        while len(self.pending) < until - self.heard and self._pull():
            pass
        now, self.pending = np.split(self.pending, [max(until - self.heard, 0)])
        if not len(now):
            return
        planar = np.ascontiguousarray(now.T, np.float32)
        layout = LAYOUTS[len(planar)]
        frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = self.sound_rate, self.heard
        self.heard += len(now)
        self.container.mux(self.audio.encode(frame))  # resamples where it must

    def __exit__(self, kind, error, trace) -> None:
        """Closes the temporary file and gives it its name, or removes it on errors."""
        if kind is None:
            with self.stack:
                self._finish()
        else:
            self.stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if not self.count:
            raise InputError(f"{self.path}: no frame was written; write some")
        self.container.mux(self.video.encode(None))
        if self.audio is not None:
            self.container.mux(self.audio.encode(None))
