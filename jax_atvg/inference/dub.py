"""Gives the speaker of a video another voice: a new sound moves the lips.

    dub_file("speaker.mp4", "other.wav", "dubbed.mp4")

Every frame is its own photo.  Head, eyes and expression stay as they were filmed; the
lips are first closed by geometry, then AT-net says how the new sound opens them, VG-net
draws them so, and what it changed below the nose goes back into the full picture.

Points are pixels of the 128x128 crop.  Letters: t frames of the sound, 25 a second, T
frames of the result.
"""

import pathlib
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Float64

from input_pipeline.clip import FRAME_RATE, InputError
from input_pipeline.faces import align, detection, landmarks, lips
from input_pipeline.faces.drawing import labelled
from input_pipeline.faces.rest import closed
from input_pipeline.faces.scenes import Notes, scene_cuts, stretches
from input_pipeline.files import same_place
from input_pipeline.media import audio, video
from input_pipeline.media.footage import to_and_fro
from input_pipeline.progress import Progress
from jax_atvg.inference.animate import (
    check_landmarks_out,
    check_mp4,
    read_speech,
    save_array,
)
from jax_atvg.inference.bundle import Bundle
from jax_atvg.inference.life import AFTERWARDS, checked_expressiveness
from jax_atvg.inference.networks import Networks, as_networks
from jax_atvg.inference.predict import Photo
from jax_atvg.inference.redraw import FADE, Redrawer, Scene, Shot, scene_of
from jax_atvg.resources import DEFAULT_BUNDLE

COMMENT = (
    "Synthetic media: the lips in this video were redrawn by jax_atvg for another "
    "sound; the person shown did not speak these words on camera."
)
MOST_LOST = 5  # frames without the face that are interpolated


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
    rest: where the video is longer than the sound its lips "keep" moving as they were
    filmed, or "close".  Where it is shorter, it runs to and fro.  label: every frame
    says that it is synthetic.  landmarks_out: also writes this .npy, f32[frames,68,2],
    crop coordinates in [-1,1], NaN where nothing was redrawn.  watch: called with
    (frames written, frames in all).
    Frames in which the face is not found stay as they are.  Memory does not grow with
    the length, but for the points of the frames.  Each file appears complete or not at
    all.
    InputError: a file or option cannot be used; the message says why.
    """
    written = [pathlib.Path(out)]
    if landmarks_out is not None:
        written.append(pathlib.Path(landmarks_out))
        check_landmarks_out(written[1])
    check([speaker, speech], written, rest)
    checked_expressiveness(expressiveness)
    fps = video.frame_rate(speaker)
    reader = audio.AudioReader(speech, track)
    writer = video.VideoWriter(written[0], (reader.rate, reader.blocks()), COMMENT, fps)
    networks = as_networks(bundle)
    known = networks.bundle
    if known.photo_landmarks is not None:
        raise InputError(
            "this bundle's networks know one face's landmarks for all photos, from "
            "which a mouth cannot be told; dub with another bundle"
        )
    heard = read_speech(speech, None, track)
    template = align.Template(known.template, known.template_indices)
    count, scenes = find_scenes(speaker, fps, face, template)
    still = closed(resting(scenes))
    movement = expressiveness * spoken_movement(networks, still, heard.windows)
    movement *= not heard.silent
    spoken = -(-len(heard.windows) * fps // FRAME_RATE)  # frames with sound
    total = max(int(spoken), count)
    moves = over_frames(movement, fps, total)
    if rest == "close":
        moves[int(spoken) :] *= fading(total - int(spoken))[:, None, None]
    shares = np.ones(total)
    if rest == "keep":
        shares[int(spoken) :] = fading(total - int(spoken))
    scene_at = {t: scene for scene in scenes for t in range(scene.first, scene.last)}

    def shots() -> Iterator[Shot]:
        frames = to_and_fro(speaker, count, total, fps)
        for number, (t, frame) in enumerate(frames):
            scene = scene_at.get(t)
            share = shares[number] * (scene.share(t) if scene else 0)
            yield Shot(number, t, frame, scene if share else None, share)

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
        for path in written[1:]:
            save_array(path, found)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); free some space or choose "
            "another folder"
        ) from error
    return written


def check(
    read: list[str | pathlib.Path], written: list[pathlib.Path], rest: str
) -> None:
    """InputError: an option is unknown, or a result would overwrite an input."""
    if rest not in AFTERWARDS:
        raise InputError(f"rest={rest}: choose one of {', '.join(AFTERWARDS)}")
    check_mp4(written[0])
    for path in written:
        if any(same_place(source, path) for source in read):
            raise InputError(f"{path} is read, too; choose another name for the result")


# --- the video ---


def find_scenes(
    speaker: str | pathlib.Path,
    fps: Fraction,
    face: str = "largest",
    template: align.Template = align.DEFAULT_TEMPLATE,
) -> tuple[int, list[Scene]]:
    """(number of frames, scenes) of a video.  InputError: nowhere is a face seen."""
    notes, name = Notes(count_faces=False), str(speaker)
    frames = notes.watch(video.read_frames(speaker, fps))
    points = list(detection.track(frames, face, name))
    if all(one is None for one in points):
        raise InputError(
            f"{name}: no face found in its {len(points)} frames; give a video of a "
            "frontal face at least 80 pixels wide"
        )
    parts = stretches(points, scene_cuts(notes, points), MOST_LOST)
    scenes = [scene_of(*part, template) for part in parts]
    seen = {t for scene in scenes for t in range(scene.first, scene.last)}
    return len(points), [
        scene._replace(
            appears=scene.first > 0 and scene.first - 1 not in seen,
            goes=scene.last < len(points) and scene.last not in seen,
        )
        for scene in scenes
    ]


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
    the mouth's width.  windows: MFCC."""
    bundle = networks.bundle
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


def fading(count: int) -> Float64[np.ndarray, "{count}"]:
    """Shares that fall from nearly 1 to 0 within FADE frames."""
    return np.clip(1 - np.arange(1, count + 1) / (FADE + 1), 0, 1)
