"""benchmarks/dub.py: what it counts, and that it runs."""

import numpy as np
import pytest
import soundfile

from benchmarks import dub, measuring
from jax_atvg.inference.networks import Networks
from tests.input_pipeline import face_videos
from tests.small_bundle import small_bundle, speech


def test_flicker_is_told_by_places():
    random = np.random.default_rng(0)
    filmed = random.integers(60, 180, (30, 90, 120), np.uint8)
    same = filmed.copy()
    steady = filmed.copy()
    steady[:, 40:50, 50:70] = 100
    assert dub.flicker(filmed, same) == {"rest": 1.0}
    found = dub.flicker(filmed, steady)
    assert found["rest"] == found["edge"] == 1
    # The brush is 4 pixels larger on each side than what changed.
    assert found["mouth"] == pytest.approx(1 - 10 * 20 / (18 * 28), abs=0.02)


def test_a_video_is_dubbed_and_measured(tmp_path):
    face_videos.write(
        tmp_path / "a.mp4", [face_videos.picture(60 + t)[:287] for t in range(8)]
    )
    soundfile.write(tmp_path / "b.wav", speech(0.4), 16000)
    given = dub.arguments([f"--video={tmp_path}/a.mp4", f"--audio={tmp_path}/b.wav"])
    found = dub.measure(given, Networks(small_bundle()))
    assert (found["frames"], found["size"]) == (10, "400x288")
    assert found["rate"] > 0 and found["rest"] > 0
    assert "frames/s" in measuring.table([found], dub.COLUMNS)
