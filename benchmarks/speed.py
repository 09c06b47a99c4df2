"""Measures networks and training steps as shares of the machine's matmul peak.

    python benchmarks/speed.py                              # every row
    python benchmarks/speed.py --row=at_step,gan_step_1 --json=speed.json

Share: the FLOPs of the authors' algorithm over our time, divided by the rate of a
float32 matrix product, 2048 x 2048 x 2048, in the same process just before and after.
Arithmetic that our code saves counts as done, so that a share may exceed 1.  This runs
on Linux, on one device.

A turn measures every row once, each in a process of its own that is set up as main.py
sets up its own: it compiles, runs once more unmeasured, and then alternates between
repeats and matmuls.  A row's compilation cache is empty in the first turn only.

ms, rate, GFLOP/s, matmul (GFLOP/s), share: medians over the repeats of all turns.
others: the share of processor time that other programs used during the repeats.  If it
exceeds a few per cent, do not trust the shares: matmuls suffer more than the rest.
compile s, cached s: the first call of a process less the median of its repeats, hence
with tracing and without initialisation.  MiB, cold MiB: peak resident memory of a
process, without and with compiling.
"""

import argparse
import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import (  # noqa: E402
    check_finite,
    check_flags,
    machine,
    noise,
    others_seconds,
    table,
    timed,
    training_of,
)

# The parent process imports neither jax nor the packages of this project, because the
# peak memory of a child also counts what its parent held when the child was started.

MATMUL_SIZE = 2048
MATMULS = 5  # per measurement of the peak
LEAST_SECONDS = 1.0  # a repeat has as many calls as take this long


# --- what is timed: each function returns call() -> arrays ---


def vg_eval(frames: int) -> Callable[[], Any]:
    """VG-net at the original's width on one clip, the recurrence over time."""
    from jax_atvg.models.vg_net import VGNet

    net = VGNet()
    image = noise((1, net.image_size, net.image_size, 3))
    return forward(net, image, noise((1, frames, 136)), noise((1, 136)))


def at_inference(frames: int) -> Callable[[], Any]:
    """AT-net at the original's width on one clip."""
    from jax_atvg.models.at_net import ATNet

    net = ATNet()
    return forward(net, noise((1, net.num_coefficients)), noise((1, frames, 28, 12)))


def forward(net, *inputs) -> Callable[[], Any]:
    """A network in inference; its variables are arguments of the compiled program."""
    import jax

    from tests.random_variables import random_variables

    variables = jax.device_put(random_variables(net, *inputs))
    run = jax.jit(net.apply)
    return lambda: run(variables, *inputs)


def training(config: str, **changes) -> Callable[[], Any]:
    """The step of configs/{config}.py with all its losses; `changes` replace fields."""
    experiment = importlib.import_module(f"configs.{config}").get_config()
    return training_of(dataclasses.replace(experiment, **changes))


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    work: returns call() in the child process; a call does `count` times a `unit`.
    gflop, original, target: see below.
    """

    what: str
    count: int
    unit: str
    work: Callable[[], Callable[[], Any]]
    gflop: float | None = None
    original: float | None = None
    target: float | None = None


# gflop: of one call of the authors' code, counted by torch.utils.flop_counter, with two
# FLOPs per multiply-add.  It includes their second forward pass of the generator in a
# step, and leaves out LSTMs, which the counter does not see.  original: the share that
# their PyTorch code reached with 2 threads on 2 cores of a Xeon whose torch.mm did 308
# GFLOP/s.  target: the share that this project aims at.
ROWS = {
    "vg_eval_75": Row("VG-net, 1 clip x 75 frames", 75, "frames",
                      partial(vg_eval, 75), 600.0, 0.50, 1.00),
    "vg_eval_16": Row("VG-net, 1 x 16", 16, "frames",
                      partial(vg_eval, 16), 129.0, 0.48, 0.95),
    "gan_step_1": Row("GAN step, 1 x 16", 1, "steps",
                      partial(training, "vg_grid", batch_size=1), 564.7, 0.36, 0.72),
    "gan_step_2": Row("GAN step, 2 x 16", 1, "steps",
                      partial(training, "vg_grid", batch_size=2), 1143.9, 0.45, 0.80),
    "at_step": Row("AT step, 16 x 16", 1, "steps",
                   partial(training, "at_grid", batch_size=16), 489.9, 0.55, 0.62),
    "at_inference_75": Row("AT-net, 1 x 75", 75, "frames",
                           partial(at_inference, 75), 47.9, 0.27, 0.75),
} | {
    name: Row(f"step of configs/{name}.py", 1, "steps", partial(training, name))
    for name in ("vg_small", "vg_default", "at_small", "at_default")
}  # fmt: skip


# --- the child: one row, once ---


def set_up(name: str) -> None:
    """Sets up the process as `main.py train` does; for inference, as for AT-net."""
    from jax_atvg.cli.machine import keep_freed_memory, set_up_jax

    keep_freed_memory(one_heap=not name.startswith(("gan", "vg_small", "vg_default")))
    set_up_jax()


def measure(row: Row, repeats: int, matmul_size: int = MATMUL_SIZE) -> dict[str, Any]:
    """The measurements of one process.

    seconds: of a call, one number per repeat.  peaks: rates of matmuls in GFLOP/s,
    before the first repeat and after every one.
    """
    import jax

    call = row.work()
    (_, first), (_, second) = timed(call, 1), timed(call, 1)
    calls = max(1, round(LEAST_SECONDS / second))
    begin, others = time.perf_counter(), others_seconds()
    peaks, seconds = [matmul_rates(matmul_size)], []
    for _ in range(repeats):
        result, spent = timed(call, calls)
        seconds.append(spent)
        peaks.append(matmul_rates(matmul_size))
    others = (others_seconds() - others) / (time.perf_counter() - begin)
    check_finite(result)
    device = jax.devices()[0]
    return {
        "first_call_s": first,
        "calls_a_repeat": calls,
        "seconds": seconds,
        "peaks": peaks,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        # The tick of the system's counters can carry the share a little past one.
        "others": min(max(others, 0.0) / os.cpu_count(), 1.0),
        "device": f"{device.platform} {device.device_kind}",
    }


def matmul_rates(size: int) -> list[float]:
    """GFLOP/s of float32 matrix products, after one that is not counted.

    Operands are generated at every call, so that they take no memory while others run.
    """
    import jax
    import jax.numpy as jnp

    product = partial(jax.jit(jnp.matmul), noise((size, size)), noise((size, size)))
    timed(product, 1)
    seconds = [timed(product, 1)[1] for _ in range(MATMULS)]
    return [2 * size**3 / s / 1e9 for s in seconds]


# --- the parent: turns, arithmetic, table ---


def run_child(name: str, repeats: int, caches: pathlib.Path) -> dict[str, Any]:
    """Runs measure() in a process of its own.  CalledProcessError: it failed."""
    command = [sys.executable, __file__, f"--child={name}", f"--repeats={repeats}"]
    environment = dict(os.environ) | {"JAX_COMPILATION_CACHE_DIR": str(caches)}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def shares(
    gflop: float, seconds: Sequence[float], peaks: Sequence[Sequence[float]]
) -> list[float]:
    """The share of the peak that each repeat reached.

    gflop: of a call.  seconds: of a call, by repeat.  peaks: measured before the first
    repeat and after every one.
    """
    return [
        gflop / spent / median([*before, *after])
        for spent, before, after in zip(seconds, peaks[:-1], peaks[1:], strict=True)
    ]


def summary(name: str, turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table.  turns: results of measure(), the first uncached."""
    row = ROWS[name]
    spent = median(s for turn in turns for s in turn["seconds"])
    compiling = [turn["first_call_s"] - median(turn["seconds"]) for turn in turns]
    memory = [turn["memory_mib"] for turn in turns]
    share = row.gflop and median(
        x for t in turns for x in shares(row.gflop, t["seconds"], t["peaks"])
    )
    return {
        "row": name,
        **{key: getattr(row, key) for key in ("what", "gflop", "original", "target")},
        "ms": 1000 * spent,
        "rate": row.count / spent,
        "unit": f"{row.unit}/s",
        "gflops": row.gflop and row.gflop / spent,
        "peak_gflops": median(x for t in turns for rates in t["peaks"] for x in rates),
        "share": share,
        "others": median(turn["others"] for turn in turns),
        "compile_cold_s": compiling[0],
        "compile_cached_s": median(compiling[1:]) if compiling[1:] else None,
        "memory_cold_mib": memory[0],
        "memory_cached_mib": max(memory[1:], default=None),
        "turns": list(turns),
    }


