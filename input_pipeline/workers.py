"""Runs functions in other processes: for many items, or one call beside this process.

for_each    as they are ready; what kills its process does not end the work
in_order    in the order of the items, which are made meanwhile; a death ends it
assistant   one call after the other, beside this process
"""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


class Died:
    """The result of an item whose process died, for instance for lack of memory."""


class WorkerLost(Exception):
    """A process died that was at work, for instance for lack of memory."""


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(
    function: Callable[[Item], Any], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Any]]:
    """Yields (item, function(item)) in the order in which they are ready.

    The result of an item that kills its process is `Died`: the items under way when a
    process dies are tried again, each in a process of its own.  Exceptions of the
    function are raised here.  Function, items and results are pickled.
    """
    waiting = collections.deque(items)
    while waiting:
        suspects = yield from _until_death(function, waiting, workers)
        for item in suspects:
            alone = collections.deque([item])
            if (yield from _until_death(function, alone, 1)):
                yield item, Died()


def in_order(
    function: Callable[[Item], Any], items: Iterable[tuple[Key, Item]], workers: int
) -> Iterator[tuple[Key, Any]]:
    """Yields (key, function(item)) for every (key, item), in their order.

    workers: processes; 0: this one.  Items are taken, and so may be made, while the
    processes work; at most twice as many as there are processes are under way.
    Function, items and results are pickled; keys stay here.  Exceptions of the function
    and of `items` are raised here.  WorkerLost: a process died.
    """
    if not workers:
        for key, item in items:
            yield key, function(item)
        return
    pool, running = _pool(workers), collections.deque()
    try:
        for key, item in items:
            running.append((key, _submit(pool, function, item)))
            while running and (len(running) >= 2 * workers or running[0][1].done()):
                key, future = running.popleft()
                yield key, future.result()
        for key, future in running:
            yield key, future.result()
    except BrokenProcessPool as error:
        raise WorkerLost from error
    except BaseException:  # Ctrl-C, an error, or the caller stops: do not wait
        _kill(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def assistant() -> Iterator[Callable[..., Callable[[], Any]]]:
    """Runs calls in another process, one after the other, beside the `with` block.

    It yields `begin`: wait = begin(function, *arguments) starts a call, and wait() then
    returns or raises what the function does.  Arguments and results are pickled.  The
    first call starts the process, the end of the block ends it.  If the process dies,
    wait() runs the function in this one.
    """
    pool = _pool(1)

    def begin(function, *arguments):
        here = functools.partial(function, *arguments)
        try:
            future = _submit(pool, here)
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
    """Yields results of `waiting`; returns the items under way if a process died."""
    pool = _pool(workers)
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                item = waiting.popleft()
                running[_submit(pool, function, item)] = item
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                result = future.result()
                yield running.pop(future), result
    except BrokenProcessPool:
        return list(running.values())
    except BaseException:  # Ctrl-C, or the caller stops: do not wait for the items
        _kill(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return []


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start
    )


def _submit(pool: concurrent.futures.ProcessPoolExecutor, function, *arguments):
    """The future of a call.  A process that this starts leaves Ctrl-C to its parent
    from its first moment, as it begins with the signals blocked that are blocked here.
    """
    with blocked(signal.SIGINT):
        return pool.submit(function, *arguments)


@contextlib.contextmanager
def blocked(*signals: signal.Signals) -> Iterator[None]:
    """Processes and threads that are started in the `with` block have these signals
    blocked.  One that comes meanwhile is delivered to this thread afterwards."""
    # It unblocks signals when it starts, which the first process would make it do.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepares a worker: it leaves Ctrl-C to its parent, and ends with it."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """From now on this process, a worker, ends when its parent does, however that
    ends."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
