"""What a run says of itself: metrics.jsonl and TensorBoard event files."""

import json
import os
import tempfile
import time
from collections.abc import Mapping

import numpy as np
from etils import epath

LINES = "metrics.jsonl"


def in_store(path: str | os.PathLike) -> bool:
    """Whether it is no folder here, but an address, as gs://bucket/run."""
    return "://" in str(path)


class Reporter:
    """Writes into the workdir; in every process but the first, nothing."""

    def __init__(self, workdir: epath.Path, active: bool):
        self.active = active
        if active:
            from tensorboardX import SummaryWriter

            self.store = workdir if in_store(workdir) else None
            if self.store:  # its files cannot be appended to: they are written here
                self.temporary = tempfile.TemporaryDirectory()
                workdir = epath.Path(self.temporary.name)
                if (earlier := self.store / LINES).exists():
                    earlier.copy(workdir / LINES)
            self.folder = workdir
            self.events = SummaryWriter(str(workdir / "events"))
            self.lines = (workdir / LINES).open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON, and a curve each in TensorBoard."""
        if not self.active:
            return
        line = {"step": step, "time": round(time.time(), 3), **values}
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """picture: u8[H,W,3]."""
        if self.active:
            self.events.add_image(name, picture, step, dataformats="HWC")

    def publish(self) -> None:
        """What was written so far is in the workdir, also where that is in a store."""
        if not self.active or not self.store:
            return
        self.events.flush()
        for path in [self.folder / LINES, *(self.folder / "events").iterdir()]:
            there = self.store / path.relative_to(self.folder)
            there.parent.mkdir(parents=True, exist_ok=True)
            path.copy(there, overwrite=True)

    def close(self) -> None:
        if not self.active:
            return
        self.events.close()
        self.lines.close()
        if self.store:
            self.publish()
            self.temporary.cleanup()
