"""Makes aligned clips of one video file, or tells why it cannot be used.

The result depends on the file and the options alone.  Letters: T frames of the file,
t the index of a frame; a piece is the frames first <= t < last.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from input_pipeline.clip import FRAME_RATE, NUM_POINTS, SAMPLE_RATE, Clip, InputError
from input_pipeline.faces import align, detection, landmarks
from input_pipeline.faces.scenes import Notes, jaw_width, runs, scene_cuts, stretches
from input_pipeline.media import audio, video
from input_pipeline.preparation import sound
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.sync import Listener, Sync, find_lag

JPEG_QUALITY = 95
CUTTABLE = {"folder"}  # corpora whose files may be cut; in others a file is a clip
Piece = tuple[int, int, np.ndarray, np.ndarray]  # first, last, similarities, points
HELD_BYTES = 256 << 20  # of frames; those of larger files are decoded a second time


class Options(NamedTuple):
    """The settings for preparing a file; with the file they determine the result.

    max_seconds: longest clip, where files are cut.  several_faces: "reject" such clips,
    or follow the "largest" face.  sigma: smoothing of the alignment, frames.
    max_gap: most frames in a row without the face that are interpolated.
    min_frames: shortest clip.  min_face: least width of the jaw, source pixels.
    length_error: most frames by which sound and pictures may differ.  sync: what to do
    with sound out of step: "off" nothing, "check" reject it, "fix" move it
    """

    max_seconds: float = 10.0
    several_faces: str = "reject"
    template: align.Template = align.DEFAULT_TEMPLATE
    sigma: float = 3.0
    max_gap: int = 5
    min_frames: int = 17  # a window of 16 frames and another as the reference
    min_face: float = 46.0
    length_error: int = 5
    sync: str = "off"

    def as_json(self) -> dict:
        """The options as plain values, which are equal for equal options."""
        values = self._asdict() | {"template": align.template_as_json(self.template)}
        if self.sync == "off":  # as before there was a choice
            del values["sync"]
        return values


DEFAULT_OPTIONS = Options()


# The reasons why something is rejected, and the meaning of each one's value.
REASONS = {
    "undecodable": "the error",
    "no sound": "0",
    "silent sound": "its peak; 1 is full scale",
    "wrong length of sound": "sound minus pictures, frames",
    "no face": "frames without one: all",
    "face lost": "frames in a row without it, at most",
    "scene cut": "how many",
    "several faces": "times they were seen",
    "face too small": "the jaw's width, pixels of the source",
    "too short": "frames",
    "out of step": "by how many frames the sound is late",
    "sound not judged": "how well the mouths heard and seen agree at best, 1 is full",
    "turned": "how far the nose is off the middle of the face, in its widths",
    "grey": "mean difference of the largest and smallest colour, 0..255",
    "error": "the error: please report it",
}


class Reject(NamedTuple):
    """Why a file, or the part of it from `start` seconds on, is not used."""

    path: str  # within the corpus
    reason: str  # one of REASONS
    value: float | int | str
    start: float = 0.0


class Prepared(NamedTuple):
    """What a file yields.  clips: as `keep` returned them.  sync: of the file's sound,
    where that was looked at."""

    clips: list[Clip]
    rejects: list[Reject]
    sync: Sync | None = None


class _Unusable(Exception):
    """The whole file is rejected; the arguments are those of Reject after `path`."""


class _NotKept(Exception):
    """A finished clip could not be kept; the cause says why."""


class Recordings(NamedTuple):
    """Prepares videos: called with a Source, it returns a Prepared.  listener: who
    judges whether the sound is in step, unless options.sync is off."""

    options: Options
    listener: Listener | None = None

    def as_json(self) -> dict:
        """The options as plain values."""
        heard = {"listener": self.listener.key()} if self.listener else {}
        return self.options.as_json() | heard

    def key(self) -> str:
        """A hash of all that the result depends on beside the file."""
        return hashlib.sha256(json.dumps(self.as_json()).encode()).hexdigest()[:16]

    def __call__(self, source: Source, keep: "Keep") -> Prepared:
        """The file's clips and rejects: see prepare_clip."""
        return prepare_clip(source, self.options, self.listener, keep)


# What becomes of a finished clip.  It returns the clip, or the clip without its frames,
# if these are kept elsewhere: those of an hour of video would fill the memory.
Keep = Callable[[Clip], Clip]


