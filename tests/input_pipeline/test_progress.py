"""How far a long job is: a bar on a terminal, plain lines elsewhere."""

import io
import sys

import pytest

from input_pipeline import progress
from input_pipeline.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_plain_line_every_so_many_seconds_and_at_the_end(seconds, capsys):
    with Progress(100, "step", name="vg", initial=20) as bar:
        for _ in range(40):
            seconds[0] += 0.5
            bar.show(loss="0.5")
            bar.update()
    output, lines = capsys.readouterr()
    assert output == "" and "\r" not in lines
    assert lines.splitlines() == [
        "vg: 40 of 100 steps, 2 steps/s, 30 s left, loss 0.5",
        "vg: 60 of 100 steps, 2 steps/s, 20 s left, loss 0.5",
    ]


def test_what_has_changed_since_the_last_line_is_said_at_the_end(seconds, capsys):
    with Progress(3, "step") as bar:
        seconds[0] += 10.0
        bar.update()
        bar.show(loss="0.4")
    assert capsys.readouterr().err.splitlines() == [
        "1 of 3 steps",
        "1 of 3 steps, loss 0.4",
    ]


def test_the_first_one_which_may_compile_does_not_count_for_the_pace(seconds, capsys):
    with Progress(10, "frame") as bar:
        for wait in (100.0, 1.0, 1.0):
            seconds[0] += wait
            bar.update()
    first, last = capsys.readouterr().err.splitlines()
    assert first == "1 of 10 frames"
    assert last == "3 of 10 frames, 1 frames/s, 7 s left"


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(3, "clip") as bar:
        for _ in range(3):
            bar.update()
        bar.say("a word")
    text = terminal.getvalue()
    assert "\r" in text and "3/3" in text and "a word\n" in text


def test_what_is_not_active_says_nothing(capsys):
    with Progress(2, "clip", active=False) as bar:
        bar.update()
        bar.say("a word")
    assert capsys.readouterr() == ("", "")


def test_a_line_of_its_own_comes_at_once(capsys):
    with Progress(2, "clip") as bar:
        bar.say("compiling")
        assert capsys.readouterr().err == "compiling\n"


def test_a_name_that_holds_the_end_of_a_line_stays_in_one_line(seconds, capsys):
    with Progress(1, "frame", name="a\nb\x0b.mp4") as bar:
        bar.update()
    assert capsys.readouterr().err.splitlines() == ["a b .mp4: 1 of 1 frames"]


@pytest.mark.parametrize(
    ("seconds_left", "text"),
    [(0.4, "0 s"), (89.0, "89 s"), (90.0, "2 min"), (5399.0, "90 min"), (9e3, "2.5 h")],
)
def test_durations_are_in_the_unit_that_one_would_say(seconds_left, text):
    assert duration(seconds_left) == text
