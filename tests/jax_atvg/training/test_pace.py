"""What a run reports of its pace."""

import types

import jax
import pytest

from jax_atvg.programs import chips
from jax_atvg.training import pace
from jax_atvg.training.pace import Pending

GPU = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 << 20})


@pytest.fixture
def seconds(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


def test_mfu_is_the_operations_over_those_of_the_peak(seconds):
    """Four steps of 3 TFLOP in two seconds, on devices of 24 TFLOP/s together."""
    pending = Pending(10, GPU, 24e12)
    for step in range(1, 5):
        pending.add(step, {"loss": jax.numpy.ones(())}, 3 * 10**12)
    seconds[0] += 2
    assert pending.report() == {
        "loss": 1.0,
        "pace/steps_per_second": 2.0,
        "pace/clips_per_second": 20.0,
        "pace/waiting_for_data": 0.0,
        "pace/mfu": 0.25,
        "pace/device_memory": 3.0,
    }
    seconds[0] += 1
    assert pending.report()["pace/mfu"] == 0


def test_what_is_not_known_of_a_device_is_not_told(seconds):
    pending = Pending(10, jax.devices()[0])
    seconds[0] += 1
    names = {"steps_per_second", "clips_per_second", "waiting_for_data"}
    assert pending.report().keys() == {f"pace/{name}" for name in names}


def test_the_peak_is_that_of_what_the_matrix_units_multiply():
    h100, v5e = "NVIDIA H100 80GB HBM3", "TPU v5 lite"
    assert chips.peak(h100, "bfloat16") == chips.CHIPS[h100].flops
    assert chips.peak(h100, "default") == chips.CHIPS[h100].flops / 2
    assert chips.peak(v5e, "default") == chips.CHIPS[v5e].flops
    assert chips.peak(h100, "highest") is None
    assert chips.peak("cpu", "default") is None
