"""Real processes of `python main.py train`: killed, terminated, and several as one."""

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

ROOT = pathlib.Path(__file__).resolve().parents[3]
LIMIT = 300  # seconds; a process that hangs is an error


def start(workdir, network="at", *flags: str, env=None) -> subprocess.Popen:
    command = [
        sys.executable,
        "main.py",
        "train",
        f"--config=configs/smoke.py:{network}",
        f"--workdir={workdir}",
        "--config.batch_size=2",
        "--config.report_to=jsonl",  # TensorBoard's writer imports torch: 2.5 s
        *flags,
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own
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
    """Numpy, whatever devices it was on."""
    path = (workdir / "checkpoints" / str(step) / "state").absolute()
    checkpointer = ocp.PyTreeCheckpointer()
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
        checkpointer.metadata(path).item_metadata.tree,
    )
    return checkpointer.restore(path, restore_args=as_numpy)


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + LIMIT
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)


def test_sigterm_ends_with_status_0_and_a_checkpoint(tmp_path):
    """Sent to data workers as well, as a scheduler does, which end with the run: until
    they have, they hold its output open."""
    flags = ["--config.steps=100000", "--config.save_every=10"]
    process = start(tmp_path, "at", *flags, "--config.data.num_workers=2")
    wait_for(tmp_path / "checkpoints" / "10", process)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    output = finish(process)
    assert time.monotonic() - asked < 30
    assert "stopped; step" in output
    last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"step {last} is saved" in output
    assert "tracked_metric" not in output and "Warning" not in output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_together(workdir, count: int, *flags: str) -> list[subprocess.Popen]:
    address = f"--coordinator=127.0.0.1:{free_port()}"
    together = [address, f"--num_processes={count}", "--peer_timeout=30", *flags]
    return [start(workdir, "at", *together, f"--process_id={i}") for i in range(count)]


TOGETHER = (
    "--config.batch_size=6",
    "--config.steps=40",
    "--config.save_every=5",
    "--config.validate_every=40",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that two processes trained together, undisturbed."""
    workdir = tmp_path_factory.mktemp("together") / "whole"
    for process in start_together(workdir, 2, *TOGETHER):
        finish(process)
    return workdir


def test_two_processes_train_and_save_as_one(whole, tmp_path):
    """Each reads its own half of every batch; process 0 alone reports.  That they
    restore what they saved, the next test shows."""
    finish(start(tmp_path, "at", *TOGETHER))
    a, b = losses(whole), losses(tmp_path)
    assert set(b) == set(a) and max(b)[0] == 40
    for key, value in b.items():
        np.testing.assert_allclose(a[key], value, rtol=1e-4, err_msg=str(key))


@pytest.mark.parametrize(("count", "victim"), [(2, 0), (3, 1)])
def test_when_one_process_dies_the_others_end_and_all_go_on_exactly(
    count, victim, whole, tmp_path
):
    """kill -9 of one: the others say so and end, soon; started again, all end in the
    same bits as without it.  That is shown of two, with the one that saves killed; of
    three, where another dies, only the end is looked at."""
    processes = start_together(tmp_path, count, *TOGETHER)
    wait_for(tmp_path / "checkpoints" / "5", processes[0])
    processes[victim].send_signal(signal.SIGKILL)
    died = time.monotonic()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert "start all processes again" in output
        if process is not processes[victim]:
            # 75 by the message of ours, or aborted by JAX with our last words.
            assert process.returncode in (os.EX_TEMPFAIL, -signal.SIGABRT), output
    assert time.monotonic() - died < 60
    assert not (tmp_path / "checkpoints" / "40").exists()
    if count > 2:
        return
    for process in start_together(tmp_path, count, *TOGETHER):
        finish(process)
    jax.tree.map(
        np.testing.assert_array_equal, final_state(tmp_path, 40), final_state(whole, 40)
    )


def test_slurm_tells_who_takes_part_and_sigterm_of_one_stops_all(tmp_path):
    """No flag says that there are two; both save the same step, and end well.  Their
    programs are kept where every host has them."""
    job = free_port() % 4096  # JAX takes the coordinator's port from it
    processes = [
        start(
            tmp_path,
            "at",
            "--config.steps=100000",
            "--config.save_every=10",
            env={
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(i),
                "SLURM_LOCALID": str(i),
                "JAX_COMPILATION_CACHE_DIR": "",
            },
        )
        for i in range(2)
    ]
    wait_for(tmp_path / "checkpoints" / "10", processes[0])
    processes[1].terminate()
    outputs = [finish(process) for process in processes]
    last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"step {last} is saved" in outputs[0]
    assert list((tmp_path / "compiled").glob("*-cache"))


def test_ctrl_c_ends_with_status_0_and_a_checkpoint(tmp_path):
    """Sent to the whole process group, as a terminal does, data workers included."""
    flags = ["--config.steps=100000", "--config.save_every=10"]
    process = start(tmp_path, "at", *flags, "--config.data.num_workers=1")
    wait_for(tmp_path / "checkpoints" / "10", process)
    os.killpg(process.pid, signal.SIGINT)
    output = finish(process)
    last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert "Ctrl-C again stops at once" in output and "Traceback" not in output
    assert f"stopped; step {last} is saved" in output
