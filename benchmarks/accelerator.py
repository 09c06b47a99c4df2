"""Measures this project on a GPU or TPU that one has for a few minutes.

    python benchmarks/accelerator.py                    # part after part, for 220 s
    python benchmarks/accelerator.py --part=feeding     # what the time did not allow
    python benchmarks/accelerator.py --small            # tiny sizes; for a CPU

Needs jax with the machine's backend, flax, optax and jaxtyping, and of this repository
benchmarks/, configs/, input_pipeline/, jax_atvg/ and tests/; no network.  `feeding`
also needs grain, tensorflow-datasets, importlib-resources, orbax-checkpoint,
opencv-python-headless and python-speech-features.  A part whose libraries are missing
is left out, and so is one that would begin after --budget seconds; 15 seconds later
the process ends, whatever it does.  Every figure is printed and written to --out when
it is measured: who is cut off loses the rest alone.

The parts, in this order, on one device:

    matmul          products of 8192 x 8192 matrices
    vg_net          VG-net in inference, 1 clip x 75 frames
    gan_bfloat16, gan_default    VG-net's step with its discriminator, the original's
                    width, 10 clips x 16 frames; on noise
    default_step    the default model's step, 16 clips x 8 frames, bfloat16; on noise
    feeding         the same, fed from drawn clips on disk, with full augmentation, by
                    the default number of worker processes; then on one of its batches
    parity          the largest differences from what the authors' code computed
    at_step         AT-net's step, 16 clips x 16 frames; on noise
    learning        the default model's loss on the same pictures, in every precision

Compilation is timed: let jax keep no cache of it.  The first three parts compile one
program after the other, with nothing beside; the next three, and then parity and
at_step, compile theirs side by side before the first is measured, which takes each of
them longer.  Some versions of XLA mistime kernels when they compile side by side, and
say "Delay kernel timed out": then measure these parts one by one, with --part.

precision: see jax_atvg/models/precision.py.  back to back: groups of calls are begun
before any is waited for; waited for: each begins when the last has ended; medians.
FLOP: multiplications and additions of the program before XLA changes it.  MFU: FLOP /
(seconds back to back x the chip's published peak in the precision).  peak memory: of
the device since the program began.  authors: their PyTorch code, PyTorch 2.11, one H100
80GB, measured once.  before: an earlier version of this project on such a machine, jax
0.11.2, measured once; of matrix products, jax alone.
"""

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import measuring  # noqa: E402
from benchmarks.accelerator_programs import (  # noqa: E402
    TRAINING,
    authors,
    cases,
    compared,
    compile_side_by_side,
    inference,
    start_of,
    step_of,
)
from benchmarks.accelerator_report import TOGETHER, Report, Row, Rows  # noqa: E402
from benchmarks.measuring import Compiled, compiled, noise, timed_together  # noqa: E402
from input_pipeline.clip import first_line  # noqa: E402
from jax_atvg.models.precision import cast, cast_variables  # noqa: E402
from jax_atvg.models.sizes import PRECISIONS  # noqa: E402
from jax_atvg.models.vg_net import VGNet  # noqa: E402
from jax_atvg.programs.chips import peak  # noqa: E402
from jax_atvg.sharding import data_mesh  # noqa: E402
from tests.random_variables import random_variables  # noqa: E402

GRACE = 15  # seconds after the budget until the process ends


# --- the parts ---


def matmul(small: bool) -> Rows:
    for precision in PRECISIONS:
        rate = product_rate(128 if small else 8192, precision)
        yield Row(TOGETHER, rate, "TFLOP/s", precision)


def product_rate(n: int, precision: str) -> float:
    """TFLOP/s of products of n x n matrices, each with the result of the last."""
    # With a spectral radius of about 1, so that results neither grow nor vanish.
    factor = noise((n, n)) * np.sqrt(3 / n)
    y = factor = cast(factor, precision)
    how = "highest" if precision == "highest" else None
    product = jax.jit(functools.partial(jnp.matmul, precision=how))

    def call():
        nonlocal y
        y = product(y, factor)
        return y

    result, spent = timed_together(call, 3, 10)
    measuring.check_finite(result)
    return 2 * n**3 / spent / 1e12


