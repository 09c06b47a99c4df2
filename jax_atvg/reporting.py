"""What a run says of itself: metrics.jsonl and TensorBoard event files."""

import json
import pathlib
import time
from collections.abc import Mapping

import numpy as np


class Reporter:
    """Writes into the workdir; in every process but the first, nothing."""

    def __init__(self, workdir: pathlib.Path, active: bool):
        self.active = active
        if active:
            from tensorboardX import SummaryWriter

            self.events = SummaryWriter(str(workdir / "events"))
            self.lines = (workdir / "metrics.jsonl").open("a", encoding="utf-8")

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

    def close(self) -> None:
        if self.active:
            self.events.close()
            self.lines.close()