def in_memory(clip: Clip) -> Clip:
    return clip


def prepare_clip(
    source: Source,
    options: Options,
    listener: Listener | None = None,
    keep: Keep = in_memory,
) -> Prepared:
    """A file's clips and rejects; a bad file is a reject, never an exception.

    keep: called with each clip as it is finished.  Where an error comes later, no clip
    of the file is used.
    InputError, MemoryError, and what `keep` raises: the machine lacks something, which
    is not the file's fault.
    """
    try:
        return _prepare(source, options, listener, keep)
    except _Unusable as error:
        return Prepared([], [Reject(source.name, *error.args)])
    except _NotKept as error:
        raise error.__cause__ from None
    except (InputError, MemoryError):
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}".replace(source.path, source.name)
        return Prepared([], [Reject(source.name, "error", message)])


def _prepare(
    source: Source, options: Options, listener: Listener | None, keep: Keep
) -> Prepared:
    samples, sound_start = _sound(source)
    frames = _Frames(source)
    notes = Notes(options.several_faces == "reject")
    points = list(detection.track(notes.watch(frames), name=source.name))
    _check_length(len(points), samples, sound_start, options)
    if all(p is None for p in points):
        raise _Unusable("no face", len(points))
    cuts, cuttable = scene_cuts(notes, points), source.corpus in CUTTABLE
    pieces, rejects = _pieces(source, points, cuts, options, cuttable)
    del points  # of an hour they are 100 MB
    pieces, bad = _judged(source, pieces, samples, sound_start, notes.several, options)
    rejects += bad
    sync = None
    clips = [_without_frames(source, one, samples, sound_start) for one in pieces]
    if options.sync != "off" and clips:
        sync = find_lag(listener, clips)
    if sync and options.sync == "check" and not sync.in_step:
        why = ("out of step", sync.lag)
        if not sync.judged:
            why = "sound not judged", round(sync.r, 3)
        return Prepared([], [*rejects, Reject(source.name, *why)], sync)
    if sync and options.sync == "fix" and sync.judged and not sync.in_step:
        late = sync.lag / FRAME_RATE
        start = sound_start - late
        source = source._replace(words=sound.words_earlier(source.words, late))
        pieces = [_with_sound(piece, samples, start) for piece in pieces]
        pieces, bad = _judged(source, pieces, samples, start, notes.several, options)
        rejects += bad
        clips = [_without_frames(source, piece, samples, start) for piece in pieces]
    kept = []
    for clip, some in zip(clips, _pictures(frames, pieces), strict=True):
        try:
            kept.append(keep(clip._replace(frames=some)))
        except Exception as error:
            raise _NotKept from error
    return Prepared(kept, rejects, sync)


# --- reading ---


def _sound(source: Source) -> tuple[np.ndarray, float]:
    try:
        samples, start = video.read_sound(source.path)
    except video.NoSound:
        raise _Unusable("no sound", 0) from None
    except InputError as error:
        raise _undecodable(source, error) from None
    if audio.is_silent(samples):
        raise _Unusable("silent sound", float(np.abs(samples).max(initial=0)))
    return samples, start


def _undecodable(source: Source, error: Exception) -> _Unusable:
    return _Unusable("undecodable", str(error).replace(source.path, source.name))


class _Frames:
    """A file's frames, to iterate over often: held if they fit, else decoded anew."""

    def __init__(self, source: Source):
        self.source, self.held, self.limit = source, None, HELD_BYTES

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        if self.held is not None:
            yield from self.held
            return
        held, size = [], 0
        try:
            for frame in video.read_frames(self.source.path):
                size += frame.nbytes
                if size > self.limit:
                    held, self.limit = [], 0  # nor are they held the next time
                else:
                    held.append(frame)
                yield frame
        except InputError as error:
            raise _undecodable(self.source, error) from None
        if size <= self.limit:
            self.held = held


# --- judging ---


def _check_length(
    num_frames: int, samples: np.ndarray, start: float, options: Options
) -> None:
    """Rejects a file whose sound differs in length or does not cover both ends."""
    sound = len(samples) / SAMPLE_RATE * FRAME_RATE
    begin = start * FRAME_RATE
    end = begin + sound
    error = max(abs(sound - num_frames), begin, num_frames - end)
    if error > options.length_error:
        raise _Unusable("wrong length of sound", round(sound - num_frames, 1))


