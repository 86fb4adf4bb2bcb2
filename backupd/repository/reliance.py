"""What whoever writes relies on, and how it keeps that from being removed by a prune elsewhere, without a lock.

A blob that is in the index is not stored again. But perhaps no snapshot needs it, and a prune on another machine has
marked its pack, or is about to. So (docs/format.md, "Marks"):

- Marks are read before the index is; what they name then is not relied on, and its blobs are stored anew.
- As long as a run lasts, marks are looked at again every 20 minutes, and before an index object or a snapshot is
  stored. A mark that has come meanwhile and names something that was relied on, or was stored by this run, is answered
  with a need, also if it was moved and is elsewhere by now: who knows what becomes of that. What is marked is removed
  three hours after it was marked, at the earliest.
- A run goes on from a snapshot, its parent, and takes over what that needs without looking it up. As long as the parent
  is there, so is all of it. If somebody forgets the parent, every mark from then on is answered in full. One that was
  there before may name what the parent needed, if whoever made it did not know the parent yet; then the run ends.
- Whoever finds that the last look was more than an hour ago (a laptop slept, a machine stood still) cannot know whether
  a mark has come and gone. Then everything relied on must be there, and unmarked, or the run ends without a snapshot,
  and nothing is stored through this object any more.

So no clock is compared with another machine's. How long a run lasts does not matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NoReturn

from backupd.errors import ObjectMissing, Overtaken
from backupd.repository import marks, names, needs
from backupd.repository.index_cache import IndexCache, cut
from backupd.repository.marks import Marked
from backupd.storage.base import Storage

LOOK_SECONDS: Final = 1200.0
LATE_SECONDS: Final = 3600.0

Clock = Callable[[], float]


def seconds_gone() -> float:
    """A clock that only goes forward, and goes on while the machine sleeps where the system has one that does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


CLOCKS: Final[Sequence[Clock]] = (seconds_gone, time.time)
"""What has gone by is the most that one of them says: a machine that stood still may know it by one alone."""


