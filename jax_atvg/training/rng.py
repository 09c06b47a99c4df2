"""Random keys by name and step: none is stored, and a resumed run repeats its noise."""

import zlib

import jax
from jax import Array


def stream(seed: int | Array, name: str, step: int | Array) -> Array:
    """The key of the stream `name` ("gen/dropout") at a step; a pure function."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def init_key(seed: int | Array) -> Array:
    """The key of a network's initial values.  It uses XLA's own generator, since with
    threefry the initialisation takes four times as long to compile."""
    return jax.random.fold_in(jax.random.key(seed, impl="rbg"), zlib.crc32(b"init"))
