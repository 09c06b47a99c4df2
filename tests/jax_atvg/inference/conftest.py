"""Networks that several files play clips with."""

import jax
import jaxtyping
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


@pytest.fixture
def unchecked():
    """Without the checks of annotations, which there are in tests alone: what is
    refused is refused by the code itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compilations():
    """A list that grows by one with every program that XLA compiles; nothing that was
    compiled before is known any more."""
    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


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
