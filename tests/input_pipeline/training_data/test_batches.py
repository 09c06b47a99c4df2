"""Processes and threads that make batches beside the training loop, and their end."""

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import types

import jax
import pytest

from input_pipeline.training_data import batches, loader
from input_pipeline.training_data.augment import Strength
from input_pipeline.training_data.batches import usable_workers
from input_pipeline.training_data.synthetic import SyntheticClips
from tests.conftest import ROOT

WORKERS = """
import multiprocessing
import sys
import time
from input_pipeline.clip import InputError
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
    if sys.argv[1] == "kill":
        multiprocessing.active_children()[0].kill()
        try:
            for _ in range(20):
                next(workers)
        except InputError as error:
            print(error)
    if sys.argv[1] == "wait":
        time.sleep(600)
    workers.close()
    print("left", *multiprocessing.active_children())

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("end", ["close", "raise", "kill", "SIGKILL"])
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
    if end == "kill":
        assert rest.startswith("config.data.num_workers: one of these processes was")
        assert rest.endswith("take fewer\nleft\n") and "Traceback" not in errors
    if end == "close":
        assert rest == "left\n" and not errors, errors


MASKS = """
import multiprocessing
import pathlib
import re
import signal
from input_pipeline.training_data import loader
from input_pipeline.training_data.synthetic import SyntheticClips

def main():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    clips, settings = SyntheticClips(5, 8), dict(batch_size=2, seed=0, num_frames=4)
    batches = loader.training_batches(clips, "vg", num_workers=2, **settings)
    batches.start_prefetch()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    next(batches), next(batches)  # now both workers are there
    for process in multiprocessing.active_children():
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        mask = int(re.search(r"SigBlk:\\s*(\\w+)", status)[1], 16)
        print(*(mask >> (n - 1) & 1 for n in (signal.SIGINT, signal.SIGTERM)))
    batches.close()

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_workers_hear_no_ctrl_c_and_no_sigterm_from_their_first_moment(tmp_path):
    """A process begins with the mask of the thread that starts it, and keeps it."""
    script = tmp_path / "masks.py"
    script.write_text(MASKS)
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "1 1\n1 1\n", done.stderr


@pytest.mark.parametrize(("free", "fit"), [(900, 3), (899, 2), (299, 0)])
def test_workers_are_fewer_where_shared_memory_is_small(free, fit, monkeypatch):
    """Batches of 100 bytes, of which a worker holds 3.  Without room a worker would be
    killed when it writes."""
    usage = types.SimpleNamespace(free=free)
    monkeypatch.setattr(batches.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(batches, "SHARED", ROOT)
    with contextlib.ExitStack() as stack:
        if fit < 3:
            stack.enter_context(pytest.warns(UserWarning, match=f"{fit} of 3 worker"))
        assert batches.that_fit(3, 100) == fit
    assert batches.that_fit(0, 100) == 0
    monkeypatch.setattr(batches, "SHARED", ROOT / "no such folder")
    assert batches.that_fit(3, 100) == 3  # not Linux


def test_the_size_of_a_batch_is_that_of_its_arrays():
    clips = SyntheticClips(5, 20)
    settings = dict(batch_size=3, seed=0, augment=Strength(gain=0.1))
    with contextlib.closing(loader.training_batches(clips, "vg", **settings)) as plain:
        batch = next(plain)
    assert batch.colour is not None
    whole = sum(x.nbytes for x in jax.tree.leaves(batch))
    assert batches.num_bytes(batch) == whole


@pytest.mark.parametrize(
    ("cores", "devices", "count"),
    [(1, 1, 0), (3, 8, 0), (4, 1, 3), (16, 1, 15), (64, 1, 15), (200, 8, 120)],
)
def test_workers_by_default_leave_a_core_and_need_four(
    cores, devices, count, monkeypatch
):
    cores = set(range(cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert usable_workers(-1, devices) == count
    assert usable_workers(2, devices) == 2 and usable_workers(0, devices) == 0


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
