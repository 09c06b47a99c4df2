"""A function applied to many items by processes that may die."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")


class Died:
    """Stands for the result where an item killed its process (or ate its memory)."""


def for_each(
    function: Callable[[Item], Any], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Any]]:
    """(item, function(item)) in the order in which they are ready.

    An item that kills its process gives `Died`: those that were under way when a
    process died are tried again, each in a process of its own.  Exceptions of the
    function are raised here.  Function and items are pickled.
    """
    waiting = collections.deque(items)
    while waiting:
        suspects = yield from _until_death(function, waiting, workers)
        for item in suspects:
            alone = collections.deque([item])
            if (yield from _until_death(function, alone, 1)):
                yield item, Died()


def _until_death(function, waiting: collections.deque, workers: int):
    """Works off `waiting`; returns the items under way when a process died."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start
    )
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                item = waiting.popleft()
                running[pool.submit(function, item)] = item
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                result = future.result()
                yield running.pop(future), result
    except BrokenProcessPool:
        return list(running.values())
    except BaseException:  # Ctrl-C, or the caller wants no more: do not wait for them
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return []


def _start() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
