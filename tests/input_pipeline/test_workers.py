"""Other processes: items that kill theirs, errors and signals, and what is left."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from input_pipeline import workers


def double(item: int) -> int:
    """Twice the item; 13 ends the process, 60 takes a minute, 99 fails."""
    if item == 13:
        os._exit(9)
    if item == 60:
        time.sleep(item)
    if item == 99:
        raise KeyError(item)
    return 2 * item


def test_every_item_is_done_once():
    done = sorted(workers.for_each(double, range(9), 2))
    assert done == [(n, 2 * n) for n in range(9)]


def test_an_item_that_kills_its_process_harms_no_other():
    items = [1, 2, 13, 3, 4, 5]
    done = dict(workers.for_each(double, items, 2))
    assert sorted(done) == sorted(items)
    assert isinstance(done.pop(13), workers.Died)
    assert all(result == 2 * item for item, result in done.items())


def test_who_stops_early_does_not_wait_for_what_is_under_way():
    start, done = time.monotonic(), workers.for_each(double, [1, 60, 60], 2)
    assert next(done) == (1, 2)
    done.close()
    assert time.monotonic() - start < 30


def test_an_error_of_the_function_is_raised_here():
    with pytest.raises(KeyError):
        list(workers.for_each(double, [1, 99], 1))


def test_an_assistant_works_beside_us_one_after_another():
    with workers.assistant() as begin:
        first, second, third = begin(double, 1), begin(os.getpid), begin(double, 99)
        assert first() == 2
        assert second() != os.getpid()
        with pytest.raises(KeyError):
            third()


def die_elsewhere(pid: int) -> str:
    if os.getpid() != pid:
        os._exit(9)
    return "done here"


def test_what_an_assistant_died_of_is_done_here():
    with workers.assistant() as begin:
        waits = [begin(die_elsewhere, os.getpid()), begin(double, 3)]
        assert [wait() for wait in waits] == ["done here", 6]
        assert begin(double, 4)() == 8


def test_an_assistant_is_not_waited_for():
    start = time.monotonic()
    with workers.assistant() as begin:
        begin(double, 60)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("count", [0, 2])
def test_in_order_keeps_the_order_and_the_keys_here(count):
    lock = threading.Lock()  # cannot be pickled
    items = [((n, lock), n) for n in range(9)]
    done = list(workers.in_order(double, iter(items), count))
    assert done == [(key, 2 * n) for key, n in items]


def test_in_order_takes_no_more_items_than_keep_its_processes_busy():
    taken = []

    def items():
        for n in range(100, 140):
            taken.append(n)
            yield n, n

    for done, (n, _) in enumerate(workers.in_order(double, items(), 2)):
        assert n == 100 + done and len(taken) - done <= 4


def test_in_order_ends_with_the_first_process_that_dies_and_leaves_none():
    items = [(n, n) for n in (1, 2, 13, 3)]
    with pytest.raises(workers.WorkerLost):
        list(workers.in_order(double, items, 2))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_what_stops_the_items_stops_the_processes_at_once(error):
    def items():
        yield 60, 60
        raise error

    start = time.monotonic()
    with pytest.raises(error):
        list(workers.in_order(double, items(), 1))
    assert time.monotonic() - start < 30 and not multiprocessing.active_children()


def test_a_process_does_not_hear_ctrl_c_from_its_first_moment():
    ((_, blocked),) = workers.in_order(blocked_signals, [(0, 0)], 1)
    assert signal.SIGINT in blocked


def test_a_signal_that_was_blocked_comes_afterwards():
    before, reached = blocked_signals(0), []
    with pytest.raises(KeyboardInterrupt), workers.blocked(signal.SIGINT):
        signal.raise_signal(signal.SIGINT)
        reached.append(signal.SIGINT in blocked_signals(0))
    assert reached == [True] and blocked_signals(0) == before


def blocked_signals(_) -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_there_is_a_core():
    assert 1 <= workers.cores() <= os.cpu_count()
