"""Weights and batches from numpy: compiling a network's initialisation takes long."""

import jax
import numpy as np

from input_pipeline.clip import VgBatch
from jax_atvg.models import convolutions


def random_variables(module, *inputs, seed: int = 0):
    """Unit scales and variances; everything else N(0, 1 / fan-in), so that the output
    depends visibly on every input."""
    random = np.random.default_rng(seed).normal
    with convolutions.form("native"):  # traced sooner, and has the same variables
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        return (random(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def random_vg_batch(batch_size: int, num_frames: int, size: int) -> VgBatch:
    """Frames of noise, landmarks around the middle; the photo is the first, darker."""
    random = np.random.default_rng(0)
    shape = batch_size, num_frames
    frames = random.uniform(-1, 1, (*shape, size, size, 3)).astype(np.float32)
    landmarks = random.uniform(-0.5, 0.5, (*shape, 136)).astype(np.float32)
    return VgBatch(0.5 * frames[:, 0], landmarks[:, 0], frames, landmarks)
