"""What a prune removes of what was marked before, beside others that may remove at the same time (see prune.py).

Two of them may act on the same mark, and not agree: one has seen a snapshot, a need or another mark that the other one
has not. What is removed is gone for both. What one of them leaves must not seem to be free of the mark while the other
one is about to remove it. So (docs/format.md, "Marks"):

- Needs are read, then marks once more. A need goes after its mark, so of a mark that is still there all needs were
  read; one that has gone is not acted on, and a need for one that has come is left alone.
- What was marked meanwhile counts as marked: nothing is removed because it is elsewhere, too, where that is marked,
  and no need has said for an hour that it stays there.
- A mark of which something stays goes when a need has said so for an hour: whoever acts on it without knowing that
  need has ended by then, for what needs say is believed for ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from backupd.errors import ObjectMissing, StorageDenied
from backupd.repository import marks, names, needs
from backupd.repository.marks import Marked, Since
from backupd.repository.reliance import LATE_SECONDS
from backupd.repository.survey import Survey
from backupd.repository.sweeping import Sweep, of_packs_and_indexes, sweep
from backupd.storage.base import Storage
from backupd.storage.parallel import at_once, in_order

_NEEDS_SECONDS: Final = 600.0


class Removal:
    """removed: names of what was; freed: its octets. unsettled: names of packs that are marked and stay, of which a
    need has not said so for an hour. locked_until: when the last lock ends that keeps something."""

    def __init__(
        self, storage: Storage, now: datetime, grace: float, seconds: Callable[[], float], *, dry_run: bool
    ) -> None:
        """grace: how many seconds old a mark must be. seconds: a clock that only goes forward."""
        self._storage, self._now, self._seconds, self._dry_run = storage, now, seconds, dry_run
        self._settled_after = min(grace, LATE_SECONDS)
        self.removed, self.freed, self.unsettled = set[str](), 0, set[str]()
        self.locked_until: datetime | None = None

    def sweep(self, survey: Survey, known: list[Marked], ripe: list[Marked], *, unindexed_may_go: bool) -> Sweep:
        """Remove what ripe marks name and nothing needs, then the marks of which nothing is left. known: all marks that
        were there before the survey."""
        read = self._seconds()  # before, for reading may take long, too
        said = needs.read(self._storage)
        since = marks.since(self._storage, known)
        survey.mark(marks.objects(each for each in since.fresh if not marks.for_locks(each)))
        still = {each.name for each in since.still}
        ripe = [each for each in ripe if each.name in still]
        settled = self._settled(said, since)
        there = names_of(survey)
        decided = sweep(
            survey,
            of_packs_and_indexes(marks.objects(ripe)) & there,
            frozenset(name for each in ripe for name in needs.of(said, each.name)),
            unindexed_may_go=unindexed_may_go,
            is_locked=self._is_locked,
            stays=lambda name: self._stays(name, settled, since),
        )
        sizes = {each.name: each.size for each in survey.indexes} | {each.object: each.size for each in survey.packs}

        def removed_in_time(name: str) -> bool:
            if self._seconds() - read > _NEEDS_SECONDS:
                return False  # what has been said since then is not known; the next prune goes on
            if not self._dry_run:
                remove(self._storage, name)
            return True

        for some in (decided.indexes, decided.packs):  # all of these before any of those
            for name, removed in in_order(removed_in_time, some, threads=at_once(self._storage)):
                if removed:
                    self.removed.add(name)
                    self.freed += sizes[name]
        if not self._dry_run:
            self._end(ripe, since, there - self.removed, decided, said, settled)
        return decided

    def _settled(self, said: list[needs.Needed], since: Since) -> list[needs.Needed]:
        """Needs that everybody knows who is removing what their mark names."""
        concerned = [each for each in said if each.need.mark in since.names]
        if self._dry_run or not concerned:
            return []
        return marks.settled(self._storage, concerned, self._settled_after, self._now)

    def _stays(self, name: str, settled: list[needs.Needed], since: Since) -> bool:
        """Whether nobody removes this pack, whatever marks name it."""
        naming = [each for each in (*since.still, *since.fresh) if name in each.mark.objects]
        return not self._settled_after or all(name in needs.of(settled, each.name) for each in naming)

    def _is_locked(self, name: str) -> bool:
        try:
            until = self._storage.locks.until(name) if self._storage.locks else None
        except ObjectMissing:
            return False
        if until is None or until <= self._now:
            return False
        self.locked_until = max(until, self.locked_until or until)
        return True

    def _end(
        self,
        ripe: list[Marked],
        since: Since,
        there: set[str],
        decided: Sweep,
        said: list[needs.Needed],
        settled: list[needs.Needed],
    ) -> None:
        """Remove the marks of which nothing waits any more, last of all, and needs without a mark."""
        left = set(since.names)
        waiting = there - set(decided.needed)
        staying = {name for name in there.intersection(decided.needed) if name.startswith(names.PACKS)}
        for each in ripe:
            stays = staying.intersection(each.mark.objects)
            unsettled = stays - needs.of(settled, each.name) if self._settled_after else set[str]()
            if unsaid := unsettled - needs.of(said, each.name):
                needs.put(self._storage, each.name, unsaid, self._now)
            self.unsettled |= unsettled
            if not unsettled and waiting.isdisjoint(each.mark.objects):
                remove(self._storage, each.name)
                left.discard(each.name)
        for need in said:
            if need.need.mark not in left:
                remove(self._storage, need.name)


def names_of(survey: Survey) -> set[str]:
    """Names of the packs and index objects that are there."""
    return {each.name for each in survey.indexes} | {pack.object for pack in survey.packs if pack.listed}


def remove(storage: Storage, name: str) -> None:
    """Remove an object. Raises StorageDenied, with what to do."""
    try:
        storage.delete(name)
    except StorageDenied as error:
        raise StorageDenied(
            f"these credentials may not remove objects: {error.what}",
            subject=error.subject or name,
            remedy="prune needs the right to delete: `backupd s3-policy --role pruner` prints it",
        ) from error
