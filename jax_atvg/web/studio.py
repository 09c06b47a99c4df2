"""What the page and its interface for programs do for a visitor: one video at a time.

Nothing here knows of the web.  Every job has a folder of its own; visitors' names of
files are no paths in it.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from input_pipeline.clip import (
    FRAME_RATE,
    NUM_POINTS,
    SAMPLE_RATE,
    WINDOW_ROWS,
    WINDOW_SIZE,
    InputError,
)
from input_pipeline.faces import detection
from input_pipeline.media import audio, image
from jax_atvg.inference import live
from jax_atvg.inference.animate import animate_file, panels_path
from jax_atvg.inference.networks import Clip, Networks
from jax_atvg.inference.perception import Perceived
from jax_atvg.inference.predict import Photo
from jax_atvg.web.turns import Turns

SPEAKER = "espeak-ng"
MOST_CHARACTERS = 500  # of a text that is spoken: half a minute
FACE_MARGIN = 0.35  # of a face's size, around it in its picture


@dataclasses.dataclass(frozen=True)
class Limits:
    """megabytes: of a file.  seconds: of sound.  waiting: visitors in the queue.
    minutes: after which a visitor's files are deleted."""

    megabytes: int = 50
    seconds: int = 120
    waiting: int = 8
    minutes: int = 15


class Wishes(NamedTuple):
    """What a visitor chooses; see animate_file."""

    face: str = "largest"
    full_frame: bool = False
    panels: bool = False
    blinks: bool = True
    head_movement: bool = False
    expressiveness: float = 1.0


AS_IT_IS = Wishes()


class Made(NamedTuple):
    """A job's results.  panels: None unless asked for.  about: in plain words, what was
    found in photo and sound, and how long it took."""

    video: pathlib.Path
    panels: pathlib.Path | None
    about: list[str]


Tell = Callable[[float, str], None]  # (share of the work that is done, what is done)


