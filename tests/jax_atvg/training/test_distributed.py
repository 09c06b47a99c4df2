"""Who takes part in a run, and what its errors mean.

Real processes: test_train_processes.py.
"""

import os
import subprocess
import sys

import jax
import pytest

from input_pipeline.clip import InputError
from jax_atvg.training import distributed

CLUSTER = ("SLURM_", "TPU_", "OMPI_", "KUBERNETES_", "JAX_COORDINATOR")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in list(os.environ):
        if name.startswith(CLUSTER):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("coordinator", ["auto", "none"])
def test_a_process_that_is_alone_joins_nobody(coordinator):
    """In a process of its own: here JAX has seen its devices, which is too late."""
    program = (
        "import jax; from jax_atvg.training import distributed; "
        f"distributed.connect({coordinator!r}); print(jax.distributed.is_initialized())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_slurm_with_one_task_is_alone(monkeypatch):
    """JAX would take one of the node's GPUs only."""
    monkeypatch.setenv("SLURM_NTASKS", "1")
    distributed.connect("auto")
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("auto", 2, None), "need --coordinator=host:port"),
        (("none", None, 0), "which is none"),
        (("a:1", 2, None), "needs --num_processes and --process_id"),
        (("host", 2, 0), "give host:port"),
        (("host:", 2, 0), "give host:port"),
        (("a:1", 2, 2), "one of 0 to 1"),
        (("a:1", 2, -1), "one of 0 to 1"),
    ],
)
def test_numbers_that_cannot_be_are_errors(values, message):
    with pytest.raises(InputError, match=message):
        distributed.connect(*values)


@pytest.mark.parametrize("values", [("127.0.0.1:1", 2, 0), ("auto",)])
def test_what_jax_refuses_is_not_hidden(values, monkeypatch):
    """Else every host of a pod that is described badly would train alone."""

    def refuse(*_, **__):
        raise ValueError("bad metadata")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(ValueError, match="bad metadata"):
        distributed.connect(*values)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo AllReduce failed: Connection closed"), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: heartbeat timeout"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: cuDNN: no algorithm worked!"), False),
        (jax.errors.JaxRuntimeError("UNKNOWN: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (jax.errors.JaxRuntimeError("INTERNAL: an illegal memory access"), False),
        (TimeoutError("async_write_complete barrier"), True),
        (distributed.PeerLost("seen before"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (OSError(28, "No space left on device"), False),
        (InputError("vg/loss is nan"), False),
    ],
)
def test_only_broken_connections_mean_a_lost_process(error, lost, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    found = distributed.peer_lost(error)
    assert isinstance(found, distributed.PeerLost) == lost
    assert not lost or "seen before" in str(found) or "of 4" in str(found)


def test_alone_nobody_is_lost():
    assert distributed.peer_lost(TimeoutError("UNKNOWN: whatever")) is None


@pytest.mark.parametrize(
    ("ending", "heard"),
    [("os.abort()", True), ("os._exit(1)", True), ("withdraw()", False)],
)
def test_last_words_are_heard_unless_withdrawn(ending, heard):
    program = (
        "import os; from jax_atvg.training import distributed; "
        f"withdraw = distributed.last_words('FAREWELL'); {ending}"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ("FAREWELL" in result.stderr) == heard
