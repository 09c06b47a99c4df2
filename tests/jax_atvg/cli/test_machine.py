"""How a process of the command line is set up."""

import logging
import os
import platform
import resource
import subprocess
import sys
import types

import jax
import pytest

from jax_atvg.cli import machine
from tests.conftest import ROOT


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone")
@pytest.mark.parametrize("kept", [False, True])
def test_a_large_array_takes_the_memory_of_the_one_before(kept):
    """Pages that the system has to clear for the second of two arrays."""
    program = f"""
import resource
import numpy
from jax_atvg.cli.machine import keep_freed_memory

if {kept}:
    keep_freed_memory(one_heap=True)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults() * resource.getpagesize() / 2**27)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"},
        check=True,
        stdout=subprocess.PIPE,
    )
    cleared = float(done.stdout)
    assert cleared < 0.01 if kept else cleared > 0.9


@pytest.mark.parametrize("loaded", [False, True])
def test_a_program_starts_anew_for_a_larger_stack_before_jax_is_there(loaded):
    """Once, with its arguments; later its threads have theirs already."""
    least, most = 2**22, 2**24
    program = (
        f"import resource, sys; from jax_atvg.cli.machine import enlarge_stack; "
        f"sys.modules.update({'jax=None' if loaded else ''}); enlarge_stack(); "
        "print(resource.getrlimit(resource.RLIMIT_STACK), sys.argv)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "one"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (least, most)),
    )
    assert done.stdout == f"({least if loaded else most}, {most}) ['-c', 'one']\n"


def test_readings_that_fail_when_nobody_waits_are_not_told(caplog, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    machine.tell_errors_of_reading_once()
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    for text in ("Event loop is closed", "something else"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(event.exc_value) for event in told] == ["something else"]
    log = logging.getLogger("asyncio")
    log.error("Task exception was never retrieved")
    log.error("a slow callback")
    assert [record.getMessage() for record in caplog.records] == ["a slow callback"]


@pytest.mark.parametrize(
    ("processes", "workdir", "own", "kept"),
    [
        (1, "runs/vg", "", "home/jax_atvg"),
        (2, None, "", "home/jax_atvg"),
        (2, "runs/vg", "", "runs/vg/compiled"),
        (2, "gs://bucket/runs/vg", "", None),
        (2, "runs/vg", "mine", None),  # jax has read the variable
    ],
)
def test_compiled_programs_lie_where_all_processes_of_a_run_have_them(
    processes, workdir, own, kept, tmp_path, monkeypatch
):
    """The first process alone writes them.  Nothing is made in a workdir that may not
    be used."""
    told = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", own)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machine, "tell_errors_of_reading_once", lambda: None)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    machine.set_up_jax(workdir)
    folder = {"jax_compilation_cache_dir": str(tmp_path / kept)} if kept else {}
    assert told == folder
    assert not (tmp_path / "runs").exists()
