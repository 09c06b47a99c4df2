"""Processes and threads that make batches beside the training loop, and their end."""

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest

from input_pipeline.training_data import loader
from input_pipeline.training_data.batches import usable_workers
from input_pipeline.training_data.synthetic import SyntheticClips
from tests.conftest import ROOT

WORKERS = """
import multiprocessing
import sys
import time
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data import loader
from input_pipeline.training_data.synthetic import SyntheticClips
import numpy as np

def main():
    clips, settings = SyntheticClips(5, 20), dict(batch_size=3, seed=0)
    settings |= dict(augment=Strength(gain=0.1, mirror=0.5))
    plain = loader.training_batches(clips, "vg", **settings)
    workers = loader.training_batches(clips, "vg", num_workers=2, **settings)
    workers.set_state({**plain.get_state(), "next_batch": 2})
    next(plain), next(plain)
    for _ in range(3):
        *wanted, lit = next(plain)
        *found, light = next(workers)
        for x, y in zip([*wanted, *lit], [*found, *light], strict=True):
            np.testing.assert_array_equal(x, y)
    assert plain.get_state() == workers.get_state()
    print("same", len(multiprocessing.active_children()), flush=True)
    if sys.argv[1] == "raise":
        raise ValueError("something else")
    if sys.argv[1] == "wait":
        time.sleep(600)
    workers.close()
    print("left", *multiprocessing.active_children())

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("end", ["close", "raise", "SIGKILL"])
def test_workers_change_no_batch_and_end_with_the_loader_or_the_program(tmp_path, end):
    """However that ends: as long as one ran, it would hold the output open."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    process = subprocess.Popen(
        [sys.executable, script, "wait" if end.startswith("SIG") else end],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline().split()
    if end.startswith("SIG"):
        process.send_signal(signal.Signals[end])
    rest, errors = process.communicate(timeout=120)  # until its output is closed
    assert line == ["same", "2"], errors
    if end == "close":
        assert rest == "left\n" and not errors, errors


@pytest.mark.parametrize(
    ("cores", "count"), [(1, 0), (2, 0), (3, 0), (4, 3), (16, 15), (64, 15)]
)
def test_workers_by_default_leave_a_core_and_need_four(cores, count, monkeypatch):
    cores = set(range(cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert usable_workers(-1) == count
    assert usable_workers(2) == 2 and usable_workers(0) == 0


def test_batches_are_placed_by_another_thread_before_they_are_asked_for():
    """Up to two: one waits to be taken, one to be put in its place."""
    settings = {"batch_size": 2, "seed": 0, "num_frames": 4}
    open_loader = functools.partial(
        loader.training_batches, SyntheticClips(5, 8), "vg", **settings
    )
    placed, two = [], threading.Event()

    def place(batch):
        placed.append(threading.current_thread())
        if len(placed) == 3:
            two.set()
        return batch.example.sum()

    with (
        contextlib.closing(open_loader(place=place)) as iterator,
        contextlib.closing(open_loader()) as plain,
    ):
        sums = [next(iterator)]
        assert two.wait(60) and threading.current_thread() not in placed
        assert iterator.get_state()["next_batch"] == 1  # what was taken
        sums += itertools.islice(iterator, 2)
        assert sums == [batch.example.sum() for batch in itertools.islice(plain, 3)]
