"""Measures how fast the loader makes VG-net's batches, and how long it holds a caller.

    python benchmarks/loader.py --data_dir=~/atvg_data --augment --workers=15
    python benchmarks/loader.py                         # with a synthetic dataset

A window is a photo and 16 frames of 128x128 pixels; all 17 count as frames.  Without
--augment there is a plain reader to compare with, which decodes all frames of a clip
and cuts the window out, on as many threads.  Readers are timed in turns, and the best
turn counts: on a shared machine the slower ones measure what else was running.

The frames for each second that this process itself spends on a processor are, without
workers, those that a core makes; with workers, those that it can take from them, which
bounds the pace however many workers there are.

`next` is then called at two thirds of that pace, as by a training loop that the loader
keeps up with: what it still takes is taken from the loop.
"""

import concurrent.futures
import contextlib
import itertools
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs import vg_default
from input_pipeline.training_data import dataset, loader, sampling, synthetic
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data.batches import num_bytes

DATA_DIR = flags.DEFINE_string("data_dir", None, "a prepared dataset; else synthetic")
SPLIT = flags.DEFINE_string("split", "train", "the split to read")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "windows per batch")
NUM_FRAMES = flags.DEFINE_integer("num_frames", 16, "frames per window")
AUGMENT = flags.DEFINE_bool("augment", False, "augment as configs/vg_default.py does")
THREADS = flags.DEFINE_integer("threads", loader.NUM_THREADS, "threads per reader")
WORKERS = flags.DEFINE_integer("workers", 0, "processes of the loader; 0: none")
WINDOWS = flags.DEFINE_integer("windows", 960, "windows per turn")
TURNS = flags.DEFINE_integer("turns", 3, "turns of each reader")


def loader_batches(clips):
    """The loader's batches; closing the generator closes the loader."""
    strength = vg_default.get_config().data.augment if AUGMENT.value else Strength()
    batches = loader.training_batches(
        clips,
        "vg",
        batch_size=BATCH_SIZE.value,
        num_frames=NUM_FRAMES.value,
        seed=0,
        augment=strength,
        num_threads=THREADS.value,
        num_workers=WORKERS.value,
    )
    with contextlib.closing(batches):
        yield from batches


def plain_batches(clips):
    """Batches read the plain way: a whole clip is decoded and the window cut out."""

    def example(index: int):
        clip = clips[index % len(clips)]
        frames = sampling.decode(clip, range(len(clip.frames)))
        shape = sampling.flat_landmarks(clip)
        key = (0, 0, index)
        reference, first = sampling.draw(len(frames), key, NUM_FRAMES.value)
        window = slice(first, first + NUM_FRAMES.value)
        return frames[reference], shape[reference], frames[window], shape[window]

    with concurrent.futures.ThreadPoolExecutor(THREADS.value) as pool:
        indices = itertools.count()
        batch = [pool.submit(example, i) for i in itertools.islice(indices, 16)]
        while True:
            rows = []
            for _ in range(BATCH_SIZE.value):
                batch.append(pool.submit(example, next(indices)))
                rows.append(batch.pop(0).result())
            yield tuple(map(np.stack, zip(*rows, strict=True)))


def speeds(batches, count: int) -> tuple[float, float]:
    """(frames a second, frames a second of this process on a processor), over `count`
    batches, after those that were made ahead."""
    for _ in range(2 + 2 * WORKERS.value):
        next(batches)
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    frames = count * BATCH_SIZE.value * (NUM_FRAMES.value + 1)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return frames / seconds, frames / busy


def seconds_held(batches, pause: float, count: int) -> float:
    """The median time of `next`, called after pauses of so many seconds."""
    held = []
    for _ in range(count):
        time.sleep(pause)
        start = time.perf_counter()
        next(batches)
        held.append(time.perf_counter() - start)
    return statistics.median(held)


def report(name: str, pace: float, held: float) -> str:
    return f"{name:12s} {pace:8.0f} frames/s, next holds {1e3 * held:.2f} ms"


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        if not DATA_DIR.value:
            print("making 48 clips of 75 frames")
            synthetic.write_dataset(folder, train=synthetic.SyntheticClips(48, 75))
        clips = dataset.open_clips(DATA_DIR.value or folder, SPLIT.value)
        jpeg = np.mean([len(frame) for frame in clips[0].frames])
        print(f"{len(clips)} clips of {np.mean(clips.lengths):.0f} frames; a frame of "
              f"the first takes {jpeg / 1024:.1f} KiB")  # fmt: skip
        readers = {"loader": loader_batches}
        if not AUGMENT.value:
            readers["whole clips"] = plain_batches
        count = -(-WINDOWS.value // BATCH_SIZE.value)
        best = {}
        for turn, (name, make) in itertools.product(
            range(TURNS.value), readers.items()
        ):
            with contextlib.closing(make(clips)) as batches:
                pace, of_a_core = speeds(batches, count)
                pause = 1.5 * BATCH_SIZE.value * (NUM_FRAMES.value + 1) / pace
                held = seconds_held(batches, pause, min(count, 20))
                bytes_a_batch = num_bytes(next(batches))
            print(f"turn {turn + 1}  {report(name, pace, held)}, "
                  f"{bytes_a_batch / 1e6:.1f} MB a batch"
                  f", {of_a_core:.0f} frames a second of this process on a core"
                  )  # fmt: skip
            fastest, least = best.get(name, (0.0, held))
            best[name] = max(fastest, pace), min(least, held)
        for name, (pace, held) in best.items():
            print(f"best    {report(name, pace, held)}")


if __name__ == "__main__":
    app.run(main)
