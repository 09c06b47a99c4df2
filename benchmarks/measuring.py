"""Functions that the benchmarks share: a training step, timing, tables, flags.

Importing this does not import jax: the peak memory of a child process also counts what
its parent held when the child was started.
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

LIBRARIES = "jax", "jaxlib", "flax", "numpy"


# --- what is timed ---


def training_of(experiment, devices=None) -> Callable[[], Any]:
    """A call that takes one training step, built as `train` builds it.

    devices: one unless given.  The batch is noise, the same in every call.
    """
    import jax
    import numpy as np

    from input_pipeline.clip import Pca
    from jax_atvg.sharding import data_mesh, to_devices
    from jax_atvg.training.config import validate
    from jax_atvg.training.train_step import build

    validate(experiment)
    mesh = data_mesh(devices or jax.devices()[:1])
    directions = noise((136, experiment.data.num_coefficients))
    pca = Pca(np.zeros(136, np.float32), np.linalg.qr(directions)[0])
    step_of = build(experiment, mesh, pca)
    share = len(mesh.local_devices) / mesh.size  # of the rows, in this process
    rows = round(experiment.batch_size * share)
    batch = jax.tree.map(lambda x: noise((rows, *x.shape[1:]), x.dtype), step_of.shapes)
    batch = to_devices(batch, mesh)
    state = jax.block_until_ready(step_of.init(experiment.seed))

    def call():
        nonlocal state
        state, losses = step_of.step(state, batch, experiment.seed)
        jax.block_until_ready(state)
        return losses

    return call


def noise(shape: tuple[int, ...], dtype="float32"):
    """An array, the same in every run: f32, uniform in [-1, 1], or all of u8."""
    import jax
    import numpy as np

    random = np.random.default_rng(0)
    if dtype == np.uint8:
        return jax.device_put(random.integers(0, 256, shape, np.uint8))
    return jax.device_put(random.uniform(-1, 1, shape).astype(np.float32))


def timed(call: Callable[[], Any], calls: int) -> tuple[Any, float]:
    """(the last result, seconds a call)."""
    import jax

    start = time.perf_counter()
    for _ in range(calls):
        result = jax.block_until_ready(call())
    return result, (time.perf_counter() - start) / calls


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
    if given.json and not given.json.resolve().parent.is_dir():
        parser.error(f"--json={given.json}: no such folder")
