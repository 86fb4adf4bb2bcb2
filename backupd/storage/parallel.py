"""The same work on many things, by some threads, with few of them under way at any time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from backupd.storage.base import Storage

_REQUESTS: Final = 8

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], things: Iterable[T], *, threads: int) -> Generator[tuple[T, R], None, None]:
    """Each thing with what came of it, in the order of the things, which are taken as threads become free.

    What the work raises is raised here, and no more of it is begun. So it is when the caller goes on no further. With
    one thread the caller does it.
    """
    if threads == 1:
        yield from ((thing, work(thing)) for thing in things)
        return
    under_way: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for thing in things:
                under_way.append((thing, pool.submit(work, thing)))
                if len(under_way) >= 2 * threads:
                    done, future = under_way.popleft()
                    yield done, future.result()
            while under_way:
                done, future = under_way.popleft()
                yield done, future.result()
        finally:
            for _, future in under_way:
                future.cancel()


def at_once(storage: Storage) -> int:
    """How many requests to make at a time: one where they take no round trip."""
    return 1 if storage.requests is None else _REQUESTS
