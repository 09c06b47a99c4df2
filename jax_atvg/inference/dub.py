"""Gives the speaker of a video another voice: a new sound moves the lips.

    dub_file("speaker.mp4", "other.wav", "dubbed.mp4")

Every frame is its own photo.  Head, eyes and expression stay as they were filmed; the
lips are first closed by geometry, then AT-net says how the new sound opens them, VG-net
draws them so, and what it changed below the nose goes back into the full picture.

Points are pixels of the 128x128 crop.  Letters: t frames of the sound, 25 a second, T
frames of the result.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Real

from input_pipeline.clip import FRAME_RATE, InputError
from input_pipeline.faces import align, landmarks, lips
from input_pipeline.faces.drawing import labelled
from input_pipeline.faces.recognition import track_person
from input_pipeline.faces.rest import closed
from input_pipeline.faces.scenes import Notes, scene_cuts, stretches
from input_pipeline.media import audio, video
from input_pipeline.media.footage import to_and_fro
from input_pipeline.progress import Progress
from jax_atvg.inference.animate import (
    check_landmarks_out,
    read_speech,
    save_array,
    unwritable,
)
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.networks import Networks, as_networks
from jax_atvg.inference.options import check_dub
from jax_atvg.inference.predict import Photo
from jax_atvg.inference.redraw import Redrawer, Scene, Shot, scene_of
from jax_atvg.resources import DEFAULT_BUNDLE

COMMENT = (
    "Synthetic media: the lips in this video were redrawn by jax_atvg for another "
    "sound; the person shown did not speak these words on camera."
)
MOST_LOST = 5  # frames without the face that are interpolated
FADE = 4  # frames in which new lips appear where the face does, and go


def dub_file(
    speaker: str | pathlib.Path,
    speech: str | pathlib.Path,
    out: str | pathlib.Path,
    bundle: Bundle | Networks | str | pathlib.Path = DEFAULT_BUNDLE,
    *,
    face: str = "largest",
    track: int = 0,
    rest: str = "keep",
    expressiveness: float = 1.0,
    label: bool = False,
    landmarks_out: str | pathlib.Path | None = None,
    progress: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> list[pathlib.Path]:
    """Makes the speaker of a video speak a recording: an MP4 of the video's size and
    frames a second, with the recording's sound; returns the paths written.

    speaker: a video.  speech: a file, of which `track` is taken (audio.AudioReader).
    bundle, face (of the first frame that shows any), expressiveness: see animate.
    rest: where the video is longer than the sound, "keep" leaves its frames as they
    were filmed, and with "close" the lips close.  Where it is shorter, it runs to and
    fro.  label: every frame says that it is synthetic.  landmarks_out: also writes this
    .npy, f32[frames,68,2], crop coordinates in [-1,1], NaN where nothing was redrawn.
    watch: called with (frames written, frames in all).
    Frames in which the face is not found for more than MOST_LOST frames, or those of
    another person, stay as they are.  Memory does not grow with the length, but for the
    points of the frames.  Each file appears complete or not at all.
    InputError: a file or option cannot be used; the message says why.
    """
    written = [pathlib.Path(out)]
    if landmarks_out is not None:
        written.append(pathlib.Path(landmarks_out))
        check_landmarks_out(written[1])
    check_dub([speaker, speech], written, rest, expressiveness)
    fps = video.frame_rate(speaker)
    reader = audio.AudioReader(speech, track)
    writer = video.VideoWriter(written[0], (reader.rate, reader.blocks()), COMMENT, fps)
    networks = as_networks(bundle)
    known = networks.bundle
    check_dubs(known)
    heard = read_speech(speech, None, track)
    template = align.Template(known.template, known.template_indices)
    footage = look_through(speaker, fps, face, template)
    still = closed(resting(footage.scenes))
    movement = float(expressiveness) * spoken_movement(networks, still, heard.windows)
    movement *= not heard.silent
    spoken = int(-(-len(heard.windows) * fps // FRAME_RATE))  # frames with sound
    total = max(spoken, footage.count)
    moves, shares = over_frames(movement, fps, total), np.ones(total)
    afterwards = 1 - rising(1 + np.arange(total - spoken))
    if rest == "close":
        moves[spoken:] *= afterwards[:, None, None]
    else:
        shares[spoken:] = afterwards

    def shots() -> Iterator[Shot]:
        scene_at = {t: x for x in footage.scenes for t in range(x.first, x.last)}
        frames = to_and_fro(speaker, footage.count, total, fps)
        for number, (t, frame) in enumerate(frames):
            share = float(shares[number] * footage.shares[t])
            yield Shot(number, t, frame, scene_at[t] if share else None, share)

    redrawer = Redrawer(networks, still, moves)
    found = np.full((total, *still.shape), np.nan, np.float32)
    bar = Progress(total, "frame", name=written[0].name, active=progress)
    try:
        with writer as file, bar:
            for shot, picture, q in redrawer(shots()):
                file.write(labelled(picture) if label else picture)
                if q is not None:
                    found[shot.number] = landmarks.normalise(q).reshape(-1, 2)
                bar.update()
                if watch is not None:
                    watch(bar.done, total)
            for path in written[1:]:  # before the video gets its name: all or nothing
                save_array(path, found)
    except OSError as error:
        raise unwritable(written[0], error) from error
    return written


def check_dubs(bundle: Bundle) -> None:
    """InputError: the bundle's networks cannot dub."""
    if bundle.photo_landmarks is not None:
        raise InputError(
            "this bundle's networks know one face's landmarks for all photos, from "
            "which a mouth cannot be told; dub with another bundle"
        )


