"""Networks that several files play clips with."""

import pytest

from jax_atvg.inference.networks import Networks
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
