"""Visitors take turns in the order of their coming, and neither waits for ever."""

import contextlib
import threading
import time

import pytest

from jax_atvg.web import turns as module
from jax_atvg.web.turns import Busy, Turns


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_turns_come_in_order_and_one_at_a_time():
    turns, order, told, inside = Turns(9), [], {}, []

    def visit(number):
        with turns.turn(told.setdefault(number, []).append):
            inside.append(number)
            assert len(inside) == 1
            time.sleep(0.01)
            order.append(number)
            inside.remove(number)

    with turns.turn():
        threads = [threading.Thread(target=visit, args=(i,)) for i in range(4)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda n=number: len(turns.queue) == n + 2)
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3]
    # How many are ahead, fewer and fewer.
    assert set(told[0]) == {1} and told[2][0] == 3
    assert told[3] == sorted(told[3], reverse=True)
    assert not turns.queue


def test_the_queue_has_an_end():
    turns = Turns(0)
    with turns.turn():
        with (
            pytest.raises(Busy, match="0 are waiting already; try again"),
            turns.turn(),
        ):
            raise AssertionError
        assert len(turns.queue) == 1
    with turns.turn():
        pass


def test_one_who_leaves_or_fails_does_not_hold_up_the_others():
    turns, gone = Turns(9), []

    def leave(_):
        raise RuntimeError("the visitor has closed the page")

    def visit():
        try:
            with turns.turn(leave):
                raise AssertionError
        except RuntimeError:
            gone.append(True)

    with pytest.raises(KeyError), turns.turn():
        thread = threading.Thread(target=visit)
        thread.start()
        thread.join(30)
        raise KeyError
    assert gone and not turns.queue
    with turns.turn():
        pass


def test_one_who_leaves_while_nothing_moves_gives_up_the_place(monkeypatch):
    monkeypatch.setattr(module, "TELL_EVERY", 0.01)
    turns, left = Turns(1), threading.Event()

    def tell(_):
        if left.is_set():
            raise RuntimeError("the visitor has closed the page")

    def visit():
        with contextlib.suppress(RuntimeError), turns.turn(tell):
            raise AssertionError

    with turns.turn():
        thread = threading.Thread(target=visit)
        thread.start()
        wait_until(lambda: len(turns.queue) == 2)
        left.set()
        thread.join(30)
        assert len(turns.queue) == 1
