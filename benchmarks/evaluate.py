"""Measures what `main.py evaluate` costs: processor seconds and time for every clip.

    python benchmarks/evaluate.py --data_dir=DATA
    python benchmarks/evaluate.py --data_dir=DATA --workers=0,2,4 --against=../older
    python benchmarks/evaluate.py --data_dir=DATA --parts

Every run is a process of its own that evaluates few or more clips; what a clip costs is
the difference, and the rest is the start (imports, the bundle, worker processes, the
report with its three strips).  All are run in turns, and of each the least counts.  A
run before, that is not counted, fills the cache of compiled programs.

core s: processor seconds, user and system, of the process and its workers.
of the first: core s a clip, divided by those of the first row.
against: another checkout of this project, with its defaults; the first row then.

With --parts the parts of an evaluation run one after the other in this process instead,
each to its end before the next begins, and the table says what each costs.  The first
clip is not counted.  on a device: JAX computes it, so that where there is a GPU or TPU
it takes that one's time, but for what the host spends on starting it and on fetching
the result; on the host: what processors compute everywhere.
"""

import argparse
import contextlib
import json
import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import check_flags, machine, table  # noqa: E402

COLUMNS = {  # heading: (key of a summary, format)
    "program": ("name", ""),
    "core s a clip": ("core_s", ".2f"),
    "s a clip": ("wall_s", ".2f"),
    "core s, start": ("start_core_s", ".1f"),
    "s, start": ("start_wall_s", ".1f"),
    "of the first": ("ratio", ".2f"),
}
HOST, DEVICE = "on the host", "on a device"
PARTS = {
    "part": ("name", ""),
    "computed": ("where", ""),
    "core s a clip": ("core_s", ".2f"),
    "s a clip": ("wall_s", ".2f"),
}


class Cost(NamedTuple):
    """Of one run, in seconds."""

    core: float
    wall: float


def run(command: Sequence[str], folder: pathlib.Path) -> Cost:
    """Runs a program in the folder.  SystemExit: it failed; with what it said."""
    said = folder / "said.txt"
    with said.open("w") as file:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)  # with the workers it waited for
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{said.read_text()}")
    return Cost(used.ru_utime + used.ru_stime, wall)


