"""The authors' networks as this project's, for the tests against reference tensors."""

import functools

import flax.traverse_util
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


def by_their_name(network, params):
    """Our parameters (or gradients) under the authors' names."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {
        entry.source: flat[entry.target.removeprefix("params/")]
        for entry in torch_import.ENTRIES[network]()
        if entry.target.startswith("params/")
    }


def block_norms(network, gradients):
    """L2 norm of the gradient of every top-level block of the authors' network."""
    squares = {}
    for name, gradient in by_their_name(network, gradients).items():
        block = name.split(".")[0]
        squares[block] = squares.get(block, 0) + np.sum(np.float64(gradient) ** 2)
    return {block: np.sqrt(square) for block, square in squares.items()}


def assert_running_statistics(network, batch_stats, stored, prefix):
    """Running means and variances against `prefix`*, at 1e-5 relative."""
    actual = flax.traverse_util.flatten_dict(batch_stats, sep="/")
    checked = 0
    for entry in torch_import.ENTRIES[network]():
        collection, _, path = entry.target.partition("/")
        if collection == "batch_stats":
            expected = stored[prefix + entry.source]
            scale = np.abs(expected).max()
            assert max_difference(actual[path], expected) <= 1e-5 * scale, entry
            checked += 1
    assert checked == len(actual)