class Studio:
    """Networks that visitors take turns with.

    folder: where jobs have theirs; what lies there is the visitors'.  label: every
    frame says that it is synthetic.
    """

    def __init__(
        self,
        networks: Networks,
        folder: str | pathlib.Path,
        limits: Limits = Limits(),
        label: bool = False,
    ):
        self.networks, self.folder, self.limits = networks, pathlib.Path(folder), limits
        self.turns, self.label = Turns(limits.waiting), label

    def animate(
        self,
        photo: str | pathlib.Path,
        sound: str | pathlib.Path,
        wishes: Wishes = AS_IT_IS,
        tell: Tell = lambda share, text: None,
        folder: pathlib.Path | None = None,
    ) -> Made:
        """Makes a video in the job's folder, a new one unless given, which the caller
        deletes.

        InputError: photo or sound cannot be used.  Busy: too many are waiting.
        """

        def waiting(ahead: int) -> None:
            tell(0.0, f"waiting: {ahead} ahead")

        with self.turns.turn(waiting), named(photo, sound):
            begin = time.perf_counter()
            tell(0.0, "looking for the face, hearing the sound")
            picture = image.read_image(photo)
            points = detection.photo_points(picture, wishes.face, "the photo")
            heard = self.hear(sound)
            job = folder or self.new_folder()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what they say is in `about`
                    written = animate_file(
                        photo,
                        sound,
                        job / "talking.mp4",
                        self.networks,
                        watch=lambda done, of: tell(done / of, f"frame {done} of {of}"),
                        perceived=lambda: Perceived(points, heard),
                        label=self.label,
                        **wishes._asdict(),
                    )
            except BaseException:
                if folder is None:
                    shutil.rmtree(job, ignore_errors=True)
                raise
            about = [*described(picture, points, heard)]
            about.append(f"made in {time.perf_counter() - begin:.1f} s")
        video = written[0]
        return Made(video, panels_path(video) if wishes.panels else None, about)

    def warm_up(self) -> None:
        """Compiles the networks and loads what finds faces, so that the first visitor
        does not wait for it."""
        bundle = self.networks.bundle
        size = bundle.vg_net.image_size
        landmarks = np.zeros((1, 2 * NUM_POINTS), np.float32)
        photo = Photo(
            np.zeros((1, size, size, 3), np.float32), *bundle.recognise(landmarks)
        )
        windows = np.zeros((1, WINDOW_ROWS, WINDOW_SIZE), np.float32)
        for maps in (False, True):
            list(self.networks.predict([Clip(photo, windows)], maps))
        live.warm_up(self.networks, photo)
        detection.detect(np.zeros((64, 64, 3), np.uint8))

    def hear(self, sound: str | pathlib.Path) -> audio.Heard:
        """The sound's features.  InputError: it cannot be used, or is too long."""
        reader, most = audio.AudioReader(sound), self.limits.seconds

        def until_too_long() -> Iterator[np.ndarray]:
            count = 0
            for block in reader.mono_16k():
                count += len(block)
                if count > most * SAMPLE_RATE:
                    raise InputError(
                        f"the sound is longer than {most} s; cut it, or have the "
                        "server started with a larger --seconds"
                    )
                yield block

        heard = audio.hear(until_too_long(), "the sound")
        return heard._replace(note=reader.note.removeprefix(f"{sound}: "))

    def faces(self, photo: str | pathlib.Path) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Pictures of the faces in a photo, from left to right, as Wishes.face counts
        them.  InputError: it is no picture."""
        with named(photo):
            picture = image.read_image(photo)
        boxes = sorted(detection.detect(picture), key=lambda box: box.centre)
        return [cut_out(picture, box) for box in boxes]

    def speak(self, text: str, folder: pathlib.Path | None = None) -> pathlib.Path:
        """Has espeak-ng speak a text: a sound file in the job's folder, a new one
        unless given, which the caller deletes.  InputError: there is no text, it is too
        long, or no espeak-ng."""
        text = " ".join(text.split())
        if not 0 < len(text) <= MOST_CHARACTERS:
            raise InputError(
                f"a text of {len(text)} characters; write 1 to {MOST_CHARACTERS}"
            )
        if not can_speak():
            raise InputError(
                f"{SPEAKER} is not installed on this server; upload a sound instead"
            )
        path = (folder or self.new_folder()) / "spoken.wav"
        command = [SPEAKER, "-w", str(path), "--stdin"]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode or not path.exists():
            if folder is None:
                shutil.rmtree(path.parent)
            raise InputError(
                f"{SPEAKER} cannot speak this text; upload a sound instead"
            )
        return path

    def new_folder(self) -> pathlib.Path:
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    def tidy(self) -> None:
        """Deletes what is older than limits.minutes."""
        before = time.time() - 60 * self.limits.minutes
        for path in self.folder.iterdir():
            if path.stat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def named(
    photo: str | pathlib.Path, sound: str | pathlib.Path | None = None
) -> Iterator[None]:
    """Errors name the photo and the sound as such, and not where they lie here."""
    try:
        yield
    except InputError as error:
        text = str(error).replace(str(photo), "the photo")
        if sound is not None:
            text = text.replace(str(sound), "the sound")
        raise InputError(text) from error


def can_speak() -> bool:
    return shutil.which(SPEAKER) is not None


def cut_out(picture: UInt8[np.ndarray, "H W 3"], box: detection.Box) -> np.ndarray:
    """A face with something around it."""
    x, y = (round(FACE_MARGIN * size) for size in (box.width, box.height))
    rows = slice(max(box.top - y, 0), box.bottom + y)
    return picture[rows, max(box.left - x, 0) : box.right + x]


def described(picture: np.ndarray, points: np.ndarray, heard: audio.Heard):
    """What was found in photo and sound, in plain words."""
    height, width = picture.shape[:2]
    across = np.ptp(points[:, 0])
    yield f"photo: {width} x {height} pixels, the face {across:.0f} pixels wide"
    if across < 100:
        yield "the face is small; a larger one gives a sharper video"
    frames = len(heard.windows)
    yield f"sound: {frames / FRAME_RATE:.1f} s, {frames} frames"
    if heard.silent:
        yield "the sound is silent; the mouth rests"
    if heard.note:
        yield heard.note