def summary(
    name: str, few: list[Cost], more: list[Cost], clips: tuple[int, int]
) -> dict[str, Any]:
    """What a clip and the start cost, of the least of all turns."""
    figures = {"name": name}
    for key in Cost._fields:
        low, high = (min(getattr(cost, key) for cost in costs) for costs in (few, more))
        each = (high - low) / (clips[1] - clips[0])
        figures |= {f"{key}_s": each, f"start_{key}_s": low - clips[0] * each}
    return figures


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A summary of every program, which are run in turns."""
    programs = {
        f"workers {n}": [ROOT / "main.py", f"--workers={n}"] for n in given.workers
    }
    if given.against:
        programs = {"against": [given.against / "main.py"]} | programs
    costs = {(name, n): [] for name in programs for n in given.clips}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.turns + 1):
            for (name, n), found in costs.items():
                if not turn and n != given.clips[1]:
                    continue  # one run fills the cache
                program, *flags = programs[name]
                command = [sys.executable, program.resolve(), "evaluate", *flags]
                command += [f"--data_dir={given.data_dir.resolve()}", "--out=report"]
                command += [f"--limit={n}", *given.flag]
                if given.bundle:
                    command.append(f"--bundle={given.bundle.resolve()}")
                cost = run([str(word) for word in command], pathlib.Path(folder))
                if turn:
                    found.append(cost)
                    print(f"turn {turn}  {name}, {n} clips: {cost.core:.1f} core s, "
                          f"{cost.wall:.1f} s")  # fmt: skip
    few, more = given.clips
    rows = [
        summary(name, costs[name, few], costs[name, more], (few, more))
        for name in programs
    ]
    for row in rows:
        row["ratio"] = row["core_s"] / rows[0]["core_s"]
    return rows


# --- its parts ---


class Part(NamedTuple):
    """Of an evaluation; what it costs a clip, in seconds."""

    name: str
    where: str
    core_s: float
    wall_s: float


def parts(given: argparse.Namespace) -> list[Part]:
    """Every part, and the sums of all and of what stays on the host."""
    import jax

    from input_pipeline.training_data import dataset
    from jax_atvg.evaluation import evaluate, identity, pixels, scores, scoring
    from jax_atvg.evaluation.synthesis import Synthesis
    from jax_atvg.inference.bundle import load_bundle
    from jax_atvg.resources import DEFAULT_BUNDLE

    bundle = load_bundle(given.bundle or DEFAULT_BUNDLE)
    clips = dataset.open_clips(given.data_dir, "validation")
    other = evaluate.other_clips(clips.speakers, clips.clip_ids)
    synthesis = Synthesis(bundle, batch_size=1)
    networks = synthesis.networks
    weights = jax.device_put(identity.read_weights(identity.model_path()))
    of_clips = []
    for index in evaluate.choose(clips.speakers, (), given.clips[1] + 1):
        found = []
        of_clips.append(found)
        with timed(found, "clips read and decoded", HOST):
            take = evaluate.read_take(clips, index, other[index])
        synthesis.networks = Clocked(networks, calls := [])
        with timed(found, "their inputs and outputs", HOST):
            (made,) = synthesis([take])
        within, whole = combined(calls[0].name, DEVICE, calls, sum), found.pop()
        core_s, wall_s = whole.core_s - within.core_s, whole.wall_s - within.wall_s
        found += [within, whole._replace(core_s=core_s, wall_s=wall_s)]
        case = evaluate.case_of(bundle, take, made)
        with timed(found, "handed to a worker", HOST):
            pickle.loads(pickle.dumps(case))
        with timed(found, "PSNR, SSIM", DEVICE):
            pixels.finish(scoring.begin_pixels(case, synthesis.device))
        with timed(found, "dlib's points, CPBD, other scores", HOST):
            _, faces = scores.host_scores(case)
        with timed(found, "face embedding", DEVICE):
            identity.likeness(weights, faces)
    rows = [
        combined(one[0].name, one[0].where, one, statistics.mean)
        for one in zip(*of_clips[1:], strict=True)
    ]
    on_host = [part for part in rows if part.where == HOST]
    sums = combined("all", "", rows, sum), combined(HOST, "", on_host, sum)
    return [*rows, *sums]


class Clocked(NamedTuple):
    """Networks that add every call of theirs to the parts found."""

    networks: Any
    found: list[Part]

    def speak(self, *inputs: Any) -> Any:
        with timed(self.found, "networks, all modes", DEVICE):
            return self.networks.speak(*inputs)

    def draw(self, *inputs: Any) -> Any:
        with timed(self.found, "networks, all modes", DEVICE):
            return self.networks.draw(*inputs)


@contextlib.contextmanager
def timed(found: list[Part], name: str, where: str) -> Iterator[None]:
    """Adds what is done under it to the parts found."""
    core, wall = time.process_time(), time.perf_counter()
    yield
    core, wall = time.process_time() - core, time.perf_counter() - wall
    found.append(Part(name, where, core, wall))


def combined(
    name: str, where: str, some: Sequence[Part], how: Callable[[list[float]], float]
) -> Part:
    return Part(
        name, where, how([x.core_s for x in some]), how([x.wall_s for x in some])
    )


# --- the command ---


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument(
        "--bundle", type=pathlib.Path, help="the default model unless given"
    )
    parser.add_argument("--workers", default="0,2", help="as 0,2,4")
    parser.add_argument("--against", type=pathlib.Path, help="another checkout")
    parser.add_argument("--clips", default="2,6", help="few and more")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--flag",
        action="append",
        default=[],
        help="of evaluate, as --flag=--split=test",
    )
    parser.add_argument("--parts", action="store_true", help="what each part costs")
    parser.add_argument("--json", type=pathlib.Path, help="the figures are kept there")
    given = parser.parse_args(words)
    check_flags(parser, given, "turns")
    try:
        given.workers = [int(n) for n in given.workers.split(",")]
        few, more = given.clips = tuple(int(n) for n in given.clips.split(","))
    except ValueError:
        parser.error("--workers and --clips: whole numbers, as 0,2; of --clips two")
    if not 1 <= few < more:
        parser.error(f"--clips={few},{more}: first the smaller number, 1 at least")
    return given


def main() -> None:
    from jax_atvg.cli.machine import set_up_jax

    given = arguments()
    figures = {"machine": machine(), "clips": given.clips}
    if given.parts:
        set_up_jax()
        figures["parts"] = [part._asdict() for part in parts(given)]
        print(table(figures["parts"], PARTS))
    else:
        figures["programs"] = measure(given)
        print(table(figures["programs"], COLUMNS))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
