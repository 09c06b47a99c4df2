"""Evaluation: what it refuses, and the command."""

import dataclasses
import functools
import re

import jax
import pytest

from input_pipeline.clip import InputError
from input_pipeline.training_data.fingerprint import fingerprint
from input_pipeline.training_data.synthetic import SyntheticClips, write_dataset
from jax_atvg.cli import app, machine
from jax_atvg.cli import evaluate as verb
from jax_atvg.evaluation.evaluate import evaluate
from jax_atvg.inference.bundle import save_bundle
from jax_atvg.sharding import data_mesh
from tests.small_bundle import small_bundle

bundle = functools.cache(small_bundle)


@functools.cache
def clips():
    return SyntheticClips(4, [20, 10, 12, 10])


def one_device():
    return data_mesh(jax.devices()[:1])


# --- what is refused, before anything is computed ---


class Nothing:
    """An empty split."""

    speakers, clip_ids, lengths = [], [], []

    def __len__(self):
        return 0


class Broken(SyntheticClips):
    """Records that cannot be read."""

    def __getitem__(self, i):
        raise RuntimeError("lost")


REFUSED = {
    "protocol='nice' is unknown; choose": {"protocol": "nice"},
    "limit=-1: must be 0": {"limit": -1},
    "workers=-1: must be 0 (this process)": {"workers": -1},
    "speakers=s9,s99: not in the split, which has cartoon0": {
        "speakers": ["s99", "s9"]
    },
    "the split holds no clips": {"clips": Nothing()},
    "cartoon0/0000: 5 frames, num_frames=8": {"clips": SyntheticClips(2, 5)},
    "cartoon0/0000: clip 0 of the split cannot be read (lost)": {"clips": Broken(2, 9)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused_and_leaves_nothing(message, tmp_path):
    options = {"clips": clips()} | REFUSED[message]
    with pytest.raises(InputError, match=re.escape(message)):
        evaluate(bundle(), options.pop("clips"), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_damaged_frame_is_named(tmp_path):
    damaged = SyntheticClips(2, 9)
    damaged[0].frames[3] = b"\xff\xd8"
    with pytest.raises(InputError, match="cartoon0/0000: frame 3 is no whole JPEG"):
        evaluate(bundle(), damaged, tmp_path / "out", mesh=one_device())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is no report; choose another"):
        evaluate(bundle(), clips(), tmp_path)
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        evaluate(bundle(), clips(), tmp_path / "thesis.txt" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# --- the command ---


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """`main.py evaluate`, in a folder with a bundle and a dataset -> code, out, err."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "set_up_jax", lambda: None)
    # It would speak up in every later test of this process.
    monkeypatch.setattr(verb, "tell_compilations", lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    save_bundle(bundle(), tmp_path / "bundle")
    write_dataset("data", train=SyntheticClips(3, 8), validation=SyntheticClips(2, 8))

    def run(*arguments):
        code = app.main(["main.py", "evaluate", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_writes_a_report_and_prints_its_table(call, tmp_path):
    given = ("--bundle=bundle", "--data_dir=data", "--out=reports/r")
    code, output, errors = call(*given, "--limit=1")
    assert code == 0, errors
    assert "bundle on validation: protocol true, clips 1" in output
    assert "at_shuffled" in output and output.endswith("wrote reports/r/report.html\n")
    assert (tmp_path / "reports" / "r" / "report.html").is_file()
    code, _, errors = call(*given, "--speakers=nobody")
    assert code == 2 and "speakers=nobody: not in the split" in errors
    code, _, errors = call(*given, "--split=test")
    assert code == 2 and "no split 'test'; it has train, validation; prepare" in errors
    code, _, errors = call(*given, "--split=tset")
    assert code == 2 and "should be one of <train|validation|test>" in errors
    code, _, errors = call()
    assert code == 2 and "--data_dir --out missing" in errors


def test_a_corpus_that_was_prepared_anew_is_told(call, recwarn):
    """Its split may hold what the bundle was trained on; `test` there is none here."""
    given = ("--data_dir=data", "--out=r", "--split=test")
    hashes = fingerprint("data")["clips"]
    for known, told in [
        (None, False),
        (hashes | {"grid": "1"}, False),
        ({"grid": "1"}, False),
        ({"folder": "1"}, True),
    ]:
        save_bundle(dataclasses.replace(bundle(), data=known), "known")
        assert call("--bundle=known", *given)[0] == 2
        said = [str(one.message) for one in recwarn.list if one.category is UserWarning]
        assert told == any(
            line.startswith("data: folder was prepared otherwise than what known was")
            and line.endswith(
                "clips of the split test; give the --data_dir of the training"
            )
            for line in said
        ), said