def program(
    made: Compiled, call: Callable, precision: str, small: bool, frames: int = 0
) -> Rows:
    """All figures of a program.  frames: that a run makes; 0: it is a training step."""
    yield Row("lowering", made.lowering, "s", precision)
    yield Row("compiling", made.compiling, "s", precision)
    yield Row("FLOP", made.flop / 1e12, "T", precision)
    yield Row("temporaries", made.temporaries / 2**30, "GiB", precision)

    def row(what: str, spent: float) -> Row:
        if frames:
            return Row(what, frames / spent, "frames/s", precision)
        return Row(what, 1000 * spent, "ms a step", precision)

    result, spent = timed_together(call, *((1, 2) if small else (4, 5)))
    yield row(TOGETHER, spent)
    yield row("waited for", timed_together(call, 2 if small else 10, 1)[1])
    device = jax.devices()[0]
    if most := peak(device.device_kind, precision):
        yield Row("MFU", 100 * made.flop / spent / most, "%", precision)
    if most := (device.memory_stats() or {}).get("peak_bytes_in_use"):
        yield Row("peak memory", most / 2**30, "GiB", precision)
    measuring.check_finite(result)


def training(name: str, precision: str, small: bool) -> Rows:
    """A training step on noise."""
    step, state = step_of(name, precision, small), start_of(name, small)

    def call():
        nonlocal state
        state, losses = step.made.run(state, step.batch, step.experiment.seed)
        return losses

    yield from program(step.made, call, precision, small)


def vg_net(small: bool) -> Rows:
    net, frames = (VGNet(width=4, num_blocks=1), 4) if small else (VGNet(), 75)
    inputs = noise((1, 128, 128, 3)), noise((1, frames, 136)), noise((1, 136))
    variables = jax.tree.map(np.asarray, random_variables(net, *inputs))
    for precision in ("bfloat16", "default"):
        # Cast on the host: on a device each shape would be a program of its own.
        args = jax.device_put(cast_variables(variables, precision)), *inputs
        made = compiled(inference(net, precision), *args)
        call = functools.partial(made.run, *args)
        yield from program(made, call, precision, small, frames)


def parity(small: bool) -> Rows:
    stored = dict(np.load(ROOT / "tests" / "data" / "parity_seed3.npz"))
    failed = []
    for precision, name in compared(small):
        try:
            made, args = authors(precision, name)
            output = jax.block_until_ready(made.run(*args))
        except Exception as error:  # the others may do all the same
            failed.append(f"{name} {precision}: {first_line(error)}")
            continue
        for ours, theirs in cases()[name][2].items():
            expected, actual = stored[theirs], np.float64(getattr(output, ours))
            if name == "vg_net" and ours != "landmark_attention":
                actual = actual[:, :, ::4, ::4]  # every fourth pixel is stored
            error = float(np.abs(actual - expected).max())
            unit = f"where theirs vary by {expected.std():.2g}"
            yield Row(f"{name} {ours}", error, unit, precision)
    if failed:
        raise SystemExit("; ".join(failed))


def feeding(small: bool) -> Rows:
    from input_pipeline.training_data import dataset, synthetic
    from input_pipeline.training_data.batches import usable_workers
    from jax_atvg.training.train import training_batches

    step = step_of("default", "bfloat16", small)

    def pace(batches: Iterator[Any]) -> dict[str, float]:
        state, steps = start_of("default", small), 3 if small else 200
        return measuring.pace(step.made.run, state, batches, step.experiment, steps)

    mesh, clips = data_mesh(jax.devices()[:1]), (4, 8) if small else (32, 40)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        synthetic.write_dataset(folder, train=synthetic.SyntheticClips(*clips))
        clips, began = dataset.open_clips(folder, "train"), time.perf_counter()
        batches = training_batches(step.experiment, clips, None, mesh)
        # Whatever happens: worker processes would go on, and hold the output open.
        stack.callback(batches.close)
        batch = next(batches)
        yield Row("until the first batch", time.perf_counter() - began, "s")
        # Those that were made ahead.
        for _ in range(2 + 2 * usable_workers(step.experiment.data.num_workers)):
            next(batches)
        workers = len(multiprocessing.active_children())
        fed = pace(batches)
    yield Row("fed", fed["pace/steps_per_second"], "steps/s", "bfloat16")
    waiting = 100 * fed["pace/waiting_for_data"]
    yield Row("without a batch", waiting, "% of the time", "bfloat16")
    yield Row("worker processes", workers, "")
    same = pace(itertools.repeat(batch))["pace/steps_per_second"]
    yield Row("the same batch again", same, "steps/s", "bfloat16")


