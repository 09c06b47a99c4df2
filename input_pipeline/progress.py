"""Shows the progress of a long job: a bar on a terminal, plain lines in a log file.

    with Progress(len(items), "clip") as progress:
        for item in items:
            ...
            progress.update()

Everything goes to standard error.  If that is not a terminal (a log file, SLURM), one
plain line is written every LINE_EVERY seconds instead of a bar.
"""

import contextlib
import sys
import time
from typing import Any

LINE_EVERY = 10.0  # seconds between two lines of a log


class Progress(contextlib.AbstractContextManager):
    """A progress display; `update` is called whenever a unit of work is done.

    total, initial: units of the whole job, and units done already.  unit: its name in
    the singular, as "step".  name: of the job.  active: if False, nothing is printed.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        name: str = "",
        initial: int = 0,
        active: bool = True,
    ):
        self.total, self.unit, self.name = total, unit, printable(name)
        self.done, self.counted = initial, None
        self.active, self.bar, self.shown = active, None, {}
        self.began = self.lined = time.monotonic()
        self.printed = None  # what the last line said
        if active and sys.stderr.isatty():
            import tqdm

            self.bar = tqdm.tqdm(
                total=total, initial=initial, unit=unit, desc=self.name or None
            )

    def update(self, count: int = 1) -> None:
        """Counts `count` more units as done."""
        self.done += count
        if self.counted is None:  # the first one may have compiled a program
            self.counted, self.began = self.done, time.monotonic()
        if self.bar is not None:
            self.bar.update(count)
        elif self.active and time.monotonic() - self.lined >= LINE_EVERY:
            self._line()

    def show(self, **values: Any) -> None:
        """Sets the values shown beside the speed from now on, as loss="0.12"."""
        self.shown = values
        if self.bar is not None:
            self.bar.set_postfix(values, refresh=False)

    def say(self, text: str) -> None:
        """Prints a line of text, without damaging the bar if there is one."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        elif self.active:
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.active and self.printed != (self.done, self.shown):
            self._line()

    def _line(self) -> None:
        self.lined = now = time.monotonic()
        self.printed = self.done, self.shown
        since = self.done if self.counted is None else self.counted
        pace = (self.done - since) / max(now - self.began, 1e-9)
        parts = [f"{self.done} of {self.total} {self.unit}s"]
        if pace > 0:
            parts.append(f"{pace:.3g} {self.unit}s/s")
        if pace > 0 and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / pace)} left")
        parts += [f"{name} {value}" for name, value in self.shown.items()]
        name = f"{self.name}: " if self.name else ""
        print(name + ", ".join(parts), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text in one line: names of files may hold characters that end a line, or
    that cannot be printed."""
    return "".join(c if c.isprintable() else " " for c in text)


def duration(seconds: float) -> str:
    """Seconds -> text: "45 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
