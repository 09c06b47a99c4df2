"""Faults that no check foresees: one line, and nothing else is lost."""

import errno
import os

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
