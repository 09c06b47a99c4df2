"""Real processes of `python main.py train`: killed, terminated, and two as one."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIMIT = 300  # seconds; a process that hangs is an error


def start(workdir, network="at", *flags: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "main.py",
        "train",
        f"--config=configs/smoke.py:{network}",
        f"--workdir={workdir}",
        "--config.batch_size=2",
        *flags,
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Its output; it must end well."""
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    return output


def losses(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return {
        (line["step"], name): value
        for line in map(json.loads, text.splitlines())
        for name, value in line.items()
        if "/" in name and not name.startswith("pace")
    }


def final_state(workdir, step: int):
    handler = ocp.PyTreeCheckpointer()
    return handler.restore(
        (workdir / "checkpoints" / str(step) / "state").absolute(),
        restore_args=None,
    )


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + LIMIT
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)


@pytest.mark.parametrize("network", ["at", "vg"])
def test_killed_and_started_again_the_run_ends_in_the_same_bits(network, tmp_path):
    """kill -9 once the first checkpoint is there, at whatever step that is."""
    flags = ["--config.steps=40", "--config.save_every=5", "--config.validate_every=40"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed, network, *flags)
    wait_for(killed / "checkpoints" / "5", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "checkpoints" / "40").exists()
    finish(start(killed, network, *flags))
    finish(start(whole, network, *flags))
    jax.tree.map(
        np.testing.assert_array_equal, final_state(killed, 40), final_state(whole, 40)
    )


def test_sigterm_ends_with_status_0_and_a_checkpoint(tmp_path):
    process = start(tmp_path, "at", "--config.steps=100000", "--config.save_every=10")
    wait_for(tmp_path / "checkpoints" / "10", process)
    asked = time.monotonic()
    process.terminate()
    output = finish(process)
    assert time.monotonic() - asked < 30
    assert "stopped by a signal" in output
    last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"step {last} is saved" in output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("network", ["at"])
def test_two_processes_train_save_and_restore_as_one(network, tmp_path):
    """Each reads its own half of every batch; process 0 alone reports."""

    def together(workdir, *flags):
        address = f"--coordinator=127.0.0.1:{free_port()}"
        processes = [
            start(
                workdir,
                network,
                address,
                "--num_processes=2",
                f"--process_id={i}",
                *flags,
            )
            for i in range(2)
        ]
        return [finish(process) for process in processes]

    two, one = tmp_path / "two", tmp_path / "one"
    together(two, "--config.steps=4", "--config.save_every=2")
    together(two, "--config.steps=6")
    finish(start(one, network))
    a, b = losses(two), losses(one)
    assert set(b) <= set(a)
    for key, value in b.items():
        np.testing.assert_allclose(a[key], value, rtol=1e-4, err_msg=str(key))