# --- the video ---


class Footage(NamedTuple):
    """What was found in a video.

    count: its frames.  scenes: those that show the speaker.  shares: f64[count], how
    much of a frame is to be new: 0 outside the scenes, rising from there, but for cuts.
    """

    count: int
    scenes: list[Scene]
    shares: Float64[np.ndarray, "count"]


def look_through(
    speaker: str | pathlib.Path,
    fps: Fraction,
    face: str = "largest",
    template: align.Template = align.DEFAULT_TEMPLATE,
) -> Footage:
    """Follows one person's face through a video.  InputError: nowhere is a face
    seen."""
    notes, name = Notes(count_faces=False), str(speaker)
    for _ in notes.watch(video.read_frames(speaker, fps)):
        pass
    frames, cuts = video.read_frames(speaker, fps), scene_cuts(notes, [])
    points = list(track_person(frames, cuts, face, name))
    if all(one is None for one in points):
        raise InputError(
            f"{name}: no face found in its {len(points)} frames; give a video of a "
            "frontal face at least 80 pixels wide"
        )
    cuts = scene_cuts(notes, points)
    parts = stretches(points, cuts, MOST_LOST)
    scenes = [scene_of(*part, template) for part in parts]
    return Footage(len(points), scenes, shares_of(len(points), scenes, cuts))


def shares_of(
    count: int, scenes: list[Scene], cuts: list[int]
) -> Float64[np.ndarray, "{count}"]:
    """See Footage."""
    from scipy.ndimage import distance_transform_edt

    shown = np.zeros(count, bool)
    for scene in scenes:
        shown[scene.first : scene.last] = True
    shares = shown.astype(np.float64)
    for begin, end in itertools.pairwise([0, *cuts, count]):
        if not shown[begin:end].all():
            shares[begin:end] = rising(distance_transform_edt(shown[begin:end]))
    return shares


def rising(frames: Real[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """From 0 to 1 within a few frames, given their numbers from 0 on."""
    return np.clip(frames / (FADE + 1), 0, 1)


def resting(scenes: list[Scene]) -> Float64[np.ndarray, "68 2"]:
    """The face while its lips are least open."""
    return lips.at_rest(np.concatenate([scene.points for scene in scenes]))


# --- the lips ---


def spoken_movement(
    networks: Networks,
    rest: Float64[np.ndarray, "68 2"],
    windows: Float32[np.ndarray, "t 28 12"],
) -> Float64[np.ndarray, "t 68 2"]:
    """How a sound moves mouth and jaw away from rest, 25 times a second, in units of
    the mouth's width.  windows: MFCC.  InputError: see check_dubs."""
    bundle = networks.bundle
    check_dubs(bundle)
    p = align.transform(align.invert(bundle.landmark_to_crop), rest).reshape(1, -1)
    size = bundle.vg_net.image_size
    photo = Photo(np.zeros((1, size, size, 3), np.float32), *bundle.recognise(p))
    spoken = landmarks.as_points(networks.speak(photo, windows[None])[0])
    moved = align.transform(bundle.landmark_to_crop, spoken) - rest
    return moved * lips.follows()[:, None] / lips.mouth_width(rest)


def over_frames(
    movement: Float64[np.ndarray, "t 68 2"], fps: Fraction, total: int
) -> Float64[np.ndarray, "T 68 2"]:
    """The movement at the times of the video's frames, interpolated; the last one
    stays."""
    times = np.arange(total) * float(FRAME_RATE / fps)
    known = np.arange(len(movement))
    columns = movement.reshape(len(movement), -1).T
    moves = np.stack([np.interp(times, known, one) for one in columns], -1)
    return moves.reshape(total, *movement.shape[1:])
