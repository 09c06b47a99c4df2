"""benchmarks/live.py: what it counts, on a talker that draws nothing.  Whether frames
are late on this machine is not asserted."""

import numpy as np
import pytest

from benchmarks import live, measuring


class Instant:
    """A talker whose frames are there as soon as their sound is."""

    rate = 16000

    def __init__(self):
        self.heard = self.given = 0

    def push(self, samples):
        self.heard += len(samples)
        ready = max(0, (self.heard - 2800) // 640 + 1) - self.given
        self.given += ready
        return np.zeros((ready, 2, 2, 3), np.uint8)


def test_frames_that_need_no_time_are_as_late_as_the_pushes(monkeypatch):
    given = live.arguments(["--seconds=1"])
    monkeypatch.setattr(live, "LATE", 60.0)  # a busy machine may stop for a while
    found = live.measure(Instant(), np.zeros(100, np.float32), given)
    assert found["frames"] == (16000 - 2800) // 640 + 1 and found["late"] == 0
    assert found["p99"] >= found["p50"] > 0 and found["mib"] > 0
    assert "frames/s" in measuring.table([found], live.COLUMNS)


def test_faster_does_not_wait():
    given = live.arguments(["--seconds=3600", "--faster"])
    found = live.measure(Instant(), np.zeros(100, np.float32), given)
    assert found["frames"] == (3600 * 16000 - 2800) // 640 + 1
    assert found["rate"] > 1000 and found["p50"] is None


def test_the_sound_is_played_again_and_again():
    sound = np.arange(5)
    np.testing.assert_array_equal(live.piece(sound, 3, 12), [3, 4, 0, 1, 2, 3, 4, 0, 1])


def test_bad_flags_end_with_exit_code_2():
    with pytest.raises(SystemExit) as stop:
        live.arguments(["--seconds=0"])
    assert stop.value.code == 2