COLUMNS = {  # heading: (key of the summary, format of its value)
    "row": ("row", "s"),
    "work": ("what", "s"),
    "ms": ("ms", ".1f"),
    "rate": ("rate", ".2f"),
    "of": ("unit", "s"),
    "GFLOP/s": ("gflops", ".0f"),
    "matmul": ("peak_gflops", ".0f"),
    "share": ("share", ".2f"),
    "target": ("target", ".2f"),
    "original": ("original", ".2f"),
    "others": ("others", ".0%"),
    "compile s": ("compile_cold_s", ".1f"),
    "cached s": ("compile_cached_s", ".1f"),
    "MiB": ("memory_cached_mib", ".0f"),
    "cold MiB": ("memory_cold_mib", ".0f"),
}


def row_names(text: str) -> list[str]:
    """ "a,b" -> ["a", "b"].  ArgumentTypeError: no such row."""
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(
            f"no row {', '.join(map(repr, unknown))}; choose from {', '.join(ROWS)}"
        )
    return names


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--row", type=row_names, action="extend", metavar="NAME[,NAME]",
        help=f"rows to measure; repeat for more; all unless given: {', '.join(ROWS)}",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="of a row, per turn")
    parser.add_argument("--turns", type=int, default=3, help="the first one compiles")
    parser.add_argument("--json", type=pathlib.Path, help="write everything here too")
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    check_flags(parser, given, "repeats", "turns")
    return given


def main() -> int:
    """Returns the exit code: 1 if a row failed."""
    given = arguments()
    if given.child:
        set_up(given.child)
        print(json.dumps(measure(ROWS[given.child], given.repeats)))
        return 0
    chosen = [name for name in ROWS if name in (given.row or ROWS)]
    report = {"machine": machine(), "rows": {}}
    print(*(f"{key}: {value}" for key, value in report["machine"].items()), sep="\n")
    turns, failed = {name: [] for name in chosen}, set()
    with tempfile.TemporaryDirectory() as folder:
        for turn, name in itertools.product(range(given.turns), chosen):
            if name in failed:
                continue
            caches = pathlib.Path(folder, name)
            try:
                turns[name].append(run_child(name, given.repeats, caches))
            except subprocess.CalledProcessError as error:
                print(f"{name}: failed, exit code {error.returncode}", flush=True)
                failed.add(name)
                continue
            spent = 1000 * median(turns[name][-1]["seconds"])
            print(
                f"turn {turn + 1} of {given.turns}  {name}  {spent:.1f} ms", flush=True
            )
            report["rows"][name] = summary(name, turns[name])
            if given.json:  # written now, in case the benchmark is interrupted
                given.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(list(report["rows"].values()), COLUMNS))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
