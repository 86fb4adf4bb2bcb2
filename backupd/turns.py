"""Taking turns: threads that work on mail from several connections do so one at a time.

Python runs one thread at a time anyway. But when four compute at once, each return from the socket and each lock that
is held by a thread without the interpreter makes them all wait for each other: a first snapshot over four connections
took twice the time, and twice the processor time, of one over a single connection. A thread that has the turn works
until it must wait for the network, and whoever waits longest goes on. Connections still fill their buffers meanwhile,
and compressing, sealing and storing, which need no interpreter, go on beside it in threads of their own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """A lock that is handed on in the order in which it was asked for, and can be given up while waiting.

    `with turn:` for the work; `with turn.given_up():` around what waits, deep inside, whether there is a turn or not.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._holder: int | None = None
        self._queue: deque[tuple[int, threading.Lock]] = deque()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._holder == threading.get_ident()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._mutex:
            if self._holder is None:
                self._holder = me
                return
            called = threading.Lock()
            called.acquire()
            self._queue.append((me, called))
        try:
            called.acquire()
        except BaseException:  # a signal, in the main thread
            self._leave(me)
            raise

    def _leave(self, me: int) -> None:
        """Wait no longer; hand on the turn if it has come meanwhile."""
        with self._mutex:
            self._queue = deque(each for each in self._queue if each[0] != me)
        if self.is_mine:
            self.__exit__()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._queue:
                self._holder, called = self._queue.popleft()
                called.release()
            else:
                self._holder = None

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others work for as long as this takes."""
        if not self.is_mine:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


TURN = Turn()
"""The turn to use the interpreter: one in a process, as the interpreter is."""
