"""Logging in takes seconds, and with a bad server minutes: a few threads do it, so that nobody else has to wait.

No host gets more than half of them. So one provider that is down, with all of its accounts, does not keep those of
others from being reached.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

THREADS = 16
_IDLE_SECONDS = 30.0

Item = TypeVar("Item", bound=Hashable)
Found = TypeVar("Found")


class Connectors(Generic[Item, Found]):
    """Makes connections. `ask`, `forget` and `close` are for one thread; `connect` and `done` are called by others.

    Args:
        connect: makes the connection for an item; may raise and may block.
        done: is given the item, with what came of it.
        host: whom an item's connection goes to.
    """

    def __init__(
        self,
        connect: Callable[[Item], Found],
        done: Callable[[Item, Found | Exception], None],
        host: Callable[[Item], str],
        *,
        threads: int = THREADS,
    ) -> None:
        self._connect, self._done, self._host, self._most = connect, done, host, threads
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Item]] = {}
        self._busy: Counter[str] = Counter()
        self._work: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._threads = self._free = 0

    def ask(self, item: Item) -> None:
        """Connect as soon as there is room."""
        with self._lock:
            self._waiting.setdefault(self._host(item), deque()).append(item)
            self._hand_out()

    def forget(self, item: Item) -> bool:
        """Do not begin it, and tell whether that was in time. What is under way goes on to its end, and is told."""
        with self._lock:
            waiting = self._waiting.get(self._host(item))
            if not waiting or item not in waiting:
                return False
            waiting.remove(item)
            return True

    def close(self) -> None:
        """Begin nothing more. Threads that are connecting are left to end by themselves, or with the process."""
        with self._lock:
            self._waiting.clear()
            self._most = 0
            for _ in range(self._threads):
                self._work.put(None)

    def _hand_out(self) -> None:
        for host in list(self._waiting):
            waiting = self._waiting[host]
            while waiting and self._busy.total() < self._most and self._busy[host] < max(1, self._most // 2):
                self._busy[host] += 1
                if self._free:
                    self._free -= 1
                else:
                    self._threads += 1
                    threading.Thread(target=self._serve, name=f"connect-{self._threads}", daemon=True).start()
                self._work.put(waiting.popleft())
            del self._waiting[host]
            if waiting:
                self._waiting[host] = waiting  # behind the others, whose turn it is next

    def _serve(self) -> None:
        while True:
            try:
                item = self._work.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if not self._free:
                        continue  # something has been handed out this moment
                    self._free -= 1
                    self._threads -= 1
                    return
            if item is None:
                return
            try:
                found: Found | Exception = self._connect(item)
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                found = error
            with self._lock:
                self._busy[self._host(item)] -= 1
                self._free += 1
                self._hand_out()
            self._done(item, found)
