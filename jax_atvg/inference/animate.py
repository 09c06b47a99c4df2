"""A photo and a speech recording become a talking-face video.

    frames = animate("face.jpg", "speech.wav")              # u8[T,128,128,3], 25 fps
    animate_file("face.jpg", "speech.wav", "talking.mp4")

A photo goes through the very code that a training frame went through.  Sound and frames
are processed in chunks (networks.py), so that animate_file needs no more memory for a
longer recording.
"""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Float, Float32, Real, UInt8

from input_pipeline.clip import CROP_SIZE, NUM_POINTS, InputError
from input_pipeline.faces import align, detection, landmarks
from input_pipeline.faces.drawing import draw_lines, labelled
from input_pipeline.files import check_place, replacing
from input_pipeline.media import audio, image, video
from input_pipeline.media.image import to_float
from input_pipeline.progress import Progress
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.networks import Clip, Networks, Rendered, as_networks
from jax_atvg.inference.options import (
    PLAIN,
    Look,
    check_mp4,
    check_not_read,
    checked_expressiveness,
)
from jax_atvg.inference.painting import Painter, Subject
from jax_atvg.inference.perception import Perceived
from jax_atvg.inference.predict import Photo
from jax_atvg.resources import DEFAULT_BUNDLE

COMMENT = (
    "Synthetic media: this face was animated from one photo and a recording by "
    "jax_atvg; the person shown did not speak these words on camera."
)

Picture = UInt8[np.ndarray, "H W 3"]
Sound = tuple[Real[np.ndarray, "..."], int]


def animate(
    photo: str | pathlib.Path | Picture,
    speech: str | pathlib.Path | Sound,
    bundle: Bundle | Networks | str | pathlib.Path = DEFAULT_BUNDLE,
    *,
    face: str = "largest",
    full_frame: bool = False,
    label: bool = False,
    blinks: bool = True,
    head_movement: bool = False,
    seed: int = 0,
    expressiveness: float = 1.0,
) -> UInt8[np.ndarray, "T height width 3"]:
    """Makes a photo speak a recording; returns all frames, RGB 0..255, 25 a second.

    photo: a file, or u8[H,W,3] RGB.  speech: a file, or (samples[N] or [N,C], samples a
    second).  bundle: a Bundle, its folder, or its Networks, which repeated calls can
    share.  face: "largest", or "0", "1", ... counted from the left.  full_frame: the
    whole picture instead of the aligned crop.  label: every frame says that it is
    synthetic.  blinks: the eyes, if they are open, blink now and then.  head_movement:
    the head moves a little; in full frames only.  seed: of both.  expressiveness: by
    which the movement of the face is multiplied, 0 to 3; 1 is as the networks learnt.
    InputError: photo, speech, bundle, seed or expressiveness cannot be used; the
    message says why.
    """
    expressiveness = checked_expressiveness(expressiveness)
    networks = as_networks(bundle)
    subject = read_subject(photo, networks.bundle, face)
    heard = read_speech(speech)
    look = Look(full_frame, label, blinks, head_movement, seed)
    show = Painter(subject, look, networks.bundle.vg_net.closes_eyes)
    lids = show.lids(len(heard.windows))
    made = talk(
        networks, subject.photo, heard, expressiveness=expressiveness, lids=lids
    )
    return np.stack([show(one.frames, number) for number, one in enumerate(made)])


def animate_file(
    photo: str | pathlib.Path,
    speech: str | pathlib.Path,
    out: str | pathlib.Path,
    bundle: Bundle | Networks | str | pathlib.Path = DEFAULT_BUNDLE,
    *,
    face: str = "largest",
    track: int = 0,
    full_frame: bool = False,
    label: bool = False,
    blinks: bool = True,
    head_movement: bool = False,
    seed: int = 0,
    expressiveness: float = 1.0,
    panels: bool = False,
    landmarks_out: str | pathlib.Path | None = None,
    progress: bool = False,
    watch: Callable[[int, int], None] | None = None,
    perceived: Callable[[], Perceived] | None = None,
) -> list[pathlib.Path]:
    """Makes a photo speak a recording: writes an MP4; returns the paths written.

    photo, speech: files.  The MP4 has the original sound.  track: see
    audio.AudioReader.  bundle, face, and full_frame to expressiveness: see animate.
    panels: also writes OUT_panels.mp4, with landmarks, attention, colour and result
    side by side.
    landmarks_out: also writes this .npy, f32[T,68,2], crop coordinates in [-1,1].
    watch: called with (frames written, frames in all) from time to time.
    perceived: returns what `perceive` finds, where another process computes that;
    otherwise it is computed here.
    Each file appears complete or not at all.  InputError: photo, speech, bundle, seed,
    expressiveness or one of the paths cannot be used, or a file to write is the photo
    or the recording; the message says why.
    """
    film = Film(
        photo,
        speech,
        out,
        face=face,
        track=track,
        look=Look(full_frame, label, blinks, head_movement, seed),
        expressiveness=expressiveness,
        panels=panels,
        landmarks_out=landmarks_out,
        progress=progress,
        watch=watch,
        perceived=perceived,
    )
    networks = as_networks(bundle)
    clip = film.read(networks.bundle)
    with film.recording() as write:
        for made in networks.predict([clip], panels):
            for _, rendered in made:
                write(rendered)
    return film.paths


