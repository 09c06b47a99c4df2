"""Ends `prepare`, `train` and `export` by kill -9 at random moments, and goes on.

    python -m tests.hostile.kills --kills=100 --seed=0

The property: after each kill, all that was finished is there and whole; started again,
the command ends in the same bytes as one that nothing has disturbed.  Half of the kills
come at a random moment of the command's time, half just as a file appears or goes.
Half of them end all processes of the command, half the first one alone.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.hostile import cases

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 900.0  # seconds; a command that takes longer hangs
IN_A_ROW = 3  # kills before a command is left to end


class Command(NamedTuple):
    """arguments: (files that `build` made, folder of the case) -> the command line.
    prepared: what is in the folder before the first start.  result: what must be the
    same in the end.  kept: what is finished already and must not go, None: all is.
    compiles: whether it does, so that its first start takes longer.  check: looks at
    what is there after a kill."""

    arguments: Callable[[pathlib.Path, pathlib.Path], list[str]]
    result: Callable[[pathlib.Path], dict]
    kept: Callable[[pathlib.Path], set | None]
    compiles: bool = True
    prepared: Callable[[pathlib.Path, pathlib.Path], None] = lambda base, folder: None
    check: Callable[[pathlib.Path, pathlib.Path], None] = lambda base, folder: None


class Fault(Exception):
    """Something was lost, or is another than it should be."""


def build(base: pathlib.Path) -> None:
    """Videos of a face, a dataset, two runs, and a bundle of an earlier day."""
    (base / "videos").mkdir(parents=True)
    cases.videos(base)
    cases.runs_and_data(base)
    (base / "earlier").mkdir()
    (base / "earlier" / "bundle.json").write_text("{}")


# --- prepare ---


def prepare_command(base: pathlib.Path, folder: pathlib.Path) -> list[str]:
    source = ["--corpus=folder", f"--source={base / 'videos'}", "--workers=2"]
    return ["prepare", *source, f"--data_dir={folder / 'data'}"]


def dataset(folder: pathlib.Path) -> dict[str, bytes]:
    return cases.contents(folder / "data") if (folder / "data").exists() else {}


def finished_videos(folder: pathlib.Path) -> set | None:
    """Those whose clips need not be found again, and when they were written: none is
    done twice."""
    made = list((folder / "data").rglob("dataset_info.json"))
    if any("staging" not in path.parts for path in made):
        return None
    done = (folder / "data").rglob("work/clips/*/*.zip")
    return {(p.name, p.stat().st_mtime_ns) for p in done if "partial" not in p.name}


# --- train ---

STEPS, SAVE_EVERY = 12, 2


def train_command(network: str, base: pathlib.Path, folder: pathlib.Path) -> list[str]:
    return [
        "train",
        f"--config=configs/smoke.py:{network}",
        f"--workdir={folder / 'run'}",
        f"--data_dir={base / 'data'}",
        f"--config.steps={STEPS}",
        f"--config.save_every={SAVE_EVERY}",
        "--config.data.synthetic=0",
        "--config.report_to=jsonl",
    ]


def saved(folder: pathlib.Path) -> set[int]:
    """Steps up to the newest checkpoint that is whole."""
    found = [
        int(p.name)
        for p in (folder / "run" / "checkpoints").glob("[0-9]*")
        if p.name.isdigit()
    ]
    return set(range(max(found, default=-1) + 1))


def trained(folder: pathlib.Path) -> dict:
    """The state's checksums, every step's losses, what the folder says of the run."""
    run = folder / "run"
    last = run / "checkpoints" / str(STEPS) / "data" / "metadata"
    steps = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        losses = {
            name: value
            for name, value in values.items()
            if "/" in name and not name.startswith("pace")
        }
        key = values["step"], *sorted(losses)
        if key in steps:
            raise Fault(f"metrics.jsonl tells of {key} twice")
        steps[key] = losses
    read = {name: (run / name).read_bytes() for name in ("config.json", "data.json")}
    return {"state": json.loads(last.read_text()), "losses": steps} | read


# --- export ---


def export_command(base: pathlib.Path, folder: pathlib.Path) -> list[str]:
    runs = [f"--{name}={base / 'runs' / name}" for name in ("at", "vg")]
    return ["export", *runs, f"--out={folder / 'bundle'}"]


def with_earlier_bundle(base: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(base / "earlier", folder / "bundle")


def bundle(folder: pathlib.Path) -> dict:
    """Everything but the arrays' files, which have names by chance; bundle.json has
    the checksum of what is in them, and it is compared here."""
    from jax_atvg.inference.bundle import load_bundle

    load_bundle(folder / "bundle")
    whole = cases.contents(folder / "bundle")
    return {name: data for name, data in whole.items() if "arrays/" not in name}


def check_bundle(base: pathlib.Path, folder: pathlib.Path) -> None:
    """The earlier one whole, perhaps moved aside, or the new one whole."""
    earlier = cases.contents(base / "earlier")
    if (folder / "bundle").exists() and cases.contents(folder / "bundle") != earlier:
        bundle(folder)
    elif not any(cases.contents(path) == earlier for path in folder.iterdir()):
        raise Fault("the earlier bundle is gone, and there is no new one")


COMMANDS = {
    "prepare": Command(prepare_command, dataset, finished_videos, compiles=False),
    "train at": Command(functools.partial(train_command, "at"), trained, saved),
    "train vg": Command(functools.partial(train_command, "vg"), trained, saved),
    "export": Command(
        export_command,
        bundle,
        lambda folder: set(),
        prepared=with_earlier_bundle,
        check=check_bundle,
    ),
}


# --- the kills ---


class Undisturbed(NamedTuple):
    """begin, end: seconds until the first file appears, and until the end.  changes:
    how often files appeared or went.  result: see Command."""

    begin: float
    end: float
    changes: int
    result: dict


class Outcome(NamedTuple):
    command: str
    kills: int
    fault: str


def start(command: Command, base: pathlib.Path, folder: pathlib.Path):
    """The process; its output goes to a file, as nobody reads it meanwhile."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUM_CPU_DEVICES": "1",
    }
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen(
            [sys.executable, "main.py", *command.arguments(base, folder)],
            cwd=ROOT,
            env=os.environ | cache,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def names(folder: pathlib.Path) -> frozenset[str]:
    found = set()
    for path, folders, some in os.walk(folder):
        found |= {os.path.join(path, name) for name in (*folders, *some)}
    return frozenset(found)


def changes(process, folder: pathlib.Path) -> Iterable[float]:
    """Yields the time at which files have appeared or gone, until the process ends."""
    before, began = names(folder), time.monotonic()
    while process.poll() is None:
        if (now := names(folder)) != before:
            before = now
            yield time.monotonic() - began
        elif time.monotonic() - began > LIMIT:
            os.killpg(process.pid, signal.SIGKILL)
            raise Fault("it hangs")
        time.sleep(0.001)


def undisturbed(command: Command, base, folder: pathlib.Path) -> Undisturbed:
    """Twice where the first time everything is compiled."""
    for trial in ("first", "second")[not command.compiles :]:
        here = folder.with_name(f"{folder.name} {trial}")
        here.mkdir()
        command.prepared(base, here)
        began = time.monotonic()
        process = start(command, base, here)
        times = list(changes(process, here))
        end = time.monotonic() - began
        if process.returncode:
            raise Fault(here.with_suffix(".log").read_text()[-2000:])
    return Undisturbed(min(times), end, len(times), command.result(here))


def kill(process, folder: pathlib.Path, whole: Undisturbed, rng: random.Random) -> bool:
    """Whether it came before the process had ended."""
    everything = rng.random() < 0.5
    if rng.random() < 0.5:
        moment = rng.uniform(0.7 * whole.begin, whole.end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
    else:
        number = rng.randrange(whole.changes)
        for at, _ in enumerate(changes(process, folder)):
            if at == number:
                break
    if process.poll() is not None:
        return False
    if everything:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return True


def run_case(
    name: str, whole: Undisturbed, base: pathlib.Path, seed: int, case: int, limit: int
) -> Outcome:
    """One folder: up to `limit` kills, then the end."""
    command, rng = COMMANDS[name], random.Random(f"{name} {seed} {case}")
    kills = 0
    with tempfile.TemporaryDirectory(prefix="kills") as temporary:
        folder = pathlib.Path(temporary) / "case"
        folder.mkdir()
        command.prepared(base, folder)
        kept, process = command.kept(folder), None
        try:
            while True:
                process = start(command, base, folder)
                if kills == limit or not kill(process, folder, whole, rng):
                    break
                kills += 1
                command.check(base, folder)
                now = command.kept(folder)
                if gone := set() if now is None else (kept or set()) - now:
                    raise Fault(f"{sorted(gone)} are gone after kill {kills}")
                kept = now
            if process.wait(LIMIT):
                raise Fault(f"exit code {process.returncode}")
            result = command.result(folder)
            if other := [k for k in whole.result if result.get(k) != whole.result[k]]:
                raise Fault(f"{other} differ after {kills} kills")
            if more := result.keys() - whole.result.keys():
                raise Fault(f"{sorted(more)} are left over after {kills} kills")
        except (Fault, OSError, ValueError, subprocess.TimeoutExpired) as error:
            log = folder.with_suffix(".log")
            said = log.read_text()[-1500:] if log.exists() else ""
            return Outcome(name, kills, f"{error}\n{said}")
        finally:
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Outcome(name, kills, "")


def run_command(name: str, count: int, base: pathlib.Path, seed: int) -> list[Outcome]:
    """Cases until there were `count` kills."""
    whole = undisturbed(COMMANDS[name], base, base / f"whole {name}")
    outcomes, left = [], count
    while left > 0 and len(outcomes) < 4 * count:  # some end before they are killed
        case = len(outcomes)
        outcome = run_case(name, whole, base, seed, case, min(IN_A_ROW, left))
        outcomes.append(outcome)
        left -= max(outcome.kills, 1 if outcome.fault else 0)
        if outcome.fault:
            print(f"{name}, case {case}: {outcome.fault}", flush=True)
    return outcomes


def run(kills: int, seed: int, workers: int, base: pathlib.Path) -> list[Outcome]:
    """kills: of all commands together."""
    count = -(-kills // len(COMMANDS))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        some = [pool.submit(run_command, name, count, base, seed) for name in COMMANDS]
        return [outcome for future in some for outcome in future.result()]


def table(outcomes: list[Outcome]) -> str:
    """Markdown, a line a command."""
    lines = [
        "| command | kills | ended in the same bytes | faults |",
        "|---|---|---|---|",
    ]
    for name in COMMANDS:
        some = [one for one in outcomes if one.command == name]
        faults = sum(bool(one.fault) for one in some)
        kills = sum(one.kills for one in some)
        lines.append(f"| {name} | {kills} | {len(some) - faults} | {faults} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills") as temporary:
        base = pathlib.Path(temporary) / "base"
        build(base)
        outcomes = run(options.kills, options.seed, options.workers, base)
    print(table(outcomes))
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
