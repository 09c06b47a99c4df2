"""What benchmarks/accelerator.py measured: printed and kept line by line."""

import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import measuring

TOGETHER = "back to back"
# (part, figure, precision) -> (the authors', before), see accelerator.py.
ON_H100 = {
    ("matmul", TOGETHER, "highest"): ("51", "50"),
    ("matmul", TOGETHER, "default"): ("378", "356"),
    ("matmul", TOGETHER, "bfloat16"): ("783", "623"),
    ("gan_bfloat16", TOGETHER, "bfloat16"): ("497 (autocast)", "28.8"),
    ("gan_bfloat16", "compiling", "bfloat16"): ("", "85 (with lowering)"),
    ("gan_default", TOGETHER, "default"): ("375 (float32: 417)", ""),
    ("vg_net", TOGETHER, "default"): ("232 (float32: 257)", "8,796"),
    ("vg_net", TOGETHER, "bfloat16"): ("319 (autocast)", "15,890"),
}
COLUMNS = {  # heading: (key of a line, format)
    name: (name, "")
    for name in ("part", "precision", "what", "figure", "unit", "authors", "before")
}


class Row(NamedTuple):  # one measured figure
    what: str
    figure: float
    unit: str
    precision: str = ""


Rows = Iterator[Row]


def line(part: str, row: Row, small: bool) -> dict[str, str]:
    """A row as a line of the table: "15,890", "28.8", "0.000123"."""
    beside = () if small else ON_H100.get((part, row.what, row.precision), ())
    digits = ",.0f" if abs(row.figure) >= 1000 else ".3g"
    texts = part, row.precision, row.what, format(row.figure, digits), row.unit
    return dict(zip(COLUMNS, (*texts, *beside), strict=False))


class Report:
    """What was measured, printed and written to a file line by line."""

    def __init__(self, out: pathlib.Path, small: bool, about: dict[str, Any]):
        self.out, self.small, self.began = out, small, time.perf_counter()
        self.found = {"machine": about, "small": small, "rows": [], "left_out": {}}
        self.lines, self.failed = [], False
        self.writing = threading.RLock()  # the end may come in the middle of a line

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def measured(self, part: str, row: Row) -> None:
        with self.writing:
            self.found["rows"].append({"part": part} | row._asdict())
            self._keep(line(part, row, self.small))

    def left_out(self, part: str, reason: str) -> None:
        with self.writing:
            self.found["left_out"][part] = reason
            self._keep({"part": part, "what": reason})

    def _keep(self, one: dict[str, str]) -> None:
        self.lines.append(dict.fromkeys(COLUMNS, "") | one)
        text = measuring.table(self.lines[-1:], COLUMNS).splitlines()[-1]
        print(text, flush=True)
        self.found["seconds"] = self.seconds()
        self.out.write_text(json.dumps(self.found, indent=1) + "\n")

    def end(self) -> int:
        """Prints the table; returns the exit code: 1 if a part failed."""
        with self.writing:
            print(measuring.table(self.lines, COLUMNS), flush=True)
        return 1 if self.failed else 0

    def cut_off(self, parts: list[str]) -> None:
        """Ends the process, with the table.  parts: those to come, and the present."""
        with self.writing:
            for part in parts:
                self.left_out(part, f"cut off after {self.seconds():.0f} s")
            for worker in multiprocessing.active_children():
                worker.kill()  # it would hold the output open
            os._exit(self.end())
