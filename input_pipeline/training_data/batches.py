"""Iterates over one process's rows of the global batches, with grain; resumable.

Of n processes, process i gets the i-th of n equal blocks of rows, so that the blocks in
order are the global batch, whatever n is.
"""

import pathlib
import shutil
import signal
import warnings
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from absl import flags

from input_pipeline.clip import InputError
from input_pipeline.workers import blocked, cores, end_with_parent

FEWEST_CORES = 4  # on fewer, workers only take time from the training process
MOST_WORKERS = 15  # for a device
SHARED = pathlib.Path("/dev/shm")  # Linux's shared memory, where workers put batches
HELD = 3  # batches that a worker holds there at most
IGNORED = (signal.SIGINT, signal.SIGTERM)  # by workers
KILLED = "Worker process was terminated unexpectedly"  # as grain says it


class Batches(grain.DatasetIterator):
    """An iterator over batches; its state is the number of batches it has yielded.

    get_state() -> {"next_batch": n, and a description of the data}: a small dict for
    JSON, which orbax saves with grain.checkpoint.CheckpointSave(iterator).  It is valid
    for any number of processes, threads and workers.  set_state() reads no data yet;
    the next batch, or start_prefetch(), does.  close() ends the threads and workers.
    """

    def __init__(self, open_at: Callable[[int], grain.IterDataset], data: dict):
        super().__init__()
        self._open_at, self._data = open_at, data
        self._next_batch, self._running = 0, None

    def __next__(self) -> Any:
        """The next batch.  InputError: a clip cannot be read, and the message names it;
        or a worker was killed."""
        self.start_prefetch()
        try:
            batch = next(self._running)
        except BaseException as error:
            self._stop()  # the next call starts again at this batch
            if isinstance(error, RuntimeError) and KILLED in str(error):
                raise InputError(
                    "config.data.num_workers: one of these processes was killed, "
                    "perhaps for lack of memory or of room in /dev/shm (containers: "
                    "--shm-size=8g); take fewer"
                ) from error
            raise
        self._next_batch += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        return {"next_batch": self._next_batch, **self._data}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state of get_state.  InputError: it is of other data."""
        wrong = [k for k, v in self._data.items() if in_use(state.get(k)) != in_use(v)]
        if wrong or "next_batch" not in state:
            saved = " ".join(f"{k}={state.get(k)}" for k in wrong or ["next_batch"])
            ours = " ".join(f"{k}={self._data[k]}" for k in wrong)
            raise InputError(
                f"the saved state is of {saved}, this loader of {ours or 'batches'}; "
                "go on with the same data and settings, or start a new run"
            )
        self._stop()
        self._next_batch = state["next_batch"]

    def start_prefetch(self) -> None:
        self._assert_not_closed()
        if self._running is None:
            # grain's thread starts the workers, which need seconds to _start_worker.
            with blocked(*IGNORED):
                self._running = iter(self._open_at(self._next_batch))
                self._running.start_prefetch()

    def close(self) -> None:
        self._stop()
        super().close()

    def _stop(self) -> None:
        running, self._running = getattr(self, "_running", None), None
        if running is not None:
            running.close()


def in_use(setting: Any) -> Any:
    """The setting; of a dict, what is not zero: other versions have other zeros."""
    if not isinstance(setting, dict):
        return setting
    return {name: value for name, value in setting.items() if value} or None


def pipeline(
    example: Callable[[int], Any],
    first: int,
    last: int,
    rows: range,
    batch_size: int,
    num_threads: int,
    num_workers: int = 0,
    place: Callable[[Any], Any] | None = None,
) -> grain.IterDataset:
    """Batches first .. last-1, with these rows of each.

    example: position in the global order -> example.  Without workers, num_threads
    threads make the examples, a batch ahead.  Of n workers each makes whole batches,
    every n-th one: so their number does not change the batches.
    place: what is done with every batch, as moving it to a device.  That, and joining
    the examples, is the work of one more thread, which is two batches ahead.
    """

    def local_example(batch: int, row: int) -> Any:
        return example(batch * batch_size + rows[row])

    def local_batch(batch: int) -> Any:
        return stack([local_example(batch, row) for row in range(len(rows))])

    if num_workers:
        # grain reads absl's flags when it starts workers, whoever's program this is.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        whole = grain.MapDataset.range(first, last).map(local_batch)
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1)
        dataset = whole.to_iter_dataset(grain.ReadOptions(1, 1))
        dataset = dataset.mp_prefetch(workers, _start_worker).map(copied)
    else:
        ahead = grain.ReadOptions(num_threads, max(len(rows), num_threads))
        positions = grain.MapDataset.range(first * len(rows), last * len(rows))
        examples = positions.map(lambda p: local_example(*divmod(p, len(rows))))
        dataset = examples.to_iter_dataset(ahead).batch(len(rows), batch_fn=stack)
    if place:
        dataset = dataset.map(place)
    return grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=1)


def usable_workers(asked: int, devices: int = 1) -> int:
    """How many worker processes there are to be: as many as asked for, or, if that is
    -1, one for each core but one that this process may use, at most 15 for each of the
    devices that it feeds; none where these cores are fewer than four."""
    if asked >= 0:
        return asked
    usable = cores()
    most = MOST_WORKERS * devices
    return min(usable - 1, most) if usable >= FEWEST_CORES else 0


def that_fit(workers: int, size: int) -> int:
    """As many of the workers as there is shared memory for; warns if these are fewer.
    size: of a batch, bytes."""
    if not (workers and SHARED.is_dir()):
        return workers
    free = shutil.disk_usage(SHARED).free
    fit = min(workers, free // (HELD * size))
    if fit < workers:
        warnings.warn(
            f"{fit} of {workers} worker processes: each needs {HELD * size / 1e6:.0f} "
            f"MB in {SHARED}, which has {free / 1e6:.0f} MB free; enlarge it "
            "(containers: --shm-size=8g)",
            stacklevel=2,
        )
    return fit


def num_bytes(batch) -> int:
    """Of a tree of arrays, as stack takes them."""
    if isinstance(batch, tuple):
        return sum(map(num_bytes, batch))
    return 0 if batch is None else np.asarray(batch).nbytes


def _start_worker(*_) -> None:
    """A worker leaves Ctrl-C and SIGTERM to its parent, which may need further batches
    before it ends: terminals and schedulers send them to all processes.  It ends with
    its parent, however that ends."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def local_rows(batch_size: int, process_index: int, process_count: int) -> range:
    """This process's rows of the global batch.

    InputError: batch_size does not divide by process_count; process_index is too large.
    """
    if not 0 <= process_index < process_count:
        raise InputError(
            f"process_index={process_index} of process_count={process_count}: "
            "must be below; count from 0"
        )
    less = batch_size - batch_size % process_count
    if batch_size < 1 or less != batch_size:
        nearest = [n for n in (less, less + process_count) if n > 0]
        raise InputError(
            f"batch_size={batch_size} must divide by process_count={process_count}; "
            f"try {' or '.join(map(str, nearest))}"
        )
    size = batch_size // process_count
    return range(process_index * size, (process_index + 1) * size)


def stack(examples):
    """Joins examples to a batch: arrays get a first axis of rows; None stays None."""
    first = examples[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return type(first)(*map(stack, zip(*examples, strict=True)))
    return np.stack(examples)


def copied(batch):
    """The batch out of the memory that is shared with workers, which is freed then:
    devices may keep arrays until the program's end, too late to free it."""
    if isinstance(batch, tuple):
        return type(batch)(*map(copied, batch))
    return None if batch is None else np.array(batch)
