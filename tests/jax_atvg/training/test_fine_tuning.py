"""config.init: a run that begins with a bundle's network."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import align
from jax_atvg.inference.bundle import save_bundle
from jax_atvg.training.export import make_bundle
from jax_atvg.training.runs import read_run
from tests.jax_atvg.training.test_loop import assert_bit_for_bit, experiment, run
from tests.small_bundle import LANDMARK_TO_CROP


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of two runs of three steps, which began with other weights than those of the
    tests, and have learnt nothing either: all of them share their programs."""
    folder = tmp_path_factory.mktemp("first")
    for network in ("at", "vg"):
        run(fine_tuning(network, "", steps=3, seed=1), folder / network)
    at, vg = read_run(folder / "at", "at"), read_run(folder / "vg", "vg")
    made = make_bundle(
        at,
        vg,
        landmark_to_crop=LANDMARK_TO_CROP,
        template=align.DEFAULT_TEMPLATE.points,
        template_indices=align.DEFAULT_TEMPLATE.indices,
    )
    save_bundle(made, folder / "bundle")
    return made, folder / "bundle"


def fine_tuning(network: str, path, **changes):
    """That learns nothing, so that what it began with is still there."""
    config = experiment(network, init=str(path), **{"steps": 1} | changes)
    config.optimizer.learning_rate = 0.0
    return config


def test_at_net_begins_with_the_bundles(bundle, tmp_path):
    made, path = bundle
    expected = made.variables["at_net"]
    state = run(fine_tuning("at", path), tmp_path)
    assert_bit_for_bit(state.net.params, expected["params"])
    random = run(fine_tuning("at", ""), tmp_path / "random")
    apart = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), random.net.params, expected["params"]
    )
    assert max(jax.tree.leaves(apart)) > 1e-4


def test_vg_net_begins_with_the_bundles(bundle, tmp_path):
    made, path = bundle
    state = run(fine_tuning("vg", path), tmp_path)
    assert_bit_for_bit(state.vg.params, made.variables["vg_net"]["params"])


def test_a_run_that_goes_on_needs_the_bundle_no_more(bundle, tmp_path):
    _, path = bundle
    copy = shutil.copytree(path, tmp_path / "bundle")
    config = experiment("at", steps=2, init=str(copy))
    run(config, tmp_path / "run")
    shutil.rmtree(copy)
    config.steps = 4
    assert run(config, tmp_path / "run").step == 4


def test_the_bundles_network_may_learn_to_close_eyes(bundle, tmp_path):
    """A run that says so, or comes to say so, is the same run."""
    made, path = bundle
    for step, closes_eyes in ((1, True), (2, False)):
        config = fine_tuning("vg", path, steps=step)
        config.vg_net.closes_eyes = closes_eyes
        state = run(config, tmp_path / "run")
        assert state.step == step
        assert_bit_for_bit(state.vg.params, made.variables["vg_net"]["params"])
        assert read_run(tmp_path / "run", "vg").experiment.vg_net.closes_eyes is (
            closes_eyes
        )


def test_a_bundle_of_other_sizes_is_refused(bundle, tmp_path):
    config = fine_tuning("at", bundle[1])
    config.at_net.lstm_width = 5
    with pytest.raises(InputError, match=r"bundle's at_net has lstm_width=\d+ \(now 5"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bundle_of_another_pca_is_refused(bundle, tmp_path):
    made, _ = bundle
    turned = made.pca._replace(components=-made.pca.components)
    save_bundle(dataclasses.replace(made, pca=turned), tmp_path / "bundle")
    config = fine_tuning("at", tmp_path / "bundle")
    with pytest.raises(InputError, match="of another PCA than the data's; prepare"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_bundle_there_is_said(tmp_path):
    with pytest.raises(InputError, match="no bundle there"):
        run(fine_tuning("at", tmp_path / "nothing"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tilde_is_the_home_folder(bundle, tmp_path, monkeypatch):
    made, path = bundle
    monkeypatch.setenv("HOME", str(path.parent))
    state = run(fine_tuning("at", "~/bundle"), tmp_path)
    assert_bit_for_bit(state.net.params, made.variables["at_net"]["params"])
