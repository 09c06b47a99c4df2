"""The Beam pipeline makes what the local processes make."""

import importlib.util
import subprocess
import sys

import pytest

from input_pipeline.clip import InputError
from input_pipeline.preparation.prepare import prepare
from input_pipeline.training_data import records
from tests.conftest import ROOT
from tests.input_pipeline.face_videos import assert_same


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="pip install -r requirements/beam.txt",
)
def test_beams_dataset_equals_the_local_one_byte_for_byte(lrw, prepared, tmp_path):
    """In a process of its own: the shape checker's functions cannot be pickled."""
    flags = ["--corpus=lrw", f"--source={lrw}", f"--data_dir={tmp_path}"]
    beam = ["--runner=beam", "--beam_options=direct_running_mode=in_memory"]
    command = [sys.executable, "main.py", "prepare", *flags, *beam]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / records.NAME / "lrw" / records.VERSION, prepared)


def test_a_missing_beam_is_an_input_error(lrw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="pip install -r requirements"):
        prepare("lrw", lrw, tmp_path, runner="beam")
