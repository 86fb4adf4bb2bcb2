"""Several small pieces of work in one session, one after the other: it is told before what will come, and asks ahead.

A mailbox costs a round trip or two by itself. A thousand of them, each with a message or two, would take minutes over a
long line if every one was waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Generic, TypeVar

from backupd.errors import ServerRefused
from backupd.operations.session_pool import Work
from backupd.operations.stopping import Stop
from backupd.sources.base import Session

Result = TypeVar("Result")
Item = TypeVar("Item")
Done = TypeVar("Done")


class Batch(Work[None], Generic[Result]):
    """Works that are done in this order. Called again after a lost connection, it goes on with the one at which it was.

    outcomes: what came of each, in their order, as far as they were done; there also after an error that ended the
    rest. That the server refused one is an outcome, and the next goes on.
    """

    def __init__(self, works: Iterable[Work[Result]], expect: Callable[[Session], object], stop: Stop) -> None:
        """expect: tells a session what the works will ask of it. stop: when set, no other is begun."""
        self._left, self._stop = deque(works), stop
        self._expect: Callable[[Session], object] | None = expect
        self._past = 0
        self.outcomes: list[Result | ServerRefused] = []

    @property
    def progress(self) -> int:
        return self._past + sum(work.progress for work in self._left)

    @property
    def under_way(self) -> Work[Result] | None:
        """The work at which an error has ended the rest, or that comes next; None if all are done."""
        return self._left[0] if self._left else None

    def __call__(self, session: Session) -> None:
        if self._stop.is_set():
            return  # whoever was stopped in the middle of an answer left a connection that is of no more use
        self._ask_ahead(session)
        while self._left and not self._stop.is_set():
            work = self._left[0]
            try:
                self.outcomes.append(work(session))
            except ServerRefused as error:
                self.outcomes.append(error)
            # What is done is let go: together, the works of a run have seen a million messages.
            self._past += work.progress + 1
            self._left.popleft()

    def _ask_ahead(self, session: Session) -> None:
        # After a lost connection, one by one: a message that ends connections must not be taken for another's fault.
        expect, self._expect = self._expect, None
        if expect:
            expect(session)


def gather(
    items: Sequence[Item], weigh: Callable[[Item], int], *, limit: Callable[[int], int], most: int
) -> Iterator[list[Item]]:
    """Groups of neighbours, each of at most `most` items that weigh no more than the limit, or of one that does.

    limit: what a group may weigh, given what it and all after it weigh.
    """
    left = sum(map(weigh, items))
    group: list[Item] = []
    weight = 0
    for item in items:
        own = weigh(item)
        if group and (weight + own > limit(left) or len(group) >= most):
            yield group
            left -= weight
            group, weight = [], 0
        group.append(item)
        weight += own
    if group:
        yield group


def as_they_end(futures: Iterable[Future[Done]], stop: Stop) -> Iterator[Future[Done]]:
    """Futures in the order in which they end. Once stopped, those that have not begun are left out."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
        yield from done
        if stop.is_set():
            waiting = {future for future in waiting if not future.cancel()}
