"""The losses of steps under way, and how fast the steps are."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from input_pipeline.clip import InputError

IN_FLIGHT = 2  # steps that may be under way at once
DIVERGED = (
    "lower the learning rate or clip gradients (config.optimizer) and train in another "
    "--workdir; checkpoints of this one were saved before that"
)


class Pending:
    """The losses of steps whose values are not fetched yet, so that further steps can
    start meanwhile; and the pace.

    batch_size: clips a step.  device: one of those that compute.  peak: operations a
    second of all of them; None: not known.
    """

    def __init__(self, batch_size: int, device: Any, peak: float | None = None):
        self.batch_size, self.device, self.peak = batch_size, device, peak
        self.waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._begin()

    def _begin(self) -> None:
        self.values, self.steps, self.flops, self.data_seconds = {}, 0, 0, 0.0
        self.since = time.perf_counter()

    @contextlib.contextmanager
    def data(self) -> Iterator[None]:
        """Measures the wait for a batch, if by its end no step was running any more."""
        begin = time.perf_counter()
        yield
        newest = [loss for _, losses in self.waiting[-1:] for loss in losses.values()]
        if all(loss.is_ready() for loss in newest):
            self.data_seconds += time.perf_counter() - begin

    def add(self, step: int, losses: dict[str, jax.Array], flops: int = 0) -> None:
        """A step has been started, of so many operations on all devices."""
        self.waiting.append((step, losses))
        self.flops += flops
        if len(self.waiting) > IN_FLIGHT:
            jax.block_until_ready(self.waiting[-1 - IN_FLIGHT][1])

    def fetch(self) -> None:
        """InputError: a loss is not finite; names the first such step and term."""
        for step, losses in jax.device_get(self.waiting):
            self.steps += 1
            for name, value in losses.items():
                if not np.isfinite(value):
                    raise InputError(f"{name} is {value} at step {step}; {DIVERGED}")
                self.values.setdefault(name, []).append(float(value))
        self.waiting.clear()

    def report(self) -> dict[str, float]:
        """Since the last report: the means of the losses, the pace, the share of the
        time in which no step was under way, for want of a batch, and, where the peak is
        known, MFU, the operations over those of the peak; and the device's memory.
        InputError: see fetch."""
        self.fetch()
        seconds = time.perf_counter() - self.since
        pace = {
            "steps_per_second": self.steps / seconds,
            "clips_per_second": self.steps / seconds * self.batch_size,
            "waiting_for_data": self.data_seconds / seconds,
        }
        if self.peak:
            pace["mfu"] = self.flops / seconds / self.peak
        pace |= device_memory(self.device)
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        self._begin()
        return means | {f"pace/{name}": value for name, value in pace.items()}


def device_memory(device: Any) -> dict[str, float]:
    """The most memory of the device that was in use so far, MiB; nothing where the
    platform does not say it, as on a CPU."""
    found = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {} if found is None else {"device_memory": found / 2**20}


def short(report: dict[str, float]) -> dict[str, str]:
    """The few values that are shown beside the progress bar, which has the pace."""
    shown = [name for name in report if name.endswith("loss") or "pixel" in name]
    return {name: f"{report[name]:.4g}" for name in shown}
