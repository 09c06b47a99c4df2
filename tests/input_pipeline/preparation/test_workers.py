"""Items that kill their process, and errors that are passed on."""

import os
import time

import pytest

from input_pipeline.preparation import workers


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