def learning(small: bool) -> Rows:
    steps = 2 if small else 100
    for precision in PRECISIONS[:0:-1] if small else PRECISIONS[::-1]:
        step = step_of("default", precision, small)
        batches = [brightening(step.batch, seed) for seed in range(4)]
        state, found = start_of("default", small), []
        for batch in itertools.islice(itertools.cycle(batches), steps):
            state, losses = step.made.run(state, batch, step.experiment.seed)
            found.append(losses["vg/pixel"])
        yield Row("loss of pixels before", float(found[0]), "", precision)
        yield Row(f"after {steps - 1} steps", float(found[-1]), "", precision)


def brightening(like, seed: int):
    """A VgBatch that can be learned from: photos of coloured blocks, which are brighter
    in the frames whose first landmark is larger.  like: another batch of its shape."""
    random = np.random.default_rng(seed)
    count, size = like.image.shape[:2]
    blocks = random.uniform(64, 192, (count, size // 8, size // 8, 3))
    image = np.kron(blocks, np.ones((1, 8, 8, 1)))
    landmarks = random.uniform(-1, 1, like.landmarks.shape)
    frames = image[:, None] + 63 * landmarks[:, :, 0, None, None, None]
    batch = like._replace(image=image, frames=frames, landmarks=landmarks)
    batch = jax.tree.map(lambda x, y: x.astype(y.dtype), batch, like)
    return jax.device_put(batch, jax.tree.map(lambda x: x.sharding, like))


STEPS = {part: functools.partial(training, *which) for part, which in TRAINING.items()}
PARTS: dict[str, Callable[[bool], Rows]] = {
    "matmul": matmul,
    "vg_net": vg_net,
    "gan_bfloat16": STEPS["gan_bfloat16"],
    "gan_default": STEPS["gan_default"],
    "default_step": STEPS["default_step"],
    "feeding": feeding,
    "parity": parity,
    "at_step": STEPS["at_step"],
    "learning": learning,
}
SIDE_BY_SIDE = (  # parts whose programs are compiled before the first is measured
    ("gan_bfloat16",),
    ("gan_default", "default_step", "feeding"),
    ("parity", "at_step"),
)


# --- the command ---


def measure(part: str, report: Report) -> None:
    """All figures of a part, or why there are none."""
    try:
        for row in PARTS[part](report.small):
            report.measured(part, row)
    except ModuleNotFoundError as error:
        report.left_out(part, f"left out: {first_line(error)}")
    except (Exception, SystemExit) as error:  # others may do all the same
        report.left_out(part, f"failed: {first_line(error)}")
        report.failed = True


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="again for more; default: all")
    add("--budget", type=float, default=220, help="seconds; no part begins later")
    add("--out", type=pathlib.Path, default="accelerator.json")
    add("--small", action="store_true", help="tiny sizes")
    given = parser.parse_args(words)
    measuring.check_folder(parser, "out", given.out)
    if jax.default_backend() == "cpu" and not given.small:
        parser.error(
            "jax finds no GPU or TPU, and a CPU would take hours; install jax for the "
            "device and look at its driver, or give --small"
        )
    return given


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if a part failed."""
    given = arguments(words)
    if given.small:
        jax.config.update("jax_disable_most_optimizations", True)
    device, about = jax.devices()[0], measuring.machine()
    about["device"] = f"{device.platform} {device.device_kind}"
    about["backend"] = " ".join(device.client.platform_version.split())
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    report = Report(given.out, given.small, about)
    parts = [name for name in PARTS if name in (given.part or PARTS)]
    end = threading.Timer(given.budget + GRACE, report.cut_off, [parts])
    end.daemon = True
    end.start()
    groups = [[part for part in parts if part in group] for group in SIDE_BY_SIDE]
    while parts:
        if report.seconds() >= given.budget:
            spent = f"{report.seconds():.0f} of {given.budget:.0f} s are over"
            report.left_out(parts[0], f"left out: {spent}")
        else:
            for group in groups:
                if parts[0] in group[:1]:
                    compile_side_by_side(group, given.small)
            measure(parts[0], report)
        parts.pop(0)
    end.cancel()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