class Reliance:
    """Of one open repository. Safe to use from several threads."""

    def __init__(
        self,
        storage: Storage,
        index: IndexCache,
        refresh: Callable[[], None],
        clocks: Sequence[Clock] = CLOCKS,
        *,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        """refresh: brings the index up to date, and takes out of it what is gone. beside: called with each look at
        marks, for what else others may have said meanwhile."""
        self._storage, self._index, self._refresh, self._clocks = storage, index, refresh, clocks
        self._beside = beside
        self._lock = threading.RLock()
        self._looked: list[float] | None = None
        self._overtaken: Overtaken | None = None
        self._seen: set[str] = set()
        self._marked: set[bytes] = set()
        # Names of marks that were seen while all parents were there, and were not answered in full.
        self._open: set[str] = set()
        # By epoch; a new one begins with each run, so that what a run relied on is forgotten when it has ended, with
        # all that were under way together with it.
        self._epoch = 0
        self._relied: dict[int, set[bytes]] = {0: set()}
        self._own: dict[int, dict[bytes, bool]] = {0: {}}
        self._parents: dict[int, str | None] = {}

    @contextmanager
    def run(self, parent: str | None) -> Iterator[None]:
        """While this lasts, a run is under way that goes on from this snapshot (its object's name)."""
        with self._lock:
            if not self._parents:
                self._looked = None
                self._seen, self._marked, self._open, self._relied, self._own = set(), set(), set(), {}, {}
            self._epoch += 1
            epoch = self._epoch
            self._parents[epoch], self._relied[epoch], self._own[epoch] = parent, set(), {}
        try:
            yield
        finally:
            with self._lock:
                del self._parents[epoch]
                first = min(self._parents, default=self._epoch)
                for each in [each for each in self._relied if each < first]:
                    del self._relied[each], self._own[each]

    def relies(self, blob: bytes) -> bool:
        """Whether the blob, with all that it needs, is there and stays; from then on it does."""
        self.look()
        with self._lock:
            for pack, parts in self._index.homes(blob):
                if pack in self._marked or parts is None or not all(map(self.relies, cut(parts))):
                    continue
                self._relied[self._epoch].add(pack)
                return True
        return False

    def storing(self, pack: bytes, *, done: bool) -> None:
        """This pack is about to be stored; done: it is there."""
        with self._lock:
            self._own[self._epoch][pack] = done

    def look(self, seconds: float = LOOK_SECONDS) -> None:
        """Look at marks unless that was done in the last so many seconds.

        Raises Overtaken, from then on each time: what was taken to be stored may be gone, so nothing may be stored any
        more that refers to it. The repository must be opened anew.
        """
        if self._overtaken:
            raise self._overtaken
        if self._looked is not None and self._since(self._looked) < seconds:
            return
        with self._lock:
            if self._looked is None or self._since(self._looked) >= seconds:
                while self._since(self._look()) > LATE_SECONDS:
                    pass  # it stood still while it looked

    def confirm(self) -> None:
        """What was just stored refers to what is relied on. Raises Overtaken if that cannot be said any more."""
        self.look(LATE_SECONDS)

    def confirm_parents(self) -> None:
        """What is about to be stored, or just was, needs what its parents need. Raises Overtaken if that may go."""
        if self._overtaken:
            raise self._overtaken
        with self._lock:
            if self._open and self._lacks_a_parent():
                self._give_up()

    def _since(self, then: Sequence[float]) -> float:
        return max(clock() - before for clock, before in zip(self._clocks, then, strict=True))

    def _look(self) -> Sequence[float]:
        """When it began, by each clock."""
        now, before = [clock() for clock in self._clocks], self._looked
        found = marks.read(self._storage)
        self._beside()
        fresh = [each for each in found if each.name not in self._seen]
        late = before is not None and self._since(before) > LATE_SECONDS
        if fresh or late or before is None:
            # After the marks: when all is gone that a mark names, the mark goes last.
            self._refresh()
        if late or before is None:
            self._check(found)
        kept: set[str] = set()
        lacking = bool(self._open or fresh) and self._lacks_a_parent()
        if lacking and self._open:
            self._give_up()
        for each in fresh:
            if before is not None:
                kept |= self._answered(each, in_full=lacking)
            if not lacking and any(name.startswith(names.PACKS) for name in each.mark.objects):
                self._open.add(each.name)
        self._seen.update(each.name for each in found)
        self._marked |= {_digest(name) for name in marks.objects(fresh) - kept if name.startswith(names.PACKS)}
        self._looked = now
        return now

    def _used(self, *, stored: bool) -> set[bytes]:
        """Packs that are relied on or that are our own; stored: not those that are about to be stored."""
        own = {pack for some in self._own.values() for pack, done in some.items() if done or not stored}
        return own.union(*self._relied.values())

    def _answered(self, marked: Marked, *, in_full: bool) -> set[str]:
        """Names of packs that the mark names and that are needed, which is said now."""
        packs = {name for name in marked.mark.objects if name.startswith(names.PACKS)}
        used = self._used(stored=False)
        kept = packs if in_full else {name for name in packs if _digest(name) in used}
        if kept:
            needs.put(self._storage, marked.name, kept, datetime.fromtimestamp(self._clocks[-1](), UTC))
        return kept

    def _lacks_a_parent(self) -> bool:
        return any(not self._is_there(parent) for parent in self._parents.values() if parent)

    def _is_there(self, name: str) -> bool:
        try:
            self._storage.size(name)
        except ObjectMissing:
            return False
        return True

    def _check(self, found: Sequence[Marked]) -> None:
        """Nothing is known of marks that may have come and gone: all that is relied on must be there, unmarked."""
        used = self._used(stored=True)
        if used:
            there = {_digest(info.name) for info in self._storage.list(names.PACKS)}
            marked = {_digest(name) for name in marks.objects(found) if name.startswith(names.PACKS)}
            used = {pack for pack in used if pack not in there or pack in marked}
        if used or self._lacks_a_parent():
            self._give_up()

    def _give_up(self) -> NoReturn:
        self._overtaken = Overtaken(
            "while this run lasted, others removed, or are about to remove, what it goes on from",
            subject=self._storage.url,
            remedy="run it again: what it has stored is there",
        )
        raise self._overtaken


def _digest(name: str) -> bytes:
    """The SHA-256 in a pack's name; empty for what is no such name."""
    try:
        return bytes.fromhex(name.rpartition("/")[2])
    except ValueError:
        return b""
