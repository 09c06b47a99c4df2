"""Who may use the networks now: visitors take turns, in the order of their coming."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

TELL_EVERY = 1.0  # seconds


class Busy(Exception):
    """Too many are waiting already."""


class Turns:
    """A queue for one place.  most: how many may wait; then the next one is Busy."""

    def __init__(self, most: int):
        self.most = most
        self.queue: deque[object] = deque()  # the first one has its turn
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, tell: Callable[[int], None] = lambda ahead: None) -> Iterator[None]:
        """Waits for the turn, which lasts until the end of the block.

        tell: called with the number of those ahead, whenever it has changed and every
        second; what it raises ends the waiting, so that it can look whether the visitor
        is still there.  Busy: the queue is full.
        """
        ticket = object()
        with self.changed:
            if len(self.queue) > self.most:
                raise Busy(f"{self.most} are waiting already; try again in a minute")
            self.queue.append(ticket)
        try:
            while ahead := self._ahead(ticket):
                tell(ahead)
                with self.changed:
                    self.changed.wait_for(
                        lambda a=ahead: self._ahead(ticket) != a, TELL_EVERY
                    )
            yield
        finally:
            with self.changed:
                self.queue.remove(ticket)
                self.changed.notify_all()

    def _ahead(self, ticket: object) -> int:
        with self.changed:
            return self.queue.index(ticket)
