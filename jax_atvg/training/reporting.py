"""Where a training run tells how it goes: files, TensorBoard, Weights & Biases.

The config's report_to names which of REPORTERS a run uses; whoever calls train from
Python may give others, which need to be no more than a Reporter.
"""

import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath
from jaxtyping import UInt8

from input_pipeline.clip import InputError
from input_pipeline.files import in_store, replacing

LINES = "metrics.jsonl"
RUN_ID = "wandb_id.txt"


@runtime_checkable
class Reporter(Protocol):
    """What is told of a run, in its first process alone.

    Steps do not decrease; a run that goes on tells the steps since its last checkpoint
    again.
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers as they are after `step` steps, named "net/term"."""

    def picture(
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        """A picture, RGB."""

    def publish(self) -> None:
        """What was told so far is to be where others see it: a checkpoint is saved."""

    def close(self) -> None:
        """The run ends, or stops with an exception."""


class Folder:
    """Where a reporter writes files that grow.

    here: the workdir; for one in a store, whose files cannot be appended to, it is a
    temporary folder, from which publish copies everything.
    """

    def __init__(self, workdir: epath.Path):
        self.here, self.temporary, self.workdir = workdir, None, workdir
        if in_store(workdir):
            self.temporary = tempfile.TemporaryDirectory()
            self.here = epath.Path(self.temporary.name)

    def publish(self) -> None:
        if self.temporary is None:
            return
        for folder, _, names in os.walk(self.here):
            for name in names:
                path = epath.Path(folder) / name
                there = self.workdir / path.relative_to(self.here)
                there.parent.mkdir(parents=True, exist_ok=True)
                path.copy(there, overwrite=True)

    def close(self) -> None:
        if self.temporary is not None:
            with self.temporary:
                self.publish()


class JsonLines:
    """workdir/metrics.jsonl: a line a report.  The best checkpoint is chosen by it.

    What a run told before of steps that it does again is taken out, so that no step is
    told of twice.
    """

    def __init__(self, workdir: epath.Path, done: int, config: Mapping[str, Any]):
        self.folder = Folder(workdir)
        path, earlier = self.folder.here / LINES, workdir / LINES
        if in_store(workdir) and earlier.exists():
            earlier.copy(path)
        before = path.read_bytes() if path.is_file() else b""
        kept = (x for x in lines_in(before) if (step_of(x) or 0) <= done)
        text = "".join(f"{line}\n" for line in kept)
        # A line that was cut off ends here, else the next one would be lost, too.
        if before != text.encode():
            with replacing(path) as partial:
                partial.write_text(text, encoding="utf-8")
        self.lines = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step, "time": round(time.time(), 3), **values}
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()

    def picture(
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        """A line of text shows none."""

    def publish(self) -> None:
        self.folder.publish()

    def close(self) -> None:
        self.lines.close()
        self.folder.close()


def lines_of(path: epath.Path) -> list[str]:
    """The lines of a metrics.jsonl; none if there is no file."""
    return lines_in(path.read_bytes()) if path.is_file() else []


def lines_in(data: bytes) -> list[str]:
    """A machine that stopped, or a damaged disk, may have left anything in a file."""
    return data.decode("utf-8", "replace").splitlines()


def last_step(path: epath.Path) -> int:
    """The last step that a run has told of in its metrics.jsonl; 0: none."""
    steps = map(step_of, reversed(lines_of(path)))
    return next((step for step in steps if step is not None), 0)


def step_of(line: str) -> int | None:
    """The step that a line of metrics.jsonl tells of; None: it is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


class TensorBoard:
    """workdir/events: curves and pictures for `tensorboard --logdir=workdir`.

    A run that goes on hides what it told before of the steps that it does again.
    """

    def __init__(self, workdir: epath.Path, done: int, config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        self.folder = Folder(workdir)
        events = str(self.folder.here / "events")
        self.events = SummaryWriter(events, purge_step=done + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def picture(
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        self.events.add_image(name, picture, step, dataformats="HWC")

    def publish(self) -> None:
        self.events.flush()
        self.folder.publish()

    def close(self) -> None:
        self.events.close()
        self.folder.close()


class WandB:
    """A run of the Weights & Biases project "jax_atvg", named like the workdir.

    Its variables decide the rest: WANDB_MODE=offline sends nothing, but keeps it for
    `wandb sync`; WANDB_PROJECT and WANDB_ENTITY choose where it goes.  Its files are in
    workdir/wandb; for a workdir in a store they are where wandb has them by itself,
    since it can read no store.  The run's id is kept in the workdir, so that a run that
    goes on there continues it.
    """

    def __init__(self, workdir: epath.Path, done: int, config: Mapping[str, Any]):
        check_installed(["wandb"])
        import wandb

        self.image = wandb.Image
        self.handled = sys.exc_info()[1]  # by the caller, and no failure of this run
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "jax_atvg",
                name=workdir.name,
                id=run_id(workdir / RUN_ID),
                dir=None if in_store(workdir) else str(workdir),
                config=dict(config),
                resume="allow",
                reinit="create_new",  # beside a run of the caller's own
            )
        except wandb.Error as error:
            raise InputError(
                f"config.report_to: Weights & Biases: {error}; run `wandb login`, or "
                "set WANDB_MODE=offline"
            ) from error
        # Its own count of steps refuses those that are told again.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def picture(
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        self.run.log({"step": step, name: self.image(picture)})

    def publish(self) -> None:
        """wandb sends everything by itself."""

    def close(self) -> None:
        """Marks the run as failed while an exception is on its way."""
        self.run.finish(exit_code=int(sys.exc_info()[1] is not self.handled))


def run_id(path: epath.Path) -> str:
    """What the file says, which is written when there is none."""
    if not path.exists():
        with replacing(path) as unfinished:
            unfinished.write_text(secrets.token_hex(8))
    return path.read_text()


# (workdir, steps done, flat config) -> Reporter
REPORTERS = {"jsonl": JsonLines, "tensorboard": TensorBoard, "wandb": WandB}


def check_installed(names: Iterable[str]) -> None:
    """InputError: a package is missing.  For every process, so that all end alike."""
    if "wandb" in names:
        try:  # a folder that is named wandb can be imported, too, but has no init
            from wandb import init  # noqa: F401
        except ImportError as error:
            raise InputError(
                "config.report_to: wandb is not installed; run `pip install wandb`, or "
                "leave it out"
            ) from error


class Reporters:
    """Several reporters as one: each is told everything, in their order."""

    def __init__(self, reporters: Sequence[Reporter] = ()):
        self.reporters = tuple(reporters)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for reporter in self.reporters:
            reporter.scalars(step, values)

    def picture(
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        for reporter in self.reporters:
            reporter.picture(step, name, picture)

    def publish(self) -> None:
        for reporter in self.reporters:
            reporter.publish()

    def close(self) -> None:
        """Closes every one, also where another one's closing fails."""
        with contextlib.ExitStack() as stack:
            for reporter in self.reporters:
                stack.callback(reporter.close)


@contextlib.contextmanager
def open_reporters(
    names: Sequence[str],
    workdir: epath.Path,
    done: int,
    config: Mapping[str, Any],
    others: Sequence[Reporter] = (),
) -> Iterator[Reporters]:
    """REPORTERS of these names, and others that exist, as one; closed at the end.

    done: steps that the run has done.  config: flat.  InputError: see each.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(Reporters(others).close)
        opened = []
        for name in names:
            opened.append(REPORTERS[name](workdir, done, config))
            stack.callback(opened[-1].close)
        yield Reporters([*opened, *others])
