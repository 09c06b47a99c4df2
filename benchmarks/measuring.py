"""Functions that the benchmarks share: a training step, timing, tables, flags.

Importing this does not import jax: the peak memory of a child process also counts what
its parent held when the child was started.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LIBRARIES = "jax", "jaxlib", "flax", "numpy"


# --- what is timed ---


def training_step(experiment, devices=None):
    """(the TrainStep that `train` builds, a batch for it on the devices).

    devices: one unless given.  The batch is noise, the same in every run; the light of
    its pictures stays as it is.
    """
    import jax
    import numpy as np

    from input_pipeline.clip import Pca
    from jax_atvg.sharding import data_mesh, to_devices
    from jax_atvg.training.config import validate
    from jax_atvg.training.train_step import build

    validate(experiment)
    mesh = data_mesh(devices or jax.devices()[:1])
    directions = host_noise((136, experiment.data.num_coefficients))
    pca = Pca(np.zeros(136, np.float32), np.linalg.qr(directions)[0])
    step_of = build(experiment, mesh, pca)
    share = len(mesh.local_devices) / mesh.size  # of the rows, in this process
    rows = round(experiment.batch_size * share)
    batch = jax.tree.map(
        lambda x: host_noise((rows, *x.shape[1:]), x.dtype), step_of.shapes
    )
    if getattr(batch, "colour", None) is not None:  # noise would make it infinite
        ones = jax.tree.map(np.ones_like, batch.colour)
        batch = batch._replace(colour=ones._replace(offset=0 * ones.offset))
    return step_of, to_devices(batch, mesh)


def training_of(experiment, devices=None) -> Callable[[], Any]:
    """A call that takes one training step, see training_step, always on the same batch.

    devices: one unless given.
    """
    import jax

    step_of, batch = training_step(experiment, devices)
    state = jax.block_until_ready(step_of.init(experiment.seed))

    def call():
        nonlocal state
        state, losses = step_of.step(state, batch, experiment.seed)
        jax.block_until_ready(state)
        return losses

    return call


def noise(shape: tuple[int, ...], dtype="float32"):
    """An array on a device, the same in every run: f32, uniform in [-1, 1], or all of
    u8."""
    import jax

    return jax.device_put(host_noise(shape, dtype))


def host_noise(shape: tuple[int, ...], dtype="float32"):
    """The same in numpy."""
    import numpy as np

    random = np.random.default_rng(0)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    return random.uniform(-1, 1, shape).astype(np.float32)


def timed(call: Callable[[], Any], calls: int) -> tuple[Any, float]:
    """(the last result, seconds a call)."""
    import jax

    start = time.perf_counter()
    for _ in range(calls):
        result = jax.block_until_ready(call())
    return result, (time.perf_counter() - start) / calls


def timed_together(
    call: Callable[[], Any], groups: int, calls: int
) -> tuple[Any, float]:
    """(the last result, seconds a call: the median over groups of so many calls, which
    are all begun before any is waited for).  The first two calls are not counted."""
    import jax

    jax.block_until_ready([call(), call()])
    spent = []
    for _ in range(groups):
        start = time.perf_counter()
        results = jax.block_until_ready([call() for _ in range(calls)])
        spent.append((time.perf_counter() - start) / calls)
    return results[-1], statistics.median(spent)


def pace(run, state, batches, experiment, steps: int) -> dict[str, float]:
    """What the training loop would report of so many steps, after three others.

    run: (state, batch, seed) -> (state, losses).  batches: an iterator.
    """
    import jax

    from jax_atvg.training.pace import Pending

    for batch in itertools.islice(batches, 3):
        state, _ = run(state, batch, experiment.seed)
    jax.block_until_ready(state)
    pending = Pending(experiment.batch_size, jax.devices()[0])
    for number in range(steps):
        with pending.data():
            batch = next(batches)
        state, losses = run(state, batch, experiment.seed)
        pending.add(number, losses)
    return pending.report()


class Compiled(NamedTuple):
    """A compiled program.  lowering, compiling: seconds.  flop: multiplications and
    additions of a run, as the program was before XLA changed it.  temporaries: bytes.
    """

    run: Callable[..., Any]
    lowering: float
    compiling: float
    flop: int
    temporaries: int


def compiled(function, *args) -> Compiled:
    """A jitted function, compiled for these arguments or their shapes."""
    from jax_atvg.programs.hlo import flops_of

    start = time.perf_counter()
    lowered = function.lower(*args)
    between = time.perf_counter()
    run = lowered.compile()
    end = time.perf_counter()
    # A backend may not tell.
    size = getattr(run.memory_analysis(), "temp_size_in_bytes", 0)
    return Compiled(run, between - start, end - between, flops_of(lowered), size)


def check_finite(result) -> None:
    """SystemExit: the result has NaN or infinities, whose arithmetic may be slower."""
    import jax
    import numpy as np

    if not all(np.isfinite(x).all() for x in jax.tree.leaves(result)):
        raise SystemExit("the result is not finite; its time means nothing")


def others_seconds() -> float:
    """Processor seconds of all other processes so far, with time stolen by the host."""
    line = pathlib.Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


# --- what is printed ---


def show(found: dict[str, Any], columns: dict, path: pathlib.Path | None) -> None:
    """Prints a run's figures as a table; with a path, keeps them there as JSON."""
    print(table([found], columns))
    if path:
        figures = {"machine": machine(), "run": found}
        path.write_text(json.dumps(figures, indent=1) + "\n")


def table(
    summaries: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]]
) -> str:
    """A Markdown table with aligned columns; a cell whose value is None is empty.

    columns: {heading: (key of a summary, format of its value)}.
    """
    lines = [list(columns)]
    for figures in summaries:
        cells = [(figures[key], how) for key, how in columns.values()]
        lines.append(["" if v is None else format(v, how) for v, how in cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])
    rows = (" | ".join(map(str.rjust, line, widths)) for line in lines)
    return "\n".join(f"| {row} |" for row in rows)


def machine() -> dict[str, Any]:
    """Describes the machine.  load_before: mean number of processes that were running
    or waiting for a processor in the last minute."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "os": f"{platform.system()} {platform.release().split('-')[0]}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def check_flags(parser: argparse.ArgumentParser, given, *counts: str) -> None:
    """Exits with code 2 if a count is below 1 or the folder of --json is missing."""
    for name in counts:
        if getattr(given, name) < 1:
            parser.error(f"--{name}={getattr(given, name)}: 1 at least")
    check_folder(parser, "json", given.json)


def check_folder(
    parser: argparse.ArgumentParser, flag: str, path: pathlib.Path | None
) -> None:
    """Exits with code 2 if the folder of a file that a flag names is missing."""
    if path and not path.resolve().parent.is_dir():
        parser.error(f"--{flag}={path}: no such folder")
