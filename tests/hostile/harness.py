"""Gives the program files that are almost right and looks at what becomes of it.

    python -m tests.hostile.harness --cases=10000 --seed=0

The property: exit code 0 and a right result, or exit code 2 and one line that begins
with "error:"; within a bounded time and memory; nothing half-written; the files that
were read are as they were; nothing else on standard error.  A case is known by its
number and seed, and can be repeated alone with --only.
"""

import argparse
import collections
import contextlib
import faulthandler
import functools
import os
import pathlib
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from typing import NamedTuple

import numpy as np

from input_pipeline.workers import Died, for_each
from tests.hostile import cases
from tests.hostile.mutations import mutated

SECONDS = 60.0  # for a case; a process that takes twice as long is ended
MEBIBYTES = 1000  # by which a process may grow in a case
PROGRESS = re.compile(r"\d+ of \d+ (frame|file|clip|step)s?| parameters$")
GOES_ON = (
    "warning: ",
    "error: ",
    "compiling ",
    "running on ",
    "data: ",
    "config, ",
    "... ",
)


class Outcome(NamedTuple):
    """kind, file: what was changed.  code: the exit code.  fault: what is wrong, or
    ""."""

    kind: str
    file: str
    code: int
    seconds: float
    fault: str


def run_case(base: str, seed: int, number: int) -> Outcome:
    """One case, in this process."""
    random = np.random.default_rng([seed, number])
    root = pathlib.Path(base)
    known = cases.kinds(root)
    shares = np.array([kind.share for kind in known.values()])
    name = list(known)[random.choice(len(shares), p=shares / shares.sum())]
    kind = known[name]
    original = cases.choose(kind, root, random)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hostile") as temporary:
        folder = pathlib.Path(temporary)
        path = place(root, kind, original, folder)
        path.write_bytes(mutated(original.read_bytes(), original.suffix, random))
        code, fault = observe(kind, path, folder)
    seconds = time.perf_counter() - begin
    if not fault and seconds > SECONDS:
        fault = f"took {seconds:.0f} s"
    return Outcome(name, original.name, code, seconds, fault)


def place(
    root: pathlib.Path, kind: cases.Kind, original: pathlib.Path, folder: pathlib.Path
) -> pathlib.Path:
    """Where the changed file lies: alone, or in a copy of the folder it belongs to."""
    inside = original.relative_to(root / kind.files)
    if kind.files in ("bundle", "runs", "data"):
        shutil.copytree(root / kind.files, folder / kind.files)
    else:
        (folder / kind.files).mkdir()
    return folder / kind.files / inside


def observe(
    kind: cases.Kind, path: pathlib.Path, folder: pathlib.Path
) -> tuple[int, str]:
    """(exit code, fault)."""
    out = folder / "out"
    out.mkdir()
    command = kind.arguments(path, out)
    before = inputs(kind, folder)
    memory = peak()
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    try:
        code, text, error = call(command, out)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if error:
        return code, error
    if inputs(kind, folder) != before:
        return code, "an input was changed"
    if peak() - memory > MEBIBYTES:
        return code, f"took {peak() - memory} MiB more"
    made = sorted(p.name for p in out.iterdir())
    if code not in (0, 2):
        return code, f"exit code {code}"
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    strange = [
        line
        for line in lines
        if not line.startswith(GOES_ON) and not PROGRESS.search(line)
    ]
    if strange:
        return code, f"said {strange[0][:200]}"
    if code == 2:
        if len(errors) != 1 and kind.files != "lists":
            return code, f"{len(errors)} lines of error"
        return code, f"left {made}" if made and kind.files != "lists" else ""
    if errors:
        return code, "error, but exit code 0"
    if kind.files != "lists" and made != sorted(kind.written):
        return code, f"wrote {made}"
    return code, wrong(out / "out.mp4") if "out.mp4" in kind.written else ""


def inputs(kind: cases.Kind, folder: pathlib.Path) -> dict[str, bytes]:
    """What was given to read; locks may come into it."""
    found = cases.contents(folder / kind.files)
    return {n: data for n, data in found.items() if pathlib.Path(n).name != ".lock"}


def wrong(path: pathlib.Path) -> str:
    """What is wrong with a video, or ""."""
    from input_pipeline.media.video import read_frames

    if not path.is_file():  # a list that named another one
        return ""
    shapes = {frame.shape for frame in read_frames(path)}
    return "" if len(shapes) == 1 else f"frames of {shapes}"


@contextlib.contextmanager
def no_assistant():
    """In place of workers.assistant: a process more for every case would take most of
    the time, and changes nothing in what is read."""
    yield functools.partial


def call(command, out: pathlib.Path) -> tuple[int, str, str]:
    """(exit code, what was said on standard error, traceback or "")."""
    from input_pipeline import workers
    from jax_atvg.cli import app

    before = workers.assistant, os.getcwd()
    workers.assistant = no_assistant
    os.chdir(out)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        with redirected(said):
            try:
                code = (
                    command() or 0 if callable(command) else app.main(["x", *command])
                )
                error = ""
            except BaseException:
                code, error = 1, traceback.format_exc()[-900:]
        workers.assistant = before[0]
        os.chdir(before[1])
        said.seek(0)
        return code, said.read(), error


@contextlib.contextmanager
def redirected(file):
    """Standard output is dropped, standard error goes to the file, also of C code."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, saved in enumerate(kept, 1):
                os.dup2(saved, number)
                os.close(saved)


def peak() -> int:
    """The most memory that this process has held so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(numbers, seed: int, workers: int, base: pathlib.Path) -> list[Outcome]:
    """All cases, in processes of their own."""
    work = functools.partial(run_case, str(base), seed)
    outcomes = []
    for number, outcome in for_each(work, numbers, workers):
        if isinstance(outcome, Died):
            outcome = Outcome("process", str(number), 1, 0.0, "the process died")
        outcomes.append(outcome)
        if outcome.fault:
            text = " ".join(outcome.fault.split())[-400:]
            print(f"case {number}: {outcome.kind} {outcome.file}: {text}", flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Markdown, a line a kind."""
    lines = ["| kind | cases | right result | one line | faults | longest |"]
    lines.append("|---|---|---|---|---|---|")
    by_kind = collections.defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    for name, some in [*sorted(by_kind.items()), ("all", outcomes)]:
        faults = sum(bool(one.fault) for one in some)
        good = sum(one.code == 0 and not one.fault for one in some)
        longest = max((one.seconds for one in some), default=0)
        refused = len(some) - good - faults
        counts = f"{len(some)} | {good} | {refused} | {faults}"
        lines.append(f"| {name} | {counts} | {longest:.1f} s |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="one case, in this process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile") as temporary:
        base = pathlib.Path(temporary) / "base"
        cases.build(base)
        if options.only is not None:
            print(run_case(str(base), options.seed, options.only))
            return 0
        outcomes = run(range(options.cases), options.seed, options.workers, base)
    print(table(outcomes))
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
