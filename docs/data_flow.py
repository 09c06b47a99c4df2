"""Draws docs/data_flow.png: from a photo and a sentence to frames, with real pictures.

python docs/data_flow.py
"""

import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure
from skimage.data import astronaut

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from input_pipeline.faces.drawing import draw_dots, draw_lines  # noqa: E402
from input_pipeline.media.audio import read_audio  # noqa: E402
from input_pipeline.media.image import to_u8  # noqa: E402
from jax_atvg.inference.animate import (  # noqa: E402
    crop_points,
    read_speech,
    read_subject,
    talk,
)
from jax_atvg.inference.bundle import load_bundle  # noqa: E402
from jax_atvg.resources import DEFAULT_BUNDLE  # noqa: E402

SPEECH = ROOT / "demo" / "speech.flac"
SHOWN = (20, 30, 40, 52)  # frames
BOX = {"facecolor": "#dce6f2", "edgecolor": "#44618a", "boxstyle": "round,pad=0.5"}
ARROW = {"arrowstyle": "-|>", "color": "#44618a", "lw": 1.8}


def main() -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    subject, heard = read_subject(astronaut(), bundle), read_speech(SPEECH)
    talking = talk(bundle, subject.photo, heard, maps=True)
    made = [p for t, p in enumerate(talking) if t in SHOWN]
    points = [crop_points(bundle, p.landmarks) for p in made]
    crop = to_u8(subject.photo.image[0])
    own = crop_points(bundle, subject.photo.landmarks[0])
    figure = Figure(figsize=(13, 6.2), facecolor="white")
    show(figure, (0.01, 0.55, 0.13, 0.32), crop, "photo, aligned 128x128")
    show(figure, (0.15, 0.55, 0.13, 0.32), draw_dots(crop, own), "its 68 landmarks")
    plot_sound(figure, heard)
    lines = strip([draw_lines(p, 128) for p in points])
    attention = strip([gray(p.attention) for p in made])
    color = strip([p.color for p in made])
    frames = strip([p.frames for p in made])
    show(figure, (0.43, 0.1, 0.22, 0.12), lines, "landmarks of every frame")
    show(figure, (0.765, 0.79, 0.22, 0.12), attention, "attention")
    show(figure, (0.765, 0.59, 0.22, 0.12), color, "colour")
    show(figure, (0.765, 0.1, 0.22, 0.12), frames, "frames, 25 a second")
    box(figure, 0.36, 0.3, "AT-net\nLSTM over time")
    box(figure, 0.7, 0.43, "VG-net\nconvolutional GRU")
    box(figure, 0.875, 0.37, "attention * colour\n+ (1 - attention) * photo")
    for start, end in (
        ((0.28, 0.22), (0.33, 0.27)),
        ((0.22, 0.54), (0.34, 0.36)),
        ((0.39, 0.25), (0.45, 0.2)),
        ((0.64, 0.22), (0.69, 0.36)),
        ((0.29, 0.62), (0.66, 0.47)),
        ((0.735, 0.48), (0.77, 0.6)),
        ((0.875, 0.56), (0.875, 0.43)),
        ((0.875, 0.31), (0.875, 0.25)),
    ):
        figure.add_artist(_arrow(start, end))
    figure.savefig(ROOT / "docs" / "data_flow.png", dpi=90)


def show(figure: Figure, place: tuple, picture: np.ndarray, title: str) -> None:
    axes = figure.add_axes(place)
    axes.imshow(picture)
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def plot_sound(figure: Figure, heard) -> None:
    """The sound, and the MFCC that the networks hear of it."""
    samples = read_audio(SPEECH)
    wave = figure.add_axes((0.02, 0.3, 0.26, 0.1))
    wave.plot(samples[::40], color="#44618a", lw=0.5)
    wave.set_title("speech, 16 kHz", fontsize=10)
    wave.axis("off")
    cepstra = figure.add_axes((0.02, 0.1, 0.26, 0.13))
    rows = heard.features[:, 1:].T
    cepstra.imshow(rows, aspect="auto", cmap="RdBu_r", origin="lower")
    cepstra.set_title("12 MFCC, 100 a second; 28 of them a frame", fontsize=10)
    cepstra.axis("off")


def box(figure: Figure, x: float, y: float, text: str) -> None:
    figure.text(x, y, text, ha="center", va="center", fontsize=11, bbox=BOX)


def _arrow(start: tuple, end: tuple):
    from matplotlib.patches import FancyArrowPatch

    return FancyArrowPatch(start, end, mutation_scale=16, **ARROW)


def strip(pictures: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(pictures, axis=1)


def gray(attention: np.ndarray) -> np.ndarray:
    return np.repeat(attention[..., None], 3, axis=-1)


if __name__ == "__main__":
    main()
