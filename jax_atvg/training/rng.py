"""Randomness by name: nothing random is stored, a resumed run repeats its noise."""

import zlib

import jax
from jax import Array


def stream(seed: int | Array, name: str, step: int | Array) -> Array:
    """The key of the stream `name` ("gen/dropout") at a step; a pure function."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def init_key(seed: int | Array) -> Array:
    """For initial values.  XLA's own generator: threefry makes the compilation of a
    network's initialisation four times as long."""
    return jax.random.fold_in(jax.random.key(seed, impl="rbg"), zlib.crc32(b"init"))
