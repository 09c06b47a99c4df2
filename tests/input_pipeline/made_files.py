"""Files as others write them, whose content is known."""

import pathlib
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from tests.input_pipeline.whole_files import Video


def make(
    path: pathlib.Path,
    frames: Sequence[np.ndarray],
    rate=25,
    sound: np.ndarray | Sequence[tuple[float, np.ndarray]] | None = None,
    frame_start: float = 0.0,
    sound_start: float = 0.0,
    *,
    stamps: Sequence[float] | None = None,
    tracks: int = 1,
    **settings,
) -> pathlib.Path:
    """Writes frames at `rate`, and 16 kHz sound; starts in seconds.

    sound: samples, or several (second, samples).  stamps: the seconds of each frame,
    where they do not follow from rate and frame_start.  tracks: of sound; the sound is
    on the last one, the others are silent.  settings: of the video's codec.
    """
    if stamps is None:
        stamps = [frame_start + t / Fraction(rate) for t in range(len(frames))]
    if isinstance(sound, np.ndarray):
        sound = [(sound_start, sound)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(settings.pop("codec", "libx264"), Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = settings.pop("pix_fmt", "yuv420p")
        stream.options = {"crf": "5", "preset": "ultrafast"}
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        lossless = {".mkv": "pcm_s16le", ".ts": "mp2"}.get(path.suffix, "flac")
        heard = [
            container.add_stream(lossless, 16000, layout="mono")
            for _ in range(tracks if sound else 0)
        ]
        for stamp, frame in zip(stamps, frames, strict=True):
            kind = "rgb24" if frame.dtype == np.uint8 else "rgb48le"
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            picture.time_base = Fraction(1, 90000)
            picture.pts = round(90000 * stamp)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        for number, track in enumerate(heard, 1):
            for second, samples in sound or ():
                whole = np.round(samples[None] * 32767 * (number == tracks))
                part = av.AudioFrame.from_ndarray(
                    whole.astype(np.int16), format="s16p", layout="mono"
                )
                part.sample_rate, part.pts = 16000, round(16000 * second)
                part.time_base = Fraction(1, 16000)
                container.mux(track.encode(part))
            container.mux(track.encode(None))
    return path


def numbered(count: int) -> list[np.ndarray]:
    """Frame n shows n in binary: eight columns, dark or bright."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    columns = np.repeat(np.uint8(40 + 170 * bits), 12, axis=1)
    return [np.repeat(np.tile(c[:, None], (64, 1, 1)), 3, -1) for c in columns]


def numbers(frames) -> np.ndarray:
    bits = [f.reshape(64, 8, 12, 3).mean((0, 2, 3)) > 125 for f in frames]
    return np.array(bits) @ (1 << np.arange(8))


def flash_and_click(frame_rate, frame: int, seconds: float = 3.0):
    """One white frame, and a click that starts with it."""
    frames = [np.full((64, 96, 3), 30, np.uint8) for _ in range(int(3 * frame_rate))]
    frames[frame] = np.full((64, 96, 3), 230, np.uint8)
    sound = np.zeros(int(16000 * seconds), np.float32)
    click = round(16000 * frame / frame_rate)
    sound[click : click + 160] = 0.8
    return frames, sound


def seen_and_heard(clip: Video) -> tuple[float, float]:
    """Times, in seconds, of the flash and of the click."""
    flash = np.argmax(clip.frames.mean((1, 2, 3))) / 25
    return flash, np.argmax(np.abs(clip.samples) > 0.4) / 16000
