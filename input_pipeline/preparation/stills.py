"""Makes a clip of a photo: its lips move as those of a speaker of other clips did, and
it blinks.

The first frame is the photo itself, with its own landmarks.  In the others its lips
follow a *driver*: a training clip of videos that were prepared before, whose sound
comes along.  A photo whose lips are closed borrows what is behind them from another
photo that shows its teeth.  Which driver and which lender a photo gets, and when it
blinks, depends on its name alone.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, UInt8

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    CROP_SIZE,
    NUM_POINTS,
    ROWS_PER_FRAME,
    Clip,
    InputError,
)
from input_pipeline.faces import align, detection, eyelids, landmarks, lips
from input_pipeline.faces.rest import closed
from input_pipeline.faces.scenes import jaw_width
from input_pipeline.media import image
from input_pipeline.preparation.corpora import Source
from input_pipeline.preparation.recording import (
    Keep,
    Prepared,
    Reject,
    encode,
    in_memory,
)
from input_pipeline.training_data import dataset, sampling

MOST_LENDERS = 256  # photos that others may borrow teeth from
# Frames that a blink takes, and frames until the next: more than people blink, so that
# a network sees enough closed eyes.
BLINKS, BETWEEN_BLINKS = (4, 8), (6, 24)


class StillOptions(NamedTuple):
    """The settings for preparing a photo.

    several_faces: "reject" such photos, or take the "largest" face.  template: where
    the face lies in the crop.  num_frames: of a clip, at most.  least_gain, most_gain:
    by which the driver's movement is multiplied.  min_face: least width of the jaw,
    pixels of the photo.  most_turned: how far the tip of the nose may be off the middle
    of the jaw, in units of its width.  least_colour: mean difference between the
    largest and the smallest of red, green and blue, 0..255.
    """

    several_faces: str
    template: align.Template
    num_frames: int = 75
    least_gain: float = 0.75
    most_gain: float = 1.35
    min_face: float = 80.0
    most_turned: float = 0.13
    least_colour: float = 8.0


class Stills(NamedTuple):
    """Prepares photos: called with a Source, it returns a Prepared.

    drivers: the datasets whose training clips lend their movement.  lenders: (path,
    name) of photos that may lend their teeth.
    """

    options: StillOptions
    drivers: tuple[str, ...]
    lenders: tuple[tuple[str, str], ...]

    def as_json(self) -> dict:
        """The options, and what the drivers are, as plain values."""
        template = align.template_as_json(self.options.template)
        drivers = _fingerprint(self.drivers)
        more = {"template": template, "drivers": drivers, "blinks": True}
        return self.options._asdict() | more

    def key(self) -> str:
        """A hash of all that the result depends on beside the photo."""
        lenders = [name for _, name in self.lenders]
        text = json.dumps([self.as_json(), lenders])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(self, source: Source, keep: Keep = in_memory) -> Prepared:
        """A photo's clip, or why it is not used; a bad photo is never an exception.

        InputError, MemoryError, and what `keep` raises: the machine or a driver lacks
        something, which is not the photo's fault.
        """
        try:
            clip = self._clip(source)
        except _Unusable as error:
            return Prepared([], [Reject(source.name, *error.args)])
        except (InputError, MemoryError):
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            message = message.replace(source.path, source.name)
            return Prepared([], [Reject(source.name, "error", message)])
        return Prepared([keep(clip)], [])

    def _clip(self, source: Source) -> Clip:
        photo = _read(source.path, source.name, self.options)
        driver, gain = self._driver(source.name)
        shapes = landmarks.to_pixels(sampling.flat_landmarks(driver)).astype(np.float64)
        q = lips.moved(closed(photo.p), gain * lips.movement(lips.to_enlarged(shapes)))
        still = lips.Still(photo.crop, photo.p, self._behind(source, photo))
        points = lips.to_crop(np.concatenate([photo.p[None], q[1:]]))
        pictures = [lips.reduced(photo.crop), *(still.frame(one) for one in q[1:])]
        lids = eyelids.Eyelids(points[0], (CROP_SIZE, CROP_SIZE))
        if lids.able:
            down = blinking(_random(source.name, 2), len(pictures))
            pictures = list(map(lids, pictures, down))
            points = np.stack(list(map(eyelids.closed, points, down)))
        marks = landmarks.normalise(points).reshape(-1, NUM_POINTS, 2)
        matrix = photo.matrix.astype(np.float32)
        return Clip(
            frames=[encode(picture) for picture in pictures],
            landmarks=marks,
            mfcc=driver.mfcc,
            transforms=np.tile(matrix, (len(pictures), 1, 1)),
            corpus=source.corpus,
            speaker=source.speaker,
            clip_id=source.clip_id,
        )

    def _driver(self, name: str) -> tuple[Clip, float]:
        """(the clip that this photo follows, the gain): every speaker alike, then
        every clip of the speaker, then every window of it."""
        random = _random(name, 0)
        clips, by_speaker = _open_drivers(self.drivers)
        speaker = sorted(by_speaker)[random.integers(len(by_speaker))]
        mine = by_speaker[speaker]
        clip = clips[mine[random.integers(len(mine))]]
        length = min(self.options.num_frames, len(clip.frames))
        first = int(random.integers(len(clip.frames) - length + 1))
        rows = slice(
            first * ROWS_PER_FRAME,
            (first + length + 2 * CONTEXT_FRAMES) * ROWS_PER_FRAME,
        )
        frames = slice(first, first + length)
        clip = clip._replace(landmarks=clip.landmarks[frames], mfcc=clip.mfcc[rows])
        return clip, random.uniform(self.options.least_gain, self.options.most_gain)

    def _behind(self, source: Source, photo: "_Photo") -> lips.Behind:
        """What shows between the lips: its own, else that of another photo."""
        own = lips.behind(photo.crop, photo.p)
        if own is not None:
            return own
        for i in _random(source.name, 1).permutation(len(self.lenders)):
            path, name = self.lenders[i]
            lent = _teeth(path, name, self.options) if name != source.name else None
            if lent is not None:
                return lips.borrowed(lent, photo.crop, photo.p)
        return lips.nothing_behind(photo.crop, photo.p)


def blinking(random: np.random.Generator, count: int) -> Float64[np.ndarray, "count"]:
    """How far the eyelids are down in each frame: 0 open, as in the first; 1 closed."""
    share, at = np.zeros(count), 1 + int(random.integers(BETWEEN_BLINKS[1]))
    while at < count:
        length = int(random.integers(BLINKS[0], BLINKS[1] + 1))
        down_and_up = np.sin(np.pi * (np.arange(length) + 1) / (length + 1))
        blink = np.minimum(1.3 * down_and_up, 1)
        share[at : at + length] = blink[: count - at]
        at += length + int(random.integers(BETWEEN_BLINKS[0], BETWEEN_BLINKS[1] + 1))
    return share


def choose_lenders(sources: Sequence[Source]) -> tuple[tuple[str, str], ...]:
    """(path, name) of the training photos that may lend their teeth."""
    mine = [(one.path, one.name) for one in sources if one.split == "train"]
    mine.sort(key=lambda one: hashlib.sha256(one[1].encode()).hexdigest())
    return tuple(mine[:MOST_LENDERS])


def find_drivers(data_dir: str | pathlib.Path) -> tuple[str, ...]:
    """The datasets of videos in data_dir.

    InputError: none, or none to train on; see dataset.datasets_if_any.
    """
    folders = [
        str(folder)
        for corpus, folder in dataset.datasets_if_any(data_dir).items()
        if corpus not in dataset.STILLS and "train" in dataset.splits_of(folder)
    ]
    if not folders:
        raise InputError(
            f"{data_dir}: no videos prepared there, whose speakers show photos how to "
            "move their lips; prepare grid, lrw or a folder of videos there first"
        )
    return tuple(folders)


# --- a photo ---


class _Photo(NamedTuple):
    """crop: the face, enlarged.  p: its points there.  matrix: f64[2,3], from pixels of
    the ordinary crop to those of the photo."""

    crop: UInt8[np.ndarray, "H W 3"]
    p: Float[np.ndarray, "68 2"]
    matrix: Float[np.ndarray, "2 3"]


class _Unusable(Exception):
    """The photo is rejected; the arguments are those of Reject after `path`."""


def _read(path: str, name: str, options: StillOptions) -> _Photo:
    try:
        picture = image.read_image(path)
    except InputError as error:
        reason = str(error).replace(path, name)
        raise _Unusable("undecodable", reason) from None
    boxes = detection.detect(picture)
    if not boxes:
        raise _Unusable("no face", 1)
    if len(boxes) > 1 and options.several_faces == "reject":
        raise _Unusable("several faces", len(boxes))
    points = detection.find_points(picture, detection.choose_face(boxes))
    width = float(jaw_width(points[None])[0])
    if width < options.min_face:
        raise _Unusable("face too small", round(width, 1))
    matrix = align.align(points, options.template)
    fine = align.rescale(matrix, 1 / lips.ENLARGED)
    crop = align.warp(picture, fine, lips.SIZE)
    p = align.transform(align.invert(fine), points)
    turned = abs(p[30, 0] - (p[0, 0] + p[16, 0]) / 2) / (p[16, 0] - p[0, 0])
    if turned > options.most_turned:
        raise _Unusable("turned", round(float(turned), 3))
    colour = float(np.ptp(crop.astype(np.int16), axis=2).mean())
    if colour < options.least_colour:
        raise _Unusable("grey", round(colour, 1))
    return _Photo(crop, p, matrix)


def _teeth(path: str, name: str, options: StillOptions) -> lips.Behind | None:
    """What is behind the lips of another photo; None: nothing, or it is not usable."""
    try:
        photo = _read(path, name, options)
    except _Unusable:
        return None
    return lips.behind(photo.crop, photo.p)


# --- drivers ---


@functools.cache
def _open_drivers(folders: tuple[str, ...]):
    """(their training clips, {speaker: indices})."""
    clips = dataset.JoinedClips(
        [dataset.Clips(pathlib.Path(folder), "train") for folder in folders]
    )
    by_speaker: dict[tuple[str, str], list[int]] = {}
    who = zip(clips.corpora, clips.speakers, strict=True)
    for i, speaker in enumerate(who):
        by_speaker.setdefault(speaker, []).append(i)
    return clips, by_speaker


def _fingerprint(folders: tuple[str, ...]) -> str:
    """A hash of what the datasets hold and how they were made."""
    digest = hashlib.sha256()
    for folder in folders:
        for name in ("options.json", "index.npz"):
            digest.update((pathlib.Path(folder) / name).read_bytes())
    return digest.hexdigest()[:16]


def _random(name: str, purpose: int) -> np.random.Generator:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)
    return sampling.random_numbers(seed, purpose)
