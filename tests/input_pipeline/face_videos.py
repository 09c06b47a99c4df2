"""Small videos of a face for the tests: the astronaut of scikit-image, moved about."""

import functools
import pathlib

import cv2
import numpy as np
import skimage.data

from input_pipeline.faces import detection
from input_pipeline.media import video
from input_pipeline.preparation.corpora import Source
from tests.input_pipeline.whole_files import read_video

WIDTH, HEIGHT = 400, 288


def astronaut() -> np.ndarray:
    """The whole picture: a woman who smiles and shows her teeth."""
    return skimage.data.astronaut()


def shape() -> np.ndarray:
    """f64[68,2]: points of her face in pixels of the picture, as dlib finds them."""
    return detection.photo_points(astronaut()).astype(np.float64)


@functools.cache
def face(scale: float = 1.0) -> np.ndarray:
    """The astronaut's head and shoulders, 220x220 at scale 1; the jaw is 90 wide."""
    cut = skimage.data.astronaut()[0:220, 120:340]
    size = (round(220 * scale),) * 2
    return cv2.resize(cut, size, interpolation=cv2.INTER_AREA)


def picture(x: int = 90, y: int = 30, scale: float = 1.0, ground: int = 128):
    """A plain ground with the face at (x, y)."""
    canvas = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    patch = face(scale)
    canvas[y : y + len(patch), x : x + len(patch)] = patch
    return canvas


def hum(seconds: float) -> np.ndarray:
    """Sound that is not silent."""
    time = np.arange(round(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def write(path: pathlib.Path, frames, sound=None) -> pathlib.Path:
    """An MP4 at 25 fps; `sound` f32[N] at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with video.VideoWriter(
        path, None if sound is None else (16000, [sound[:, None]])
    ) as out:
        for frame in frames:
            out.write(frame)
    return path


def source(path: pathlib.Path, corpus: str = "grid", **fields) -> Source:
    name = path.name
    return Source(str(path), name, corpus, path.stem, "s1", "train")._replace(**fields)


def lrw(folder: pathlib.Path, clips: list[pathlib.Path], words=("ABOUT", "YOUNG")):
    """LRW's layout from GRID clips: 29 frames, 256x256, 25 fps, with their .txt."""
    names = [f"{w}/{s}" for w in words for s in ("train", "train", "val", "test")]
    for number, (name, clip) in enumerate(zip(names, clips, strict=True), 1):
        word = name.split("/")[0]
        whole = read_video(clip)
        frames = [
            cv2.resize(frame[:, 36:324], (256, 256), interpolation=cv2.INTER_AREA)
            for frame in whole.frames[20:49]
        ]
        path = folder / name / f"{word}_{number:05d}.mp4"
        write(path, frames, whole.samples[20 * 640 : 49 * 640])
        path.with_suffix(".txt").write_text(
            "Channel: BBC One\nDuration: 0.40 seconds\n"
        )
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(a, b):
    """Byte for byte, file by file."""
    a, b = contents(a), contents(b)
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name] == b[name], name
