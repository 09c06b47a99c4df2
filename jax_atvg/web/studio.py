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
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import (
    FRAME_RATE,
    NUM_POINTS,
    WINDOW_ROWS,
    WINDOW_SIZE,
    InputError,
)
from input_pipeline.faces import detection
from input_pipeline.files import remove
from input_pipeline.media import audio, image
from jax_atvg.inference import live
from jax_atvg.inference.animate import animate_file
from jax_atvg.inference.networks import Clip, Networks
from jax_atvg.inference.perception import Perceived
from jax_atvg.inference.predict import Photo
from jax_atvg.web.turns import Busy, Turns

SPEAKER = "espeak-ng"
MOST_CHARACTERS = 500  # of a text that is spoken: half a minute
FACE_MARGIN = 0.35  # of a face's size, around it in its picture
LONGEST_SIDE = 1920  # pixels of a whole photo in a video
SHOWN_BY_BROWSERS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "BMP")


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
    frame says that it is synthetic.  kept: files and folders in it that `tidy` leaves
    alone: those of jobs that are not done, and what the page itself needs.  ended: set
    when jobs are to end, because the server does.
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
        self.kept: set[pathlib.Path] = set()
        self.ended = threading.Event()

    def animate(
        self,
        photo: str | pathlib.Path,
        sound: str | pathlib.Path,
        folder: pathlib.Path,
        wishes: Wishes = AS_IT_IS,
        tell: Tell = lambda share, text: None,
    ) -> Made:
        """Makes a video in the job's folder.

        A whole photo is shown with LONGEST_SIDE pixels at most.
        InputError: photo or sound cannot be used.  Busy: too many are waiting, or the
        server ends.
        """

        def told(share: float, words: str) -> None:
            if self.ended.is_set():
                raise Busy("the server has been ended; try again later")
            tell(share, words)

        def waiting(ahead: int) -> None:
            told(0.0, f"waiting: {ahead} ahead")

        with self.turns.turn(waiting), named(photo, sound):
            begin = time.perf_counter()
            told(0.0, "looking for the face, hearing the sound")
            picture = image.read_image(photo)
            points = detection.photo_points(picture, wishes.face, "the photo")
            heard = self.hear(sound)
            about = [*described(picture, points, heard)]
            if wishes.full_frame and max(picture.shape) > LONGEST_SIDE:
                picture, points = shrunk(picture, points)
                photo = folder / "smaller.png"
                image.write_image(photo, picture)
                height, width = picture.shape[:2]
                about.append(f"the photo is shown at {width} x {height} pixels")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is in `about`
                video, *others = animate_file(
                    photo,
                    sound,
                    folder / "talking.mp4",
                    self.networks,
                    watch=lambda done, of: told(done / of, f"frame {done} of {of}"),
                    perceived=lambda: Perceived(points, heard),
                    label=self.label,
                    **wishes._asdict(),
                )
            about.append(f"made in {time.perf_counter() - begin:.1f} s")
        return Made(video, others[0] if others else None, about)

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
        reader = audio.AudioReader(sound, most=self.limits.seconds)
        heard = audio.hear(reader.mono_16k(), "the sound")
        return heard._replace(note=reader.note.removeprefix(f"{sound}: "))

    def faces(self, photo: str | pathlib.Path) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Pictures of the faces in a photo, from left to right, as Wishes.face counts
        them.  InputError: it is no picture."""
        with named(photo):
            picture = image.read_image(photo)
        boxes = sorted(detection.detect(picture), key=lambda box: box.centre)
        return [cut_out(picture, box) for box in boxes]

    def viewable(self, photo: str | pathlib.Path) -> pathlib.Path | None:
        """A JPEG, the visitor's, of a photo that browsers do not show, as HEIC; None of
        others.  InputError: it is no picture."""
        with named(photo):
            if image.format_of(photo) in SHOWN_BY_BROWSERS:
                return None
            picture = image.read_image(photo)
        with self.job() as folder:
            image.write_image(folder / "photo.jpg", picture)
        return folder / "photo.jpg"

    def speak(self, text: str, folder: pathlib.Path) -> pathlib.Path:
        """Has espeak-ng speak a text: a sound file in the job's folder.  InputError:
        there is no text, it is too long, or no espeak-ng."""
        text = " ".join(text.split())
        if not 0 < len(text) <= MOST_CHARACTERS:
            raise InputError(
                f"a text of {len(text)} characters; write 1 to {MOST_CHARACTERS}"
            )
        if not can_speak():
            raise InputError(
                f"{SPEAKER} is not installed on this server; upload a sound instead"
            )
        path = folder / "spoken.wav"
        command = [SPEAKER, "-w", str(path), "--stdin"]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode or not path.exists():
            raise InputError(
                f"{SPEAKER} cannot speak this text; upload a sound instead"
            )
        return path

    @contextlib.contextmanager
    def job(self) -> Iterator[pathlib.Path]:
        """A new folder for one job.  Where the block fails it is deleted; otherwise
        what it holds is a visitor's from then on."""
        folder = self.new_folder()
        try:
            yield folder
        except BaseException:
            remove(folder)
            raise
        finally:
            self.kept.discard(folder)

    def new_folder(self) -> pathlib.Path:
        """A folder that is kept until its user deletes it."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        self.kept.add(folder)
        return folder

    def tidy(self) -> None:
        """Deletes what is older than limits.minutes and not kept."""
        before = time.time() - 60 * self.limits.minutes
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # a job has deleted it at this moment
                if path not in self.kept and changed(path) < before:
                    remove(path)
        for path in tuple(self.kept):
            if not path.exists():
                self.kept.discard(path)


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


def changed(path: pathlib.Path) -> float:
    """When a file, or a folder or something in it, was changed last."""
    inside = path.rglob("*") if path.is_dir() else ()
    return max(one.lstat().st_mtime for one in (path, *inside))


def can_speak() -> bool:
    return shutil.which(SPEAKER) is not None


def cut_out(picture: UInt8[np.ndarray, "H W 3"], box: detection.Box) -> np.ndarray:
    """A face with something around it."""
    x, y = (round(FACE_MARGIN * size) for size in (box.width, box.height))
    rows = slice(max(box.top - y, 0), box.bottom + y)
    return picture[rows, max(box.left - x, 0) : box.right + x]


def shrunk(
    picture: UInt8[np.ndarray, "H W 3"], points: Float32[np.ndarray, "68 2"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "68 2"]]:
    """The picture with LONGEST_SIDE pixels at most on its longer side, and the points
    in it."""
    small = image.shrunk(picture, LONGEST_SIDE)
    across = np.divide(small.shape[1::-1], picture.shape[1::-1], dtype=np.float32)
    return small, (points + 0.5) * across - 0.5


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
