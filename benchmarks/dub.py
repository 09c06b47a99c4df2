"""Measures what `main.py dub` costs, and how steady its lips are.

    python benchmarks/dub.py --video=speaker.mp4 --audio=other.wav

frames/s: of the whole command, from reading the video to the finished file; the first
run, which compiles, is not counted.  flicker: mean |y(t+1) - 2 y(t) + y(t-1)| of the
brightness y of the dubbed file over that of the filmed one, where the lips were redrawn
(mouth), within RING pixels around (edge), and elsewhere (rest).  The rest was not
touched: it shows what the second encoding does.  A seam would make the edge flicker
more than the rest.
"""

import argparse
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import show  # noqa: E402

CHANGED = 6.0  # grey levels by which redrawn pixels differ on average
RING = 15
COLUMNS = {  # heading: (key of the summary, format)
    "frames": ("frames", ""),
    "size": ("size", ""),
    "frames/s": ("rate", ".1f"),
    "core s a frame": ("core_s", ".3f"),
    "flicker: mouth": ("mouth", ".2f"),
    "edge": ("edge", ".2f"),
    "rest": ("rest", ".2f"),
}


def flicker(filmed, dubbed) -> dict[str, float]:
    """The ratios of the table.  filmed, dubbed: u8[T,H,W], brightness."""
    import cv2
    import numpy as np

    change = np.abs(dubbed.astype(np.float32) - filmed).mean(0)
    redrawn = cv2.dilate((change > CHANGED).astype(np.uint8), np.ones((9, 9)))
    reach = 2 * RING + 1
    around = cv2.dilate(redrawn, np.ones((reach, reach)))
    places = {"mouth": redrawn > 0, "edge": around > redrawn, "rest": around == 0}
    before, after = (
        np.abs(np.diff(x.astype(np.float32), 2, axis=0)).mean(0)
        for x in (filmed, dubbed)
    )
    return {
        name: float(after[place].mean() / max(before[place].mean(), 1e-9))
        for name, place in places.items()
        if place.any()
    }


def brightness(frames):
    """u8[T,H,W] of frames."""
    import numpy as np

    from input_pipeline.faces.detection import to_gray

    return np.stack([to_gray(frame) for frame in frames])


def measure(given: argparse.Namespace, networks) -> dict[str, Any]:
    from input_pipeline.media.footage import to_and_fro
    from input_pipeline.media.video import frame_rate, read_frames
    from jax_atvg.inference.dub import dub_file

    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "dubbed.mp4"
        for _ in range(2):
            begin, spent = time.perf_counter(), time.process_time()
            dub_file(given.video, given.audio, out, networks)
            wall = time.perf_counter() - begin
            spent = time.process_time() - spent
        fps = frame_rate(given.video)
        dubbed = brightness(read_frames(out, fps))
        height, width = dubbed[0].shape
        count = sum(1 for _ in read_frames(given.video, fps))
        shown = to_and_fro(given.video, count, len(dubbed), fps)
        filmed = brightness(frame[:height, :width] for _, frame in shown)
    height, width = filmed[0].shape  # odd sides have grown by one
    return {
        "frames": len(dubbed),
        "size": f"{width}x{height}",
        "rate": len(dubbed) / wall,
        "core_s": spent / len(dubbed),
        **flicker(filmed, dubbed[:, :height, :width]),
    }


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    from jax_atvg.resources import DEFAULT_BUNDLE

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True)
    parser.add_argument("--audio", default=str(ROOT / "demo" / "speech.flac"))
    parser.add_argument("--bundle", default=str(DEFAULT_BUNDLE))
    parser.add_argument("--json", type=pathlib.Path, help="the figures are kept there")
    return parser.parse_args(words)


def main() -> None:
    from jax_atvg.cli.machine import set_up_jax

    given = arguments()
    set_up_jax()
    from jax_atvg.inference.networks import as_networks

    found = measure(given, as_networks(given.bundle))
    show(found, COLUMNS, given.json)


if __name__ == "__main__":
    main()
