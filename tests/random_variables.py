"""Weights from numpy: compiling a network's own initialisation takes many seconds."""

import jax
import numpy as np


def random_variables(module, *inputs, seed: int = 0):
    """Unit scales and variances; everything else N(0, 1 / fan-in), so that the output
    depends visibly on every input."""
    random = np.random.default_rng(seed).normal
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        return (random(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
