"""A workdir in a store such as gs://, with a store that is in memory.

What orbax and tensorstore do with such a path is theirs; that they are given it is
tested here.
"""

import fsspec
import numpy as np
import orbax.checkpoint as ocp
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from configs import smoke
from input_pipeline.clip import InputError
from input_pipeline.training_data import synthetic
from jax_atvg.training.checkpoint import Checkpoints
from jax_atvg.training.config_files import read_config
from jax_atvg.training.reporting import open_reporters
from jax_atvg.training.runs import validation_losses
from jax_atvg.training.workdir import claim_workdir, open_workdir, read_pca, save_pca


@pytest.fixture
def store():
    """gs:// in memory, as etils finds it; no other test looks for one."""
    for protocol in ("gs", "gcs"):
        fsspec.register_implementation(protocol, MemoryFileSystem, clobber=True)
    yield open_workdir("gs://bucket/run")
    MemoryFileSystem.store.clear()


def test_a_folder_here_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(open_workdir("run")) == str(tmp_path / "run")


def test_a_store_keeps_its_address(store):
    assert str(store) == "gs://bucket/run"


def test_experiment_and_face_model_come_back(store):
    config = smoke.get_config("at")
    pca = synthetic.SyntheticClips(4, 32).pca(4)
    with claim_workdir(store, config):
        save_pca(store / "pca.npz", pca)
    assert read_config(store) == config
    for a, b in zip(read_pca(store), pca, strict=True):
        np.testing.assert_array_equal(a, b)
    with claim_workdir(store, config):
        pass
    config.seed = 1
    with (
        pytest.raises(InputError, match=r"another config: .* nothing yet: remove it"),
        claim_workdir(store, config),
    ):
        pass


def test_reports_of_several_starts_are_one_file(store):
    for step in (1, 2):
        with open_reporters(["jsonl", "tensorboard"], store, step - 1, {}) as reporter:
            reporter.scalars(step, {"validation/loss": float(step)})
            reporter.publish()
            assert step in validation_losses(store / "metrics.jsonl")
            reporter.scalars(step + 10, {"validation/loss": 0.5})
    assert validation_losses(store / "metrics.jsonl") == {1: 1, 2: 2, 12: 0.5}
    events = list((store / "events").iterdir())  # named by the second
    assert events and all(path.read_bytes() for path in events)


def test_orbax_is_given_the_address(store, monkeypatch):
    class Manager(ocp.CheckpointManager):
        def __init__(self, folder, options):
            self.address = folder

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager", Manager)
    assert str(Checkpoints(store, 2).manager.address) == "gs://bucket/run/checkpoints"


def test_a_store_that_cannot_be_reached_is_an_error(monkeypatch):
    def fail(self):
        raise ImportError("install gcsfs")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.exists", fail)
    with pytest.raises(InputError, match=r"gs://bucket/run: cannot be reached"):
        open_workdir("gs://bucket/run")