def _judged(
    source: Source,
    pieces: list[Piece],
    samples: np.ndarray,
    start: float,
    several: list[int],
    options: Options,
) -> tuple[list[Piece], list[Reject]]:
    """(the pieces that are used, the rejected others)."""
    used, rejects = [], []
    for piece in pieces:
        why = _complaint(piece, samples, start, several, options)
        if why:
            rejects.append(Reject(source.name, *why, piece[0] / FRAME_RATE))
        else:
            used.append(piece)
    return used, rejects


def _complaint(
    piece: Piece,
    samples: np.ndarray,
    start: float,
    several: list[int],
    options: Options,
) -> tuple[str, float | int] | None:
    """(reason, value) why a piece is not used; None if it is."""
    first, last, _, points_px = piece
    if last - first < options.min_frames:
        return "too short", last - first
    if crowd := sum(first <= t < last for t in several):
        return "several faces", crowd
    width = float(np.median(jaw_width(points_px)))
    if width < options.min_face:
        return "face too small", round(width, 1)
    heard = sound.of_frames(samples, start, first, last - first)
    if audio.is_silent(heard):
        return "silent sound", float(np.abs(heard).max())
    return None


# --- cutting ---


def _pieces(
    source: Source,
    points: list[np.ndarray | None],
    cuts: list[int],
    options: Options,
    cuttable: bool,
) -> tuple[list[Piece], list[Reject]]:
    """The pieces, and the rejected parts.

    A file is one piece, less a few frames at its ends in which no face is seen.
    If it may be cut, it is cut at scene changes, where the face is lost, and into equal
    parts of at most max_seconds.
    """
    seen = np.array([p is not None for p in points])
    lost = [(a, b) for a, b in runs(~seen) if b - a > options.max_gap]
    rejects = [Reject(source.name, "face lost", b - a, a / FRAME_RATE) for a, b in lost]
    if not cuttable:
        if lost:
            return [], [max(rejects, key=lambda reject: reject.value)]
        if cuts:
            raise _Unusable("scene cut", len(cuts), cuts[0] / FRAME_RATE)
    pieces = []
    for first, last, px in stretches(points, cuts, options.max_gap):
        matrices = align.smooth(align.align(px, options.template), options.sigma)
        whole, limit = last - first, int(options.max_seconds * FRAME_RATE)
        parts = -(-whole // limit) if cuttable else 1
        marks = [whole * i // parts for i in range(parts + 1)]
        for i, j in itertools.pairwise(marks):
            pieces.append((first + i, first + j, matrices[i:j], px[i:j]))
    return pieces, rejects


def _with_sound(piece: Piece, samples: np.ndarray, start: float) -> Piece:
    """The frames of a piece that have sound."""
    first, last, matrices, px = piece
    a, b = sound.frames_with_sound(samples, start, first, last)
    return a, b, matrices[a - first : b - first], px[a - first : b - first]


# --- making clips ---


def _without_frames(
    source: Source,
    piece: Piece,
    samples: np.ndarray,
    sound_start: float,
) -> Clip:
    """The clip of a piece; its frames are still to come."""
    first, last, matrices, px = piece
    crop_px = align.transform(align.invert(matrices), px)
    name = source.clip_id
    return Clip(
        frames=[],
        landmarks=landmarks.normalise(crop_px).reshape(-1, NUM_POINTS, 2),
        mfcc=sound.rows_of_frames(samples, sound_start, first, last - first),
        transforms=matrices.astype(np.float32),
        corpus=source.corpus,
        speaker=source.speaker,
        clip_id=f"{name}@{first:06d}" if source.corpus in CUTTABLE else name,
        words=sound.words_of_frames(source.words, first, last),
    )


def _pictures(
    frames: Iterable[np.ndarray], pieces: list[Piece]
) -> Iterator[list[bytes]]:
    """The aligned frames of each piece, given in order; iterates over frames once."""
    stream, t = iter(frames), 0
    for first, last, matrices, _ in pieces:
        pictures = []
        while t < last:
            frame = next(stream)
            if t >= first:
                pictures.append(encode(align.warp(frame, matrices[t - first])))
            t += 1
        yield pictures


def encode(crop: UInt8[np.ndarray, "H W 3"]) -> bytes:
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", crop[..., ::-1], flags)[1].tobytes()
