"""Reading ahead: the next messages are opened on another thread while the last ones are being written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def read_ahead(items: Iterable[Item], weigh: Callable[[Item], int], *, limit: int) -> Iterator[Item]:
    """The same items in the same order, made on another thread, with at most about `limit` octets waiting.

    weigh: octets of an item. An error of the maker is raised here, after the items before it.
    """
    waiting: queue.SimpleQueue[object] = queue.SimpleQueue()
    room = threading.Condition()
    held = 0
    ended = False

    def make() -> None:
        nonlocal held
        try:
            for item in items:
                weight = weigh(item)
                with room:
                    # One item always fits, however heavy.
                    room.wait_for(lambda: ended or not held or held + weight <= limit)  # noqa: B023
                    if ended:
                        return
                    held += weight
                waiting.put(item)
            waiting.put(_END)
        except BaseException as error:  # noqa: BLE001 - carried to the other thread, and raised there
            waiting.put(_Failed(error))

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
            with room:
                held -= weigh(item)  # type: ignore[arg-type]
                room.notify()
    finally:
        with room:
            ended = True
            room.notify()
        thread.join()
