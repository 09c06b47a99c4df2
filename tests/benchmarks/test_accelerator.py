"""benchmarks/accelerator.py: a tiny run of all of it, its arithmetic, what it leaves
out.  No timing is asserted."""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from benchmarks import accelerator, measuring
from benchmarks import accelerator_programs as programs
from benchmarks.accelerator_report import Row, line
from jax_atvg.models.sizes import PRECISIONS
from jax_atvg.training.pictures import with_float_pictures
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(exit code, lines, the JSON) of --small.  That there is an end of its output says
    that no worker process outlives it."""
    out = tmp_path_factory.mktemp("accelerator") / "out.json"
    command = [sys.executable, ROOT / "benchmarks" / "accelerator.py", "--small"]
    done = subprocess.run(
        [*command, f"--out={out}", "--budget=600"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        cwd=out.parent,
    )
    return done.returncode, done.stdout.splitlines(), json.loads(out.read_text())


def test_every_part_has_its_figures(small):
    code, lines, report = small
    assert code == 0 and not report["left_out"], "\n".join(lines)
    assert list(dict.fromkeys(row["part"] for row in report["rows"])) == list(
        accelerator.PARTS
    )
    found = {
        (row["part"], row["precision"], row["what"]): row["figure"]
        for row in report["rows"]
    }
    assert all(np.isfinite(figure) for figure in found.values())
    for part, *precisions in (
        ("gan_bfloat16", "bfloat16"),
        ("gan_default", "default"),
        ("vg_net", "bfloat16", "default"),
        ("at_step", "default"),
        ("default_step", "bfloat16"),
    ):
        for precision in precisions:
            for what in ("compiling", "FLOP", "temporaries", "back to back"):
                assert found[part, precision, what] > 0
            assert (part, precision, "MFU") not in found  # a CPU's peak is not known
    assert found["feeding", "", "worker processes"] == 2
    assert found["feeding", "bfloat16", "fed"] > 0


def test_it_compares_with_what_the_authors_code_computed(small):
    found = {
        row["precision"]: row["figure"]
        for row in small[2]["rows"]
        if row["what"] == "at_net coefficients"
    }
    assert found["highest"] < 1e-5 and 1e-4 < found["bfloat16"] < 1e-2


def test_precisions_learn_from_the_same_start(small):
    """Of the same pictures, in which there is something to be learned."""
    found = {
        (row["what"], row["precision"]): row["figure"]
        for row in small[2]["rows"]
        if row["part"] == "learning"
    }
    before, after = "loss of pixels before", "after 1 steps"
    for what in (before, after):
        near = pytest.approx(found[what, "default"], rel=0.02)
        assert found[what, "bfloat16"] == near
    assert found[after, "default"] < 0.95 * found[before, "default"]


def test_a_line_a_figure_as_it_is_measured_and_one_table_last(small):
    _, lines, report = small
    count = len(report["rows"])
    assert lines[-count - 2].startswith("|") and "authors" in lines[-count - 2]
    table = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[-count:]]
    at_once = [line for line in lines[: -count - 2] if line.startswith("|")]
    assert [[c.strip() for c in line.split("|")[1:-1]] for line in at_once] == table
    assert all(row[-2:] == ["", ""] for row in table)  # other sizes than the authors'


def test_all_of_the_authors_outputs_have_one_of_ours():
    stored = np.load(ROOT / "tests" / "data" / "parity_seed3.npz")
    for net, inputs, outputs in programs.cases().values():
        shapes = jax.eval_shape(
            lambda x, net=net: net.init_with_output(jax.random.key(0), *x)[0], inputs
        )
        for ours, theirs in outputs.items():
            shape = getattr(shapes, ours).shape
            if shape[2:4] == (128, 128):
                shape = (*shape[:2], 32, 32, *shape[4:])
            assert stored[theirs].shape == shape


def test_full_sizes_are_the_authors_and_the_default_models():
    full = programs.experiments(small=False)
    sizes = {n: (x.batch_size, x.data.num_frames) for n, x in full.items()}
    assert sizes == {"gan": (10, 16), "at": (16, 16), "default": (16, 8)}
    assert full["gan"].vg_net.width == 64 and full["default"].vg_net.num_blocks == 4
    assert full["default"].data.num_workers == -1
    assert full["default"].data.augment.changes_colour


def test_mfu_and_the_authors_figure_stand_in_the_table(monkeypatch):
    """989 TFLOP in half a second are twice the peak."""
    device = types.SimpleNamespace(
        platform="gpu",
        device_kind="NVIDIA H100 80GB HBM3",
        memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**30},
    )
    monkeypatch.setattr(accelerator.jax, "devices", lambda: [device])
    monkeypatch.setattr(
        accelerator, "timed_together", lambda call, groups, calls: (call(), 0.5)
    )
    made = measuring.Compiled(None, 1.0, 2.0, 989 * 10**12, 2**30)
    rows = list(accelerator.program(made, lambda: np.ones(1), "bfloat16", False))
    found = {row.what: row.figure for row in rows}
    assert found["MFU"] == 200 and found["peak memory"] == 3
    assert found["temporaries"] == 1 and found["FLOP"] == 989
    shown = line("gan_bfloat16", rows[4], small=False)
    assert shown["figure"] == "500" and shown["unit"] == "ms a step"
    assert shown["authors"] == "497 (autocast)" and shown["before"] == "28.8"
    frames = accelerator.program(made, lambda: np.ones(1), "bfloat16", False, 75)
    assert list(frames)[4] == Row("back to back", 150, "frames/s", "bfloat16")


@pytest.fixture
def call(tmp_path):
    """main with these words: (exit code, the JSON)."""

    def run(*words):
        out = tmp_path / "out.json"
        code = accelerator.main(["--small", f"--out={out}", *words])
        return code, json.loads(out.read_text())

    return run


def test_no_part_begins_after_the_budget(call, capsys):
    code, report = call("--budget=0")
    assert code == 0 and not report["rows"]
    assert list(report["left_out"]) == list(accelerator.PARTS)
    assert "left out: 0 of 0 s are over" in capsys.readouterr().out


def missing(small):
    yield Row("before", 1.0, "s")
    import no_such_library  # noqa: F401


def failing(small):
    yield Row("nothing", float("nan"), "s")
    raise SystemExit("the result is not finite")


def test_a_part_that_cannot_end_does_not_hide_the_others(call, monkeypatch, capsys):
    parts = {"missing": missing, "failing": failing, "matmul": accelerator.matmul}
    monkeypatch.setattr(accelerator, "PARTS", parts)
    code, report = call()
    assert code == 1
    assert report["left_out"] == {
        "missing": "left out: No module named 'no_such_library'",
        "failing": "failed: the result is not finite",
    }
    assert [row["part"] for row in report["rows"]] == [*parts, "matmul", "matmul"]
    assert "failed: the result is not finite" in capsys.readouterr().out
    code, report = call("--part=missing")
    assert code == 0 and list(report["left_out"]) == ["missing"]


CUT_OFF = """
import sys, time
for name in ("grain", "orbax", "tensorflow_datasets", "cv2", "python_speech_features",
             "dlib", "librosa", "av", "skimage", "matplotlib", "soundfile"):
    sys.modules[name] = None
