"""Work done in other processes: many items in some that may die; one job beside us."""

import collections
import concurrent.futures
import contextlib
import functools
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


@contextlib.contextmanager
def assistant() -> Iterator[Callable[..., Callable[[], Any]]]:
    """begin(function, *arguments) -> wait() -> what the function returns or raises.

    Another process, started by the first call, does one after the other until the block
    ends; arguments and results are pickled.  Should it die, wait() does the work here.
    """
    pool = _pool(1)

    def begin(function, *arguments):
        here = functools.partial(function, *arguments)
        try:
            future = pool.submit(here)
        except BrokenProcessPool:
            return here

        def wait():
            try:
                return future.result()
            except BrokenProcessPool:
                return here()

        return wait

    try:
        yield begin
    finally:
        _kill(pool)


def _until_death(function, waiting: collections.deque, workers: int):
    """Works off `waiting`; returns the items under way when a process died."""
    pool = _pool(workers)
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
        _kill(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return []


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start
    )


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


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
