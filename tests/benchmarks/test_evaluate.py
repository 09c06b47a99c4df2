"""benchmarks/evaluate.py: its arithmetic, its flags, and a tiny run of it.  No timing
is asserted."""

import sys

import pytest

from benchmarks import evaluate, measuring
from benchmarks.evaluate import Cost
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
from jax_atvg.inference.bundle import save_bundle
from tests.small_bundle import small_bundle


def test_a_clip_costs_the_difference_and_the_start_the_rest():
    few, more = [Cost(9.0, 8.0), Cost(7.0, 5.0)], [Cost(15.0, 7.0), Cost(16.0, 9.0)]
    assert evaluate.summary("x", few, more, (2, 6)) == {
        "name": "x",
        "core_s": 2.0,
        "start_core_s": 3.0,
        "wall_s": 0.5,
        "start_wall_s": 4.0,
    }


@pytest.mark.parametrize(
    "words",
    [["--clips=3,3"], ["--clips=0,3"], ["--clips=2"], ["--workers=a"], ["--turns=0"]],
)
def test_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        evaluate.arguments(["--data_dir=x", *words])
    assert stop.value.code == 2


def test_it_measures_a_tiny_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    save_bundle(small_bundle(), tmp_path / "bundle")
    write_dataset(tmp_path, train=SyntheticClips(1, 8), validation=SyntheticClips(2, 8))
    words = [f"--data_dir={tmp_path}", "--workers=0", "--clips=1,2", "--turns=1"]
    words += [f"--bundle={tmp_path / 'bundle'}", "--flag=--landmarks_only"]
    (figures,) = evaluate.measure(evaluate.arguments(words))
    assert figures["name"] == "workers 0" and figures["ratio"] == 1
    assert "workers 0" in measuring.table([figures], evaluate.COLUMNS)


def test_the_parts_of_an_evaluation_are_measured_and_summed(tmp_path):
    save_bundle(small_bundle(), tmp_path / "bundle")
    write_dataset(tmp_path, train=SyntheticClips(1, 8), validation=SyntheticClips(3, 8))
    words = [f"--data_dir={tmp_path}", f"--bundle={tmp_path / 'bundle'}", "--parts"]
    *rows, total, on_host = evaluate.parts(evaluate.arguments([*words, "--clips=1,2"]))
    assert len({row.name for row in rows}) == len(rows) == 7
    assert {row.where for row in rows} == {evaluate.HOST, evaluate.DEVICE}
    assert total.core_s == sum(row.core_s for row in rows) > 0
    assert on_host.wall_s == sum(x.wall_s for x in rows if x.where == evaluate.HOST)
    assert 0 < on_host.wall_s < total.wall_s


def test_a_program_that_fails_is_told_with_what_it_said(tmp_path):
    words = [sys.executable, "-c", "raise ValueError('nothing to see')"]
    with pytest.raises(SystemExit, match="nothing to see"):
        evaluate.run(words, tmp_path)
