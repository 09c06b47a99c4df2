"""Faults that no check foresees: one line, and nothing else is lost."""

import errno
import os

import jax
import jax.numpy as jnp
import pytest

from jax_atvg.cli import app
from tests.jax_atvg.cli.test_main import GOOD, call, files  # noqa: F401, fixtures


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_one_line(call, monkeypatch, number):  # noqa: F811
    def fail(given):
        raise OSError(number, os.strerror(number), "somewhere/file")

    monkeypatch.setattr(app.VERBS["animate"], "run", fail)
    code, _, errors = call("animate", *GOOD)
    assert code == 2 and errors == [
        f"error: somewhere/file: {os.strerror(number)}; make room, or choose a folder "
        "that can be written"
    ]


def test_another_error_of_the_system_keeps_its_traceback(call, monkeypatch):  # noqa: F811
    def fail(given):
        raise FileNotFoundError(errno.ENOENT, "No such file", "a part of the program")

    monkeypatch.setattr(app.VERBS["animate"], "run", fail)
    with pytest.raises(FileNotFoundError):
        call("animate", *GOOD)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MemoryError("8 GiB"),
            "not enough memory (8 GiB); close other programs, or make the input or the "
            "batch smaller",
        ),
        (
            MemoryError(),
            "not enough memory (none is left); close other programs, or make the input "
            "or the batch smaller",
        ),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GiB\nmore"),
            "the device has not enough memory (RESOURCE_EXHAUSTED: 8 GiB); make the "
            "batch smaller, or compute in bfloat16",
        ),
    ],
)
def test_memory_that_does_not_suffice_is_one_line(call, monkeypatch, error, words):  # noqa: F811
    def fail(given):
        raise error

    monkeypatch.setattr(app.VERBS["animate"], "run", fail)
    code, _, errors = call("animate", *GOOD)
    assert code == 2 and errors == [f"error: {words}"]


def test_what_xla_says_when_memory_does_not_suffice_is_known():
    with pytest.raises(RuntimeError, match=f"^{app.NO_DEVICE_MEMORY}"):
        jax.jit(lambda: jnp.zeros((1 << 24, 1 << 24), jnp.uint8))().block_until_ready()


def test_another_error_of_xla_keeps_its_traceback(call, monkeypatch):  # noqa: F811
    def fail(given):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")

    monkeypatch.setattr(app.VERBS["animate"], "run", fail)
    with pytest.raises(RuntimeError, match="INTERNAL"):
        call("animate", *GOOD)
