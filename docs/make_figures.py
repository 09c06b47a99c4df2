"""Draws the pictures of the README and of dub.md, into docs/.

make readme                                         # demo.webp and pipeline.png
python docs/make_figures.py --data_dir=DATA         # talking.png and dub.png as well

demo.webp is the sentence of `make demo`, spoken by the model that comes along.
pipeline.png shows how a photo is prepared for the networks.  talking.png shows what the
default model generates, dub.png how it dubs; DATA holds the datasets of
docs/default_model.md.
"""

import argparse
import pathlib
import sys

import cv2
import numpy as np
from PIL import Image
from skimage.data import astronaut

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from input_pipeline.clip import CROP_SIZE, FRAME_RATE  # noqa: E402
from input_pipeline.faces import align, detection  # noqa: E402
from input_pipeline.faces.drawing import draw_dots, draw_lines  # noqa: E402
from input_pipeline.media.image import to_u8, write_image  # noqa: E402
from input_pipeline.training_data import dataset  # noqa: E402
from jax_atvg.evaluation.evaluate import other_clips, read_take  # noqa: E402
from jax_atvg.evaluation.report import DUBBED  # noqa: E402
from jax_atvg.evaluation.synthesis import Synthesis  # noqa: E402
from jax_atvg.inference.animate import (  # noqa: E402
    crop_points,
    panel,
    read_speech,
    read_subject,
    talk,
)
from jax_atvg.inference.bundle import Bundle, load_bundle  # noqa: E402
from jax_atvg.inference.networks import Networks, Rendered  # noqa: E402
from jax_atvg.inference.painting import Painter, Subject  # noqa: E402
from jax_atvg.resources import DEFAULT_BUNDLE  # noqa: E402

SIDE = 384  # pixels, height and width of one picture of pipeline.png
COLUMNS = 8  # moments of a clip in talking.png
UNSEEN = "s9", "KevinMcCarthy"  # speakers of the test split
PORTRAITS = 0, 20, 41  # clips of the portraits' validation split


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir",
        help="the datasets of default_model.md; draws talking.png and dub.png, too",
    )
    data_dir = parser.parse_args().data_dir
    write_image(ROOT / "docs" / "pipeline.png", pipeline())
    write_moving(ROOT / "docs" / "demo.webp", speaking())
    if data_dir:
        write_image(ROOT / "docs" / "talking.png", talking(data_dir))
        write_image(ROOT / "docs" / "dub.png", dubbing(data_dir))


def dubbing(data_dir: str) -> np.ndarray:
    """Strips of frames of two speakers who are not among the training clips: rows
    filmed, dubbed with the own sound, dubbed with another clip's."""
    synthesis, rows = Synthesis(load_bundle(DEFAULT_BUNDLE), dub=True), []
    clips = dataset.open_clips(data_dir, "test")
    for speaker in UNSEEN:
        index = clips.speakers.index(speaker)
        take = read_take(
            clips, index, other_clips(clips.speakers, clips.clip_ids)[index]
        )
        (made,) = synthesis([take])
        rows += strip(take.frames, *(made.frames[name] for name in DUBBED))
    return np.concatenate(rows)


def talking(data_dir: str) -> np.ndarray:
    """Strips of frames from the default model, of people who are not among its training
    clips: two speakers (rows: real, generated, attention); three portraits, with the
    sound that their clips came with (generated); and a portrait that says the sentence
    of `make demo` (generated, attention)."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    synthesis, rows = Synthesis(bundle), []
    for speaker in UNSEEN:
        clips = dataset.open_clips(data_dir, "test")
        take = read_take(clips, clips.speakers.index(speaker), None)
        (made,) = synthesis([take])
        rows += strip(take.frames, made.frames["end_to_end"], gray(made.attention))
    clips = dataset.open_clips(data_dir, "validation", ["portraits"])
    for i in PORTRAITS:
        (made,) = synthesis([read_take(clips, i, None)])
        rows += strip(made.frames["end_to_end"])
    *_, made = demo(bundle)
    frames = np.stack([p.frames for p in made])
    attention = np.stack([p.attention for p in made])
    return np.concatenate(rows + strip(frames, gray(attention)))


def demo(bundle: Bundle) -> tuple[Subject, Painter, list[Rendered]]:
    """The photo of `make demo`, who paints it, and what the networks make of its
    sentence."""
    subject = read_subject(astronaut(), bundle, "largest")
    paint = Painter(subject, closes_eyes=bundle.vg_net.closes_eyes)
    speech = read_speech(ROOT / "demo" / "speech.flac")
    lids = paint.lids(len(speech.windows))
    made = talk(Networks(bundle), subject.photo, speech, maps=True, lids=lids)
    return subject, paint, list(made)


def speaking() -> list[np.ndarray]:
    """The frames of demo.webp: the photo's crop, landmarks, attention, colour, result,
    side by side."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    subject, paint, made = demo(bundle)
    crop = to_u8(subject.photo.image[0])
    shown = []
    for t, one in enumerate(made):
        points = paint.points(crop_points(bundle, one.landmarks), t)
        one = one._replace(frames=paint.face(one.frames, t))
        shown.append(np.concatenate([crop, panel(one, points)], axis=1))
    return shown


def write_moving(path: pathlib.Path, frames: list[np.ndarray]) -> None:
    """An animated WebP, which plays again and again."""
    first, *rest = map(Image.fromarray, frames)
    duration = 1000 // FRAME_RATE
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0,
               quality=70, method=6)  # fmt: skip


def strip(*sequences: np.ndarray) -> list[np.ndarray]:
    """Rows of pictures: for every sequence u8[T,H,W,3], COLUMNS of its frames side by
    side; then a white gap."""
    which = np.linspace(1, len(sequences[0]) - 1, COLUMNS + 2).astype(int)[1:-1]
    rows = [np.concatenate(frames[which], axis=1) for frames in sequences]
    return [*rows, np.full((6, rows[0].shape[1], 3), 255, np.uint8)]


def gray(pictures: np.ndarray) -> np.ndarray:
    """u8[T,H,W] -> u8[T,H,W,3], the same value in all three channels."""
    return np.repeat(pictures[..., None], 3, axis=-1)


def pipeline() -> np.ndarray:
    """Three pictures side by side: the photo with its 68 points and the outline of the
    crop, the aligned crop, and the landmarks in the crop."""
    photo = astronaut()
    points = detection.photo_points(photo)
    matrix = align.align(points)
    edge = (-0.5, CROP_SIZE - 0.5)
    corners = np.array(
        [(edge[i], edge[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    )
    marked = photo.copy()
    outline = np.round(align.transform(matrix, corners) * 16).astype(np.int32)
    cv2.polylines(marked, [outline], True, (255, 255, 255), 2, cv2.LINE_AA, 4)
    marked = draw_dots(marked, points, radius=1.5)
    in_crop = align.transform(align.invert(matrix), points)
    panels = [
        cv2.resize(marked, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
        align.warp(photo, align.align(points), SIDE // 3).repeat(3, 0).repeat(3, 1),
        draw_lines(in_crop, SIDE),
    ]
    gap = np.full((SIDE, 8, 3), 255, np.uint8)
    rows = [panels[0], gap, panels[1], gap, panels[2]]
    return np.concatenate(rows, 1)


if __name__ == "__main__":
    main()