class Film:
    """What one job reads, and the files that it writes: `paths`.

    look: what animate_file calls full_frame to seed.  All other arguments are those of
    animate_file.  InputError: one of the paths, or the sound, or expressiveness, cannot
    be used; or a file to write is the photo or the recording.
    """

    def __init__(
        self,
        photo: str | pathlib.Path,
        speech: str | pathlib.Path,
        out: str | pathlib.Path,
        *,
        face: str = "largest",
        track: int = 0,
        look: Look = PLAIN,
        expressiveness: float = 1.0,
        panels: bool = False,
        landmarks_out: str | pathlib.Path | None = None,
        progress: bool = False,
        watch: Callable[[int, int], None] | None = None,
        perceived: Callable[[], Perceived] | None = None,
    ):
        self.photo, self.face = photo, face
        self.look = look
        self.expressiveness = checked_expressiveness(expressiveness)
        self.speech, self.track, self.perceived = speech, track, perceived
        self.out, self.progress, self.landmarks_out = pathlib.Path(out), progress, None
        self.watch = watch
        check_mp4(self.out)
        self.paths = [self.out, panels_path(self.out)] if panels else [self.out]
        videos = list(self.paths)
        if landmarks_out is not None:
            self.landmarks_out = pathlib.Path(landmarks_out)
            check_landmarks_out(self.landmarks_out)
            self.paths.append(self.landmarks_out)
        check_not_read(self.paths, [photo, speech])
        reader = audio.AudioReader(speech, track)
        self.writers = [
            video.VideoWriter(path, (reader.rate, reader.blocks()), COMMENT)
            for path in videos
        ]

    def read(self, bundle: Bundle) -> Clip:
        """Finds the face and hears the sound.  InputError: one of them is no use."""
        points_px, heard = self.perceived() if self.perceived else (None, None)
        subject = read_subject(self.photo, bundle, self.face, points_px)
        heard = read_speech(self.speech, heard, self.track)
        self.bundle, self.length = bundle, len(heard.windows)
        self.show = Painter(subject, self.look, bundle.vg_net.closes_eyes)
        lids = self.show.lids(self.length)
        return Clip(
            subject.photo, heard.windows, heard.silent, self.expressiveness, lids
        )

    @contextlib.contextmanager
    def recording(self) -> Iterator[Callable[[Rendered], None]]:
        """Yields a function that adds frames to the files; to be called after `read`.

        The end of the block gives the files their names; where it fails, none appears.
        InputError, in place of an OSError of the block: they cannot be written.
        """
        spoken = []
        try:
            with contextlib.ExitStack() as stack:
                videos = [stack.enter_context(writer) for writer in self.writers]
                bar = Progress(
                    self.length, "frame", name=self.out.name, active=self.progress
                )
                stack.enter_context(bar)

                def write(made: Rendered) -> None:
                    for i, frame in enumerate(made.frames):
                        points = crop_points(self.bundle, made.landmarks[i])
                        points = self.show.points(points, bar.done)
                        videos[0].write(self.show(frame, bar.done))
                        if len(videos) > 1:
                            one = frame_of(made, i)
                            one = one._replace(frames=self.show.face(frame, bar.done))
                            shown, say = panel(one, points), self.look.label
                            videos[1].write(labelled(shown) if say else shown)
                        if self.landmarks_out is not None:
                            points = landmarks.normalise(points)
                            spoken.append(points.reshape(NUM_POINTS, 2))
                        bar.update()
                    if self.watch is not None:
                        self.watch(bar.done, self.length)

                yield write
                # Before the videos get their names: all or nothing.
                if self.landmarks_out is not None:
                    save_array(self.landmarks_out, np.stack(spoken))
        except OSError as error:  # the disk is full, or has gone
            raise unwritable(self.out, error) from error


def panels_path(out: str | pathlib.Path) -> pathlib.Path:
    """Where the panels of the video `out` are written."""
    out = pathlib.Path(out)
    return out.with_name(f"{out.stem}_panels.mp4")


