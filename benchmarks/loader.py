"""Measures how many training windows the loader reads a second, beside a plain reader.

    python benchmarks/loader.py --data_dir=~/atvg_data
    python benchmarks/loader.py                         # with a synthetic dataset

A window is 16 frames of 128x128 pixels.  The plain reader decodes all frames of a clip
and cuts the window out, on as many threads.  Both are timed in turns, and the best turn
counts: on a shared machine the slower ones measure what else was running.
"""

import concurrent.futures
import contextlib
import itertools
import pathlib
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from input_pipeline.media.image import to_float
from input_pipeline.training_data import dataset, loader, sampling, synthetic

DATA_DIR = flags.DEFINE_string("data_dir", None, "a prepared dataset; else synthetic")
SPLIT = flags.DEFINE_string("split", "train", "the split to read")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "windows per batch")
NUM_FRAMES = flags.DEFINE_integer("num_frames", 16, "frames per window")
THREADS = flags.DEFINE_integer("threads", loader.NUM_THREADS, "threads per reader")
WORKERS = flags.DEFINE_integer("workers", 0, "processes of the loader; 0: none")
WINDOWS = flags.DEFINE_integer("windows", 960, "windows per turn")
TURNS = flags.DEFINE_integer("turns", 3, "turns of each reader")


def loader_batches(clips):
    """The loader's batches; closing the generator closes the loader."""
    settings = {"num_threads": THREADS.value, "num_workers": WORKERS.value}
    batches = loader.training_batches(
        clips,
        "vg",
        batch_size=BATCH_SIZE.value,
        num_frames=NUM_FRAMES.value,
        seed=0,
        **settings,
    )
    with contextlib.closing(batches):
        yield from batches


def plain_batches(clips):
    """Batches read the plain way: a whole clip is decoded and the window cut out."""

    def example(index: int):
        clip = clips[index % len(clips)]
        frames = to_float(sampling.decode(clip, range(len(clip.frames))))
        shape = sampling.flat_landmarks(clip)
        key = (0, 0, index)
        reference, first = sampling.draw(len(frames), key, NUM_FRAMES.value)
        window = slice(first, first + NUM_FRAMES.value)
        return sampling.VgBatch(
            frames[reference], shape[reference], frames[window], shape[window]
        )

    with concurrent.futures.ThreadPoolExecutor(THREADS.value) as pool:
        indices = itertools.count()
        batch = [pool.submit(example, i) for i in itertools.islice(indices, 16)]
        while True:
            rows = []
            for _ in range(BATCH_SIZE.value):
                batch.append(pool.submit(example, next(indices)))
                rows.append(batch.pop(0).result())
            yield sampling.VgBatch(*map(np.stack, zip(*rows, strict=True)))


def windows_per_second(batches, count: int) -> float:
    """The speed over `count` windows, after a first batch that is not counted."""
    with contextlib.closing(batches):
        next(batches)
        start = time.perf_counter()
        for _ in range(-(-count // BATCH_SIZE.value)):
            next(batches)
        return count / (time.perf_counter() - start)


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        if not DATA_DIR.value:
            print("making 48 clips of 75 frames")
            synthetic.write_dataset(folder, train=synthetic.SyntheticClips(48, 75))
        clips = dataset.open_clips(DATA_DIR.value or folder, SPLIT.value)
        size = np.mean([len(frame) for frame in clips[0].frames])
        print(f"{len(clips)} clips of {np.mean(clips.lengths):.0f} frames; a frame of "
              f"the first takes {size / 1024:.1f} KiB")  # fmt: skip
        best = {}
        for turn in range(TURNS.value):
            for name, make, share in (
                ("loader", loader_batches, 1),
                ("whole clips", plain_batches, 4),
            ):
                speed = windows_per_second(make(clips), WINDOWS.value // share)
                best[name] = max(best.get(name, 0), speed)
                print(f"turn {turn + 1}  {name:12s} {speed:7.1f} windows/s")
        ratio = best["loader"] / best["whole clips"]
        print(f"best: loader {best['loader']:.1f} windows/s, whole clips "
              f"{best['whole clips']:.1f}, ratio {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    app.run(main)
