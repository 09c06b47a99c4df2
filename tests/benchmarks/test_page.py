"""benchmarks/page.py: a server is started, sent a photo and a sound, and ended.  No
timing is asserted."""

import sys

import numpy as np
import pytest
import soundfile

from benchmarks import measuring, page
from jax_atvg.inference.bundle import save_bundle
from tests.small_bundle import small_bundle

pytest.importorskip("gradio", reason="requirements/web.txt is not installed")


def test_a_server_is_measured_from_its_start_to_the_second_video(tmp_path):
    save_bundle(small_bundle(), tmp_path / "bundle")
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "half.wav", noise, 16000)
    words = [f"--bundle={tmp_path / 'bundle'}", f"--audio={tmp_path / 'half.wav'}"]
    found = page.measure(page.arguments(words))
    assert found["seconds"] == 0.5 and found["kilobytes"] > 1
    assert min(found["ready"], found["first"], found["next"]) > 0
    assert "first video s" in measuring.table([found], page.COLUMNS)


def test_a_server_that_does_not_start_is_told_with_what_it_said():
    words = [sys.executable, "-c", "print('no room')"]
    with pytest.raises(SystemExit, match="no room"), page.served(words):
        pass


def test_an_answer_that_is_an_error_is_told(tmp_path, monkeypatch):
    class Answer:
        is_error, status_code, text = True, 400, "no face"

    @page.contextlib.contextmanager
    def served(command):
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(page, "served", served)
    monkeypatch.setattr("httpx.post", lambda *_, **__: Answer)
    with pytest.raises(SystemExit, match="400: no face"):
        page.measure(page.arguments([]))


@pytest.mark.parametrize("words", [["--image=/no/such.png"], ["--json=/no/x.json"]])
def test_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        page.arguments(words)
    assert stop.value.code == 2
