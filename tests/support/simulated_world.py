"""Machines that work on one repository at the same time, simulated: time is what the test says, clocks differ, and
between any two requests of one machine others may do whatever they want, or the machine may die.

Each machine reaches a storage through a `View`. A view belongs to one operation. While an operation is interrupted by
others, its threads wait at their next request, as those of a machine that stands still do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from backupd.errors import StorageUnavailable
from backupd.storage.base import Buffer, ObjectInfo
from backupd.turns import TURN
from tests.support.memory_storage import MemoryStorage

BEGINNING = datetime(2026, 6, 1, tzinfo=UTC)
Event = Callable[[], None]
Interruption = tuple[Sequence[Event], bool]
REFERRING = ("index/", "snapshots/", "erasures/")


class World:
    """seconds: since it began, which is what all clocks that only go forward say."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._turn = threading.Condition()
        self._active: list[object] = []

    def time(self, skew: timedelta = timedelta()) -> datetime:
        """What a clock says that is wrong by so much."""
        return BEGINNING + timedelta(seconds=self.seconds) + skew

    def wait(self, hours: float) -> None:
        """Time goes by."""
        self.seconds += hours * 3600

    def enter(self, view: View) -> None:
        """This operation is the one that goes on; all others stand still."""
        with self._turn:
            self._active.append(view.actor)

    def leave(self, view: View) -> None:
        """The one before goes on."""
        with self._turn:
            self._active.remove(view.actor)
            self._turn.notify_all()

    def turn(self, view: View) -> None:
        """Wait until it is this operation's turn; a request takes a second."""
        with TURN.given_up(), self._turn:
            while view.actor in self._active and self._active[-1] is not view.actor:
                self._turn.wait()
            self.seconds += 1


class Shared(MemoryStorage):
    """What is stored, and when, by the storage's own clock; and what was deleted."""

    def __init__(self, world: World, url: str) -> None:
        super().__init__()
        self.world, self.url = world, url
        self.stored: dict[str, float] = {}
        self.deleted: dict[str, bytes] = {}


class View:
    """A storage as one operation sees it.

    actor: of which operation it is, if it is of another view's.

    interruptions: by number of the request, what happens before it is made, and whether that takes hours. dies_at: the
    number of the write before which the machine dies; None: it does not.

    For hours, no machine stands still between its last look at marks and the one write that follows: a bound on that is
    what the protocol asks for (docs/format.md, "Marks"). What takes hours there happens as soon as that is written.
    Before any other request, and before anything is removed, hours may go by.
    """

    requests = versions = locks = None

    def __init__(
        self,
        shared: Shared,
        interruptions: Mapping[int, Interruption] | None = None,
        dies_at: int | None = None,
        *,
        actor: object = None,
    ) -> None:
        self.actor = actor or self
        self._shared, self._world = shared, shared.world
        self._interruptions, self._dies_at = dict(interruptions or {}), dies_at
        self._lock = threading.Lock()
        self.made = self.written = 0
        self.happened = 0

    @property
    def url(self) -> str:
        return self._shared.url

    def _request(self, name: str, *, write: bool = False, bound: bool = False) -> Sequence[Event]:
        """bound: it must not take hours until it is written. What is to happen as soon as it is."""
        self._world.turn(self)
        with self._lock:
            number, self.made = self.made, self.made + 1
            dead = self._dies_at is not None and self.written >= self._dies_at
            self.written += write
            events, takes_hours = self._interruptions.pop(number, ([], False))
        if dead:
            raise StorageUnavailable("the machine is dead", subject=name)
        if takes_hours and bound:
            return events
        self._happen(events)
        return ()

    def _happen(self, events: Sequence[Event]) -> None:
        with TURN.given_up():
            for event in events:
                self.happened += 1
                event()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        later = self._request(name, write=True, bound=name.startswith(REFERRING))
        self._shared.put(name, data)
        self._shared.stored.setdefault(name, self._world.time().timestamp())
        self._happen(later)

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        self._request(name, write=True)
        self._shared.replace(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._request(name)
        return self._shared.get(name, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._request(prefix)
        return iter([info._replace(modified=self._shared.stored[info.name]) for info in self._shared.list(prefix)])

    def size(self, name: str) -> int:
        self._request(name)
        return self._shared.size(name)

    def delete(self, name: str) -> None:
        self._request(name, write=True)
        self._shared.deleted[name] = self._shared.objects.get(name, b"")
        self._shared.delete(name)
        self._shared.stored.pop(name, None)
