"""Networks that several files play clips with."""

import pytest

from jax_atvg.inference import networks
from jax_atvg.inference.networks import Networks
from tests.conftest import optimised
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle():
    return small_bundle()


@pytest.fixture(scope="module")
def alone(bundle):
    return Networks(bundle)


@pytest.fixture(scope="module")
def three(bundle):
    return Networks(bundle, 3)


@pytest.fixture(scope="module")
def as_users_run_it():
    """Compiles the networks' programs anew, optimised: which roundings there are
    depends on what XLA makes of them."""
    programs = networks.compiled_speak, networks.compiled_draw
    for program in programs:
        program.cache_clear()
    with optimised():
        yield
    for program in programs:
        program.cache_clear()
