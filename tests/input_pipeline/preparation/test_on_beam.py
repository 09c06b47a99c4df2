"""The Beam pipeline makes what the local processes make."""

import errno
import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import pytest

from input_pipeline.clip import InputError
from input_pipeline.preparation.on_beam import Beam
from input_pipeline.preparation.prepare import _disk_errors, prepare
from input_pipeline.training_data import records
from tests.conftest import ROOT
from tests.input_pipeline.face_videos import assert_same

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="pip install -r requirements/beam.txt",
)
LIMIT = 300.0  # seconds; a process that hangs is an error


def start(lrw, data_dir: pathlib.Path, options: str) -> subprocess.Popen:
    """In a process of its own: the shape checker's functions cannot be pickled."""
    flags = ["--corpus=lrw", f"--source={lrw}", f"--data_dir={data_dir}"]
    beam = ["--runner=beam", f"--beam_options={options}"]
    return subprocess.Popen(
        [sys.executable, "main.py", "prepare", *flags, *beam],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    try:
        _, error = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, error


def dataset(data_dir: pathlib.Path) -> pathlib.Path:
    return data_dir / records.NAME / "lrw" / records.VERSION


@needs_beam
def test_beams_dataset_equals_the_local_one_byte_for_byte(lrw, prepared, tmp_path):
    finish(start(lrw, tmp_path, "direct_running_mode=in_memory"))
    assert_same(dataset(tmp_path), prepared)


@pytest.fixture
def dask(tmp_path):
    """(file by which a scheduler is found, function that starts a worker)."""
    file, processes = tmp_path / "scheduler.json", []

    def begin(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words, f"--scheduler-file={file}"]
        log = open(tmp_path / f"{words[0]} {len(processes)}.log", "w")  # noqa: SIM115
        with log:
            processes.append(
                subprocess.Popen(
                    [*command, "--no-dashboard"],
                    cwd=tmp_path,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return processes[-1]

    begin("scheduler", "--port=0", "--host=127.0.0.1")
    yield file, lambda: begin("worker", "--nthreads=1", "--no-nanny")
    for process in processes:
        process.kill()
        process.wait()


@needs_beam
def test_on_an_engine_whose_workers_die_the_dataset_is_the_same(
    lrw, prepared, tmp_path, dask
):
    """Of two workers one is killed among the files, then the other one; a third one
    comes and ends it."""
    file, begin = dask
    workers = [begin(), begin()]
    until = time.monotonic() + LIMIT
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process = start(lrw, tmp_path, f"runner=DaskRunner,dask_scheduler_file={file}")
    work = tmp_path / records.NAME / "lrw" / "work"
    for number, worker in enumerate(workers, 1):
        while len(list(work.glob("clips/*/*.zip"))) < number:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.005)
        worker.kill()
    begin()
    finish(process)
    assert_same(dataset(tmp_path), prepared)


@needs_beam
def test_a_pipeline_that_fails_says_what_it_died_of(tmp_path):
    """A full disk is told as such, also where an engine has wrapped it."""
    run = Beam(1, ["direct_running_mode=in_memory"])
    failed = r"failed \(RuntimeError: b\); what is finished"
    with pytest.raises(InputError, match=failed), run.explained():
        raise RuntimeError("a\nb")
    full = pytest.raises(InputError, match="the disk is full; make room")
    with full, run.explained(), _disk_errors(tmp_path):
        raise RuntimeError(f"worker: {os.strerror(errno.ENOSPC)}")
    with (
        pytest.raises(InputError, match=r"failed .OSError: Timed out"),
        run.explained(),
    ):
        raise OSError("Timed out")  # as Dask says of a scheduler


@needs_beam
def test_a_runner_that_does_not_exist_is_an_input_error():
    with pytest.raises(InputError, match="runner=NoRunner: Unexpected pipeline runner"):
        Beam(1, ["runner=NoRunner"])


@needs_beam
def test_dask_is_given_small_tasks_unless_others_are_asked_for(tmp_path):
    file = tmp_path / "scheduler.json"
    with pytest.raises(InputError, match=r"json: no such file; start `dask sch"):
        Beam(1, ["runner=DaskRunner", f"dask_scheduler_file={file}"])
    for options, size in ([], 1), (["dask_partition_size=8"], 8):
        found = Beam(1, ["runner=DaskRunner", *options]).options.get_all_options()
        assert found["partition_size"] == size


def test_a_missing_beam_is_an_input_error(lrw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="pip install -r requirements"):
        prepare("lrw", lrw, tmp_path, runner="beam")
