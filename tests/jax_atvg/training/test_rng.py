"""Initial values are the same wherever a run begins."""

import re

import jax
import numpy as np
import pytest

from configs import smoke
from input_pipeline.training_data.synthetic import SyntheticClips
from jax_atvg import sharding
from jax_atvg.training import rng, train_step


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("network", ["at", "vg"])
def test_no_platform_chooses_the_generator_of_initial_values(network, platform):
    experiment = smoke.get_config(network)
    pca = SyntheticClips(2, 8).pca(experiment.data.num_coefficients)
    built = train_step.build(experiment, sharding.data_mesh(jax.devices()[:1]), pca)
    text = built.init.trace(0).lower(lowering_platforms=(platform,)).as_text()
    assert set(re.findall(r"algorithm = +(\w+)", text)) == {"PHILOX"}


def test_the_generator_of_a_platform_can_be_found():
    """The control, with JAX's `rbg`, which leaves the choice to the platform."""
    traced = jax.jit(lambda key: jax.random.normal(key, (3,))).trace(
        jax.random.key(0, impl="rbg")
    )
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert re.findall(r"algorithm = +(\w+)", text) == ["DEFAULT"]


def test_the_values_are_these():
    """Those of `rbg` on a CPU, with which earlier versions began: runs are repeated."""

    def draw():
        return jax.random.bits(rng.init_key(3), (5,))

    first = [2903417773, 495645017, 1127536249, 2456731039, 1615999376]
    assert draw().tolist() == first and jax.jit(draw)().tolist() == first


def test_keys_of_several_networks_differ_and_are_derived_as_elsewhere():
    """Split, folded in and drawn for several keys at once, as nn.vmap does."""
    keys = jax.random.split(rng.init_key(0), 3)
    drawn = jax.vmap(lambda key: jax.random.normal(key, (1000,)))(keys)
    correlation = np.corrcoef(np.asarray(drawn))
    assert np.abs(correlation - np.eye(3)).max() < 0.1
    assert np.abs(drawn.mean(1)).max() < 0.15 and np.abs(drawn.std(1) - 1).max() < 0.1
