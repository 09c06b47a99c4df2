"""Measures what `main.py evaluate` costs: processor seconds and time for every clip.

    python benchmarks/evaluate.py --data_dir=DATA
    python benchmarks/evaluate.py --data_dir=DATA --workers=0,2,4 --against=../older

Every run is a process of its own that evaluates few or more clips; what a clip costs is
the difference, and the rest is the start (imports, the bundle, worker processes, the
report with its three strips).  All are run in turns, and of each the least counts.  A
run before, that is not counted, fills the cache of compiled programs.

core s: processor seconds, user and system, of the process and its workers.
of the first: core s a clip, divided by those of the first row.
against: another checkout of this project, with its defaults; the first row then.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
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
    given = arguments()
    figures = {"machine": machine(), "clips": given.clips}
    figures["programs"] = measure(given)
    print(table(figures["programs"], COLUMNS))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
