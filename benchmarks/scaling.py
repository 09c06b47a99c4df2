"""Measures what it costs to split a training step over devices or processes.

    python benchmarks/scaling.py                  # AT-net's and VG-net's step
    python benchmarks/scaling.py --config=at_small --json=scaling.json

This is weak scaling: every device has --batch clips, whatever the number of devices.
The devices share the cores of one machine, so that n of them can at best take as long
as one takes for all n times --batch clips.  That plain program runs in turns with the
spread one, in the same process.  ratio: time of the spread step over that of the plain
one, the median of the pairs; quartiles: those of the ratios.  1 is perfect; what
exceeds it is partitioning, collectives and waiting.

devices: simulated in one process.  processes: each has one device, and they communicate
over the loopback interface (gloo).
"""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import (  # noqa: E402
    check_finite,
    check_flags,
    machine,
    table,
    timed,
    training_of,
)

CONFIGS = "at_small", "vg_small"
LAYOUTS = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2)]  # devices per process, processes
COLUMNS = {
    "step": ("config", "s"),
    "devices": ("devices", "d"),
    "processes": ("processes", "d"),
    "clips": ("clips", "d"),
    "plain ms": ("plain_ms", ".1f"),
    "spread ms": ("spread_ms", ".1f"),
    "ratio": ("ratio", ".3f"),
    "quartiles": ("quartiles", "s"),
}


# --- a child: one of the processes of a layout ---


def measure(experiment, batch: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of the spread steps and, in the first process, of the plain ones."""
    import jax

    experiment = dataclasses.replace(experiment, batch_size=batch * jax.device_count())
    calls = {"spread": training_of(experiment, jax.devices())}
    if jax.process_index() == 0:
        calls["plain"] = training_of(experiment, jax.local_devices()[:1])
    seconds = {name: [] for name in calls}
    for repeat in range(repeats + 2):  # the first compiles, the second warms up
        for name, call in calls.items():
            result, spent = timed(call, 1)
            check_finite(result)
            if repeat > 1:
                seconds[name].append(spent)
    return seconds


def child(given: argparse.Namespace) -> None:
    from jax_atvg.cli.machine import set_up_jax
    from jax_atvg.training import distributed

    if given.processes > 1:
        distributed.connect(given.coordinator, given.processes, given.process_id)
    set_up_jax()
    experiment = importlib.import_module(f"configs.{given.child}").get_config()
    print(json.dumps(measure(experiment, given.batch, given.repeats)))


# --- the parent ---


def run_layout(
    config: str, devices: int, processes: int, batch: int, repeats: int
) -> dict[str, list[float]]:
    """measure() of the first process of a layout.  CalledProcessError: one failed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        sys.executable,
        __file__,
        f"--child={config}",
        f"--batch={batch}",
        f"--repeats={repeats}",
        f"--processes={processes}",
        f"--coordinator=127.0.0.1:{port}",
    ]
    environment = dict(os.environ) | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
    }
    children = [
        subprocess.Popen(
            [*command, f"--process_id={i}"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate()[0] for process in children]
    for process in children:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(outputs[0].splitlines()[-1])


def summary(
    config: str, devices: int, processes: int, batch: int, seconds: dict
) -> dict[str, Any]:
    """A row of the table.  seconds: what measure() returned."""
    pairs = zip(seconds["spread"], seconds["plain"], strict=True)
    ratios = [spread / plain for spread, plain in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "config": config,
        "devices": devices,
        "processes": processes,
        "clips": batch * devices * processes,
        "plain_ms": 1000 * median(seconds["plain"]),
        "spread_ms": 1000 * median(seconds["spread"]),
        "ratio": median(ratios),
        "quartiles": f"{low:.2f} to {high:.2f}",
        "seconds": seconds,
    }


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config",
        action="append",
        choices=CONFIGS,
        help="again for more; default: all",
    )
    parser.add_argument("--batch", type=int, default=1, help="clips per device")
    parser.add_argument("--repeats", type=int, default=9, help="pairs of steps")
    parser.add_argument("--json", type=pathlib.Path, help="write everything here too")
    for name in ("child", "coordinator"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in ("processes", "process_id"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    check_flags(parser, given, "batch", "repeats")
    return given


def main(run: Callable[..., dict] = run_layout) -> int:
    """Returns the exit code: 1 if a layout failed."""
    given = arguments()
    if given.child:
        child(given)
        return 0
    report, failed = {"machine": machine(), "rows": []}, False
    print(*(f"{key}: {value}" for key, value in report["machine"].items()), sep="\n")
    for config in given.config or CONFIGS:
        for devices, processes in LAYOUTS:
            layout = config, devices, processes, given.batch
            try:
                found = run(*layout, given.repeats)
            except subprocess.CalledProcessError as error:
                print(f"{layout}: failed, exit code {error.returncode}", flush=True)
                failed = True
                continue
            report["rows"].append(summary(*layout, found))
            newest = table(report["rows"][-1:], COLUMNS)
            print(newest.splitlines()[-1], flush=True)
            if given.json:
                given.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report["rows"], COLUMNS))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
