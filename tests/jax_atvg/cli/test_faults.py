"""Faults that no check foresees: one line, and nothing else is lost."""

import errno
import os

import pytest

from jax_atvg.cli import app
from tests.jax_atvg.cli.test_main import GOOD, call, files  # noqa: F401, fixtures


def test_any_exception_of_one_row_leaves_the_others_alone(call, files, monkeypatch):  # noqa: F811
    from jax_atvg.inference import animate

    whole = animate.animate_file

    def sometimes(image, audio, out, *rest, **options):
        if out == "1.mp4":
            raise IndexError("list index out of range")
        return whole(image, audio, out, *rest, **options)

    monkeypatch.setattr(animate, "animate_file", sometimes)
    rows = "a face.png,räde.wav,1.mp4\na face.png,räde.wav,2.mp4\n"
    (files / "list.csv").write_text(rows, encoding="utf-8")
    code, output, errors = call("animate", "--bundle=bundle", "--batch=list.csv")
    assert (code, output) == (2, ["wrote 2.mp4", "1 of 2 videos written"])
    said = "error: list.csv: job 1: IndexError: list index out of range; please report"
    assert any(line.startswith(said) for line in errors)
    with pytest.raises(IndexError):  # alone, its traceback is wanted
        call("animate", *GOOD[:3], "--out=1.mp4")


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
