"""The scripts that draw the pictures of docs/ and print its tables."""

import json
import sys

import pytest

from docs import data_flow, make_figures, make_table
from input_pipeline.training_data.synthetic import SyntheticClips
from tests.small_bundle import small_bundle


@pytest.fixture
def small(monkeypatch):
    """Networks of reduced width, clips of two speakers, little of the demo's sound."""
    clips = SyntheticClips(4, 12, num_speakers=2)
    speech = make_figures.read_speech(make_figures.ROOT / "demo" / "speech.flac")
    speech = speech._replace(features=speech.features[:264])
    for module in (make_figures, data_flow):
        monkeypatch.setattr(module, "load_bundle", lambda path: small_bundle(128))
        monkeypatch.setattr(module, "read_speech", lambda path: speech)
    monkeypatch.setattr(make_figures.dataset, "open_clips", lambda *given: clips)
    monkeypatch.setattr(make_figures, "UNSEEN", tuple(sorted(set(clips.speakers))))
    monkeypatch.setattr(make_figures, "PORTRAITS", (0, 3))


def test_every_picture_is_drawn(small, monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "demo").symlink_to(make_figures.ROOT / "demo")
    monkeypatch.setattr(sys, "argv", ["make_figures.py", "--data_dir=DATA"])
    monkeypatch.setattr(make_figures, "ROOT", tmp_path)
    make_figures.main()
    monkeypatch.setattr(data_flow, "ROOT", tmp_path)
    data_flow.main()
    sizes = {}
    for path in (tmp_path / "docs").iterdir():
        with make_figures.Image.open(path) as picture:
            sizes[path.name] = (*picture.size, getattr(picture, "n_frames", 1))
    width, gap, side = 8 * 128, 6, make_figures.SIDE
    assert sizes == {
        "demo.webp": (5 * 128, 128, 60),
        "data_flow.png": (1170, 558, 1),
        "pipeline.png": (3 * side + 2 * 8, side, 1),
        "talking.png": (width, (2 * 3 + 2 + 2) * 128 + 5 * gap, 1),
        "dub.png": (width, 2 * (3 * 128 + gap), 1),
    }


def test_a_table_has_a_column_for_every_report(tmp_path, capsys):
    """Scores that a report lacks are empty cells."""
    for name, modes, value in (
        ("s1", ["at", "at_static", "static"], 2.0),
        ("new", ["at_static", "end_to_end", "static"], 1.0),
    ):
        score = {"mean": value, "low": value - 0.5, "high": value + 0.25}
        scores = {mode: {"lmd": score, "r": score} for mode in modes}
        scores[modes[0]]["lmd"] = score | {"mean": value / 2}
        (tmp_path / name).mkdir()
        report = json.dumps({"clips": 7, "overall": scores})
        (tmp_path / name / "summary.json").write_text(report)
    make_table.main([tmp_path / "s1", tmp_path / "new"])
    lines = capsys.readouterr().out.splitlines()
    assert "|  | s1 (7 clips) | new (7 clips) |" in lines
    assert "| mouth LMD, px: AT-net | 1.00 [1.50, 2.25] |  |" in lines
    assert (
        "| correlation of lip opening: from the sound |  | 1.00 [0.50, 1.25] |" in lines
    )
    assert "| predicted by AT-net | -50% |  |" in lines
    assert "| detected in the frames, from the sound |  | +0% |" in lines
    assert "| jitter / real: AT-net |  |  |" in lines
