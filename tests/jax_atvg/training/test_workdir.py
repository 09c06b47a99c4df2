"""Whose a run's folder is: one process's at a time, and one data set's."""

import json
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from input_pipeline.clip import InputError, Pca
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg.training import workdir as folders
from jax_atvg.training.config import Experiment
from tests.jax_atvg.training.test_loop import experiment, run

DATA = {
    "clips": {"grid": "1", "folder": "2"},
    "template": {"points": [[1.0, 2.0]], "indices": [30]},
}


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    folder, config = epath.Path(tmp_path), Experiment()
    code = (
        "import sys; from etils import epath\n"
        "from jax_atvg.training.config import Experiment\n"
        "from jax_atvg.training.workdir import claim_workdir\n"
        "with claim_workdir(epath.Path(sys.argv[1]), Experiment()): print('mine')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with folders.claim_workdir(folder, config):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode and "another run is training in it; wait" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "mine\n"


def test_other_data_are_refused_and_leave_the_pca_as_it_is(tmp_path):
    config = experiment("at", steps=2)
    run(config, tmp_path, data=DATA)
    assert json.loads((tmp_path / "data.json").read_text()) == DATA
    before = (tmp_path / "pca.npz").read_bytes()
    config.steps = 3
    for clips in ({"grid": "1"}, {"grid": "1", "folder": "3"}):
        with pytest.raises(InputError, match="the run there was made with other data"):
            run(config, tmp_path, data=DATA | {"clips": clips})
    assert (tmp_path / "pca.npz").read_bytes() == before
    more = DATA | {"clips": DATA["clips"] | {"portraits": "4"}}
    assert run(config, tmp_path, data=more).step == 3
    assert json.loads((tmp_path / "data.json").read_text()) == DATA


def test_another_pca_is_refused_for_at_net_alone(tmp_path):
    """Videos of a corpus that the run has no share of decide it, too."""
    path = epath.Path(tmp_path) / "pca.npz"
    pca = SyntheticClips(3, 12).pca(6)
    other = SyntheticClips(3, 12, seed=1).pca(6)
    fewer = Pca(pca.mean, pca.components[:, :5])
    for same in (True, False):
        folders.keep_pca(path, pca, same=same)
    for another in (other, fewer):
        with pytest.raises(InputError, match="was begun with another PCA"):
            folders.keep_pca(path, another, same=True)
    np.testing.assert_array_equal(folders.read_pca(path.parent).mean, pca.mean)
    folders.keep_pca(path, other, same=False)
    np.testing.assert_array_equal(folders.read_pca(path.parent).mean, other.mean)


def test_a_run_of_an_earlier_version_takes_the_data_it_is_given(tmp_path):
    config = experiment("at", steps=2)
    run(config, tmp_path)
    assert folders.read_data(epath.Path(tmp_path)) is None
    run(config, tmp_path, data=DATA)
    assert folders.read_data(epath.Path(tmp_path)) == DATA


def test_a_note_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"none: cannot be used .* choose another"):
        folders.note_experiment(epath.Path(tmp_path) / "none", Experiment())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"clips": 3, "template": {}}'),
        json.dumps(DATA | {"template": {}}),
        json.dumps(DATA | {"template": {"points": [[1.0]], "indices": [30]}}),
        json.dumps(DATA | {"template": {"points": [[1.0, 2.0]], "indices": [99]}}),
    ],
)
def test_a_damaged_note_is_an_error(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(InputError, match=r"data.json: damaged .* remove it"):
        folders.read_data(epath.Path(tmp_path))