from benchmarks import accelerator
from benchmarks.accelerator_report import Row

def slow(small):
    yield Row("before", 1.0, "s")
    time.sleep(600)

accelerator.GRACE = 0
parts = "matmul", "feeding"
accelerator.PARTS = {name: accelerator.PARTS[name] for name in parts}
accelerator.PARTS |= {"slow": slow, "never": slow}
sys.exit(accelerator.main(["--small", "--budget=8", "--out=out.json"]))
"""


def test_what_takes_too_long_is_cut_off_and_the_table_is_printed(tmp_path):
    """On a machine that has no other libraries than those that are always needed."""
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF],
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    report = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0
    assert [row["part"] for row in report["rows"]] == 3 * ["matmul"] + ["slow"]
    assert list(report["left_out"]) == ["feeding", "slow", "never"]
    assert report["left_out"]["slow"].startswith("cut off after ")
    assert "before" in done.stdout.splitlines()[-3]  # of the table


def test_programs_are_compiled_side_by_side_and_once(monkeypatch):
    """What the parts take later is what was made before."""
    monkeypatch.setattr(programs, "MADE", {})
    programs.compile_side_by_side(["at_step", "parity"], small=True)
    made = dict(programs.MADE)
    assert len(made) == 2 + 1 + len(PRECISIONS)  # step, start; weights, programs
    list(accelerator.parity(small=True))
    list(accelerator.PARTS["at_step"](True))
    assert made.keys() == programs.MADE.keys()
    assert all(programs.MADE[name] is one for name, one in made.items())


def test_a_program_that_fails_is_made_once_and_costs_no_other_its_figures(monkeypatch):
    tried = []

    def compiled(function, *args):
        tried.append(function)
        if len(tried) == 2:
            raise RuntimeError("no such kernel\nmore")
        return measuring.compiled(function, *args)

    monkeypatch.setattr(programs, "MADE", {})
    monkeypatch.setattr(programs, "compiled", compiled)
    monkeypatch.setattr(programs.os, "cpu_count", lambda: 1)  # in their order
    programs.compile_side_by_side(["parity"], small=True)
    rows = accelerator.parity(small=True)
    for precision in (PRECISIONS[0], PRECISIONS[2]):
        assert next(rows).precision == precision
    with pytest.raises(SystemExit, match=f"^at_net {PRECISIONS[1]}: no such kernel$"):
        next(rows)
    assert len(tried) == len(PRECISIONS)


def test_a_cpu_is_refused_but_for_tiny_sizes(capsys):
    with pytest.raises(SystemExit) as stop:
        accelerator.arguments([])
    assert stop.value.code == 2
    assert "jax finds no GPU or TPU" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--part=x"], ["--out=/no/such/folder/x.json"]])
def test_bad_flags_end_with_exit_code_2(words):
    with pytest.raises(SystemExit) as stop:
        accelerator.arguments(["--small", *words])
    assert stop.value.code == 2


def test_the_light_of_a_batch_of_noise_stays_as_it_is():
    """A colour of noise has a negative gamma, which makes black infinitely bright."""
    experiment = programs.experiments(small=True)["default"]
    _, batch = measuring.training_step(experiment)
    as_it_is = with_float_pictures(batch._replace(colour=None))
    for x, y in zip(with_float_pictures(batch), as_it_is, strict=True):
        np.testing.assert_array_equal(x, y)


def test_calls_are_timed_in_groups(monkeypatch):
    """Groups of 4 calls that take 4, 8 and 40 s: 2 s a call."""
    clock = iter([0, 4, 10, 18, 20, 60])
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    calls = iter(range(100))
    result, spent = measuring.timed_together(lambda: next(calls), 3, 4)
    assert spent == 2 and result == 2 + 3 * 4 - 1
