"""Measures the speed of `prepare` and of its stages, or the accuracy of its tracking.

    python benchmarks/prepare.py --source=../shared/data/grid
    python benchmarks/prepare.py --source=../shared/data/grid --verify

Seconds are processor time of one process, so that other programs matter as little as
possible; the wall clock's are printed as well.  --verify compares the points that are
tracked through a video with those that detection finds on every frame.
"""

import contextlib
import pathlib
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from input_pipeline.faces import align, detection
from input_pipeline.media import audio, video
from input_pipeline.preparation import corpora, recording, results
from input_pipeline.preparation.recording import DEFAULT_OPTIONS

CORPUS = flags.DEFINE_enum(
    "corpus", "grid", ["grid", "lrw", "folder"], "kind of corpus"
)
SOURCE = flags.DEFINE_string("source", None, "the folder of the corpus", required=True)
CLIPS = flags.DEFINE_integer("clips", 20, "number of files, evenly spread")
VERIFY = flags.DEFINE_bool("verify", False, "compare with detection on every frame")

# What is timed: (name in the table, module or class, name of the function there).
STAGES = [
    ("read the sound", video, "read_sound"),
    ("68 points", detection, "_points"),
    ("check the followed face", detection, "_seen"),
    ("detect in the whole picture", detection, "detect"),
    ("find the face at first", detection, "_detect_gray"),
    ("smooth the alignment", align, "smooth"),
    ("warp", align, "warp"),
    ("JPEG", recording, "_jpeg"),
    ("MFCC", audio, "mfcc"),
    ("keep the result", results, "store"),
]


def chosen() -> list[corpora.Source]:
    """Files that are spread evenly over the corpus, the same in every run."""
    sources = corpora.walk(CORPUS.value, SOURCE.value)
    count = min(CLIPS.value, len(sources))
    return [sources[i * len(sources) // count] for i in range(count)]


@contextlib.contextmanager
def stopwatches(spent: dict[str, float]):
    """While open, every stage adds its processor seconds to `spent`; a stage that runs
    within another one counts as part of that."""

    running = []

    def timed(label, function):
        def wrapper(*arguments, **options):
            if running:  # within another stage
                return function(*arguments, **options)
            running.append(label)
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[label] = spent.get(label, 0) + time.process_time() - start
                running.pop()

        return wrapper

    def timed_frames(path):
        stream = original(path)
        while True:
            start = time.process_time()
            frame = next(stream, None)
            label = "decode the frames"
            spent[label] = spent.get(label, 0) + time.process_time() - start
            if frame is None:
                return
            yield frame

    original, replaced = video.read_frames, []
    try:
        for label, module, name in STAGES:
            replaced.append((module, name, getattr(module, name)))
            setattr(module, name, timed(label, getattr(module, name)))
        video.read_frames = timed_frames
        yield
    finally:
        video.read_frames = original
        for module, name, function in replaced:
            setattr(module, name, function)


def speed(sources: list[corpora.Source]) -> None:
    """Prepares the files, and prints the speed and the share of every stage."""
    spent, frames, clips = {}, 0, 0
    with tempfile.TemporaryDirectory() as folder, stopwatches(spent):
        warm_up = results.Job(pathlib.Path(folder) / "warm_up", DEFAULT_OPTIONS)
        results.finish(warm_up, sources[0])  # reads models, fills caches
        spent.clear()
        job = results.Job(pathlib.Path(folder) / "work", DEFAULT_OPTIONS)
        wall, cpu = time.perf_counter(), time.process_time()
        for source in sources:
            done = results.finish(job, source)
            clips += len(done.clips)
            frames += sum(count for _, count, _ in done.clips)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    files = len(sources)
    print(f"{files} files, {clips} clips, {frames} frames")
    print(
        f"{files / cpu:.2f} files a second and core; {1000 * cpu / files:.0f} ms each"
    )
    print(f"by the wall clock {1000 * wall / files:.0f} ms each\n")
    print(f"{'ms a file':>10}  share")
    spent["the rest"] = cpu - sum(spent.values())
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{1000 * seconds / files:10.1f}  {seconds / cpu:5.1%}  {label}")


def verify(sources: list[corpora.Source]) -> None:
    """Prints how far tracked points are from detected ones, in pixels of the source."""
    differences, unseen, crop = [], 0, []
    for source in sources:
        frames = list(video.read_frames(source.path))
        followed = list(detection.track(frames))
        clip_differences = []
        for picture, points in zip(frames, followed, strict=True):
            boxes = detection.detect(picture)
            if points is None or not boxes:
                unseen += points is not None or bool(boxes)
                continue
            found = detection.find_points(picture, detection.choose_face(boxes))
            way = np.linalg.norm(points - found, axis=1).mean()
            clip_differences.append(way)
            matrix = align.align(points)
            crop.append(way / np.hypot(matrix[0, 0], matrix[1, 0]))
        differences += clip_differences
        print(
            f"{source.clip_id:24} mean {np.mean(clip_differences):.2f}  "
            f"worst frame {np.max(clip_differences):.2f} px"
        )
    print(
        f"\n{len(sources)} clips, {len(differences)} frames: the points differ by "
        f"{np.mean(differences):.2f} px in the mean ({np.mean(crop):.2f} crop pixels), "
        f"by {np.max(differences):.2f} px in the worst frame; {unseen} frames in which "
        "only one of the two ways saw the face"
    )


def main(_) -> None:
    import cv2

    cv2.setNumThreads(1)
    verify(chosen()) if VERIFY.value else speed(chosen())


if __name__ == "__main__":
    app.run(main)
