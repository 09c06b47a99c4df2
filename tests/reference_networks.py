"""The authors' networks as this project's, for the tests against reference tensors."""

import functools

import numpy as np

from jax_atvg.inference import torch_import
from tests.conftest import shared_path


@functools.cache
def authors_variables(network: str):
    """Weights of the reference, converted."""
    name = {"discriminator": "gl_discriminator"}.get(network, network)
    path = shared_path("reference", f"{name}_seed0_weights.npz")
    return torch_import.convert(network, torch_import.read_state_dict(path))


def nhwc(x):
    """[..., C, H, W] -> [..., H, W, C]."""
    return np.moveaxis(np.asarray(x), -3, -1)


def image(u8):
    """u8[..., 3, H, W] -> f32[..., H, W, 3] in [-1, 1], as the reference does it."""
    return (nhwc(u8).astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)


def max_difference(actual, expected) -> float:
    assert np.shape(actual) == np.shape(expected)
    return float(np.max(np.abs(np.asarray(actual, np.float64) - expected)))


def assert_near_in_deviations(actual, expected, limit=1e-4):
    """The reference's rule for intermediates: relative to their standard deviation."""
    assert max_difference(actual, expected) <= limit * np.std(expected)


def assert_running_statistics(network, batch_stats, stored, prefix):
    """Running means and variances against `prefix`*, at 1e-5 relative."""
    from flax.traverse_util import flatten_dict

    actual = flatten_dict(batch_stats, sep="/")
    checked = 0
    for entry in torch_import.ENTRIES[network]():
        collection, _, path = entry.target.partition("/")
        if collection == "batch_stats":
            expected = stored[prefix + entry.source]
            scale = np.abs(expected).max()
            assert max_difference(actual[path], expected) <= 1e-5 * scale, entry
            checked += 1
    assert checked == len(actual)