def check_landmarks_out(path: pathlib.Path) -> None:
    """InputError: the path does not end in .npy, or cannot be written."""
    if path.suffix.lower() != ".npy" or path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: landmarks go to an .npy file in an existing folder")
    try:
        check_place(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def save_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes an .npy file, complete or not at all.  InputError: it cannot be."""
    try:
        with replacing(path) as unfinished:
            np.save(unfinished, array)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: pathlib.Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); free some space or choose "
        "another folder"
    )


def read_subject(
    photo: str | pathlib.Path | Picture,
    bundle: Bundle,
    face: str = "largest",
    points_px: Float[np.ndarray, "68 2"] | None = None,
) -> Subject:
    """Prepares a photo: finds the face, unless its points are given, and aligns it.

    photo: a file, or u8[H,W,3] RGB.  points_px: pixels of the photo.
    InputError: the file holds no picture, or the picture no such face; an array that is
    not as said, or without pixels.
    """
    if isinstance(photo, np.ndarray):
        name, picture = "photo", checked_picture(photo)
    else:
        name, picture = str(photo), image.read_image(photo)
    if points_px is None:
        points_px = detection.photo_points(picture, face, name)
    template = align.Template(bundle.template, bundle.template_indices)
    matrix = align.align(points_px, template)  # from the 128x128 crop
    in_crop = align.transform(align.invert(matrix), points_px)
    to_landmarks = align.invert(bundle.landmark_to_crop)
    p = align.transform(to_landmarks, in_crop).reshape(1, -1)
    size = bundle.vg_net.image_size
    matrix = align.rescale(matrix, CROP_SIZE / size)
    crop = align.warp(picture, matrix, size)
    prepared = Photo(to_float(crop[None]), *bundle.recognise(p))
    return Subject(picture, points_px, matrix, prepared)


def checked_picture(picture: np.ndarray) -> Picture:
    """The array.  InputError: it is not u8[H,W,3], or has no pixels."""
    right = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    if not right or not picture.size:
        raise InputError(
            f"photo: an array of shape {picture.shape} and type {picture.dtype}; must "
            "be RGB of shape (height, width, 3), at least one pixel, and type uint8; "
            'convert grey and transparent pictures with Pillow\'s .convert("RGB"), and '
            "other numbers by scaling them to 0..255, rounding, and .astype(np.uint8)"
        )
    return picture


def read_speech(
    speech: str | pathlib.Path | Sound,
    heard: audio.Heard | None = None,
    track: int = 0,
) -> audio.Heard:
    """Computes the features of a recording, unless given as `heard`; warns of silence,
    and says which of several sound tracks was taken.

    InputError: the recording cannot be used.
    """
    name = "speech" if isinstance(speech, tuple) else str(speech)
    if heard is None and isinstance(speech, tuple):
        heard = audio.hear([audio.from_array(*speech, "speech")])
    elif heard is None:
        heard = audio.hear_file(speech, track)
    if heard.note:
        warnings.warn(heard.note, stacklevel=2)
    if heard.silent:
        warnings.warn(f"{name}: silent; the mouth will rest", stacklevel=2)
    return heard


def talk(
    bundle: Bundle | Networks,
    photo: Photo,
    speech: audio.Heard | Float[np.ndarray, "N"],
    *,
    maps: bool = False,
    expressiveness: float = 1.0,
    lids: Float32[np.ndarray, "T"] | None = None,
) -> Iterator[Rendered]:
    """Runs the networks; yields what they make of each video frame, one at a time.

    Its arrays are numpy's and have no time axis.  speech: mono 16 kHz samples, or what
    audio.hear returns for them.  maps: with attention and colour.  expressiveness: see
    animate.  lids: see Clip.  The devices compute the next chunk while the caller draws
    and encodes this one.
    """
    networks = as_networks(bundle)
    heard = speech if isinstance(speech, audio.Heard) else audio.hear([speech])
    clip = Clip(photo, heard.windows, heard.silent, expressiveness, lids)
    for made in networks.predict([clip], maps):
        for part, rendered in made:
            for i in range(part.count):
                yield frame_of(rendered, i)


def frame_of(made: Rendered, i: int) -> Rendered:
    """Frame number i of those that were made, without the time axis."""
    return jax.tree.map(lambda x: x[i], made)


def crop_points(
    bundle: Bundle, landmarks: Float[np.ndarray, "136"]
) -> Float[np.ndarray, "68 2"]:
    """Converts the networks' landmarks to pixels of the 128x128 crop."""
    points = landmarks.reshape(NUM_POINTS, 2)
    return align.transform(bundle.landmark_to_crop, points)


def panel(
    made: Rendered, points_px: Float[np.ndarray, "68 2"]
) -> UInt8[np.ndarray, "S W 3"]:
    """A picture of landmarks, attention, colour and result, side by side.

    made: of one frame, with attention and colour.
    """
    attention = np.broadcast_to(made.attention[..., None], made.frames.shape)
    lines = draw_lines(points_px, len(made.frames))
    return np.concatenate([lines, attention, made.color, made.frames], axis=1)
