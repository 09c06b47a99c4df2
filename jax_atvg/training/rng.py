"""Random keys by name and step: none is stored, and a resumed run repeats its noise."""

import zlib

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.random import define_prng_impl


def stream(seed: int | Array, name: str, step: int | Array) -> Array:
    """The key of the stream `name` ("gen/dropout") at a step; a pure function."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def init_key(seed: int | Array) -> Array:
    """The key of a network's initial values.  It uses Philox, since with threefry the
    initialisation takes four times as long to compile."""
    return jax.random.fold_in(jax.random.key(seed, impl=PHILOX), zlib.crc32(b"init"))


# JAX's "rbg" leaves the generator to the platform: a TPU has another than the others.
# This one is the same, with Philox (Salmon et al. 2011) on all of them.


def as_rbg(data: Array) -> Array:
    return jax.random.wrap_key_data(data, impl="rbg")


def philox_bits(data: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    philox, dtype = lax.RandomAlgorithm.RNG_PHILOX, jnp.dtype(f"uint{bit_width}")
    return lax.rng_bit_generator(data, shape, dtype, algorithm=philox)[1]


PHILOX = define_prng_impl(
    key_shape=(4,),
    seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="rbg")),
    split=lambda data, shape: jax.random.key_data(
        jax.random.split(as_rbg(data), shape)
    ),
    fold_in=lambda data, number: jax.random.key_data(
        jax.random.fold_in(as_rbg(data), number)
    ),
    random_bits=philox_bits,
    name="philox",
    tag="philox",
)
