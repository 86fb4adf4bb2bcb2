"""`backupd prune`: remove what is superfluous, in two steps, while others may be reading and writing.

The first step makes what takes the place of it, and marks it. The second one, a grace period later, removes what was
marked and is still superfluous. In between, those who know the old places have time to end; later, whoever misses a
pack looks for what it held in others. There is no lock, and any number of machines may do it.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import msgspec

from backupd.errors import Interrupted
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.repository import marks, names
from backupd.repository.merging import FEWEST, merge
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository
from backupd.repository.sweeping import Swept, sweep

GRACE = timedelta(days=1)


class PruneReport(msgspec.Struct, frozen=True):
    """What a prune did.

    packs, octets: small packs that were merged, and their octets; into: the packs they were merged to. marked: objects
    that became superfluous, and are removed after the grace period. removed, freed: objects, and octets, that were
    removed now. waiting: marked objects that are not old enough, or that a lock keeps until `locked_until`. damaged:
    packs that are not what their names say. needed: objects that had been marked and are needed.
    """

    repository: str
    packs: int
    octets: int
    into: int
    marked: int
    removed: int
    freed: int
    waiting: int
    locked_until: datetime | None
    damaged: list[str]
    needed: list[str]


def prune(
    repository: Repository,
    *,
    now: datetime,
    grace: timedelta = GRACE,
    fewest: int = FEWEST,
    sizes: Sizes | None = None,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> PruneReport:
    """Remove what was marked at least `grace` ago, merge small packs and index objects, and mark those.

    Raises Interrupted (the next call goes on), StorageDenied where these credentials may not remove objects, and errors
    of the storage that stop everything. Needs the writer's role.
    """
    stop = stop or threading.Event()
    storage = repository.storage
    known = marks.read(storage)
    ripe = [each for each in known if each.time <= now - grace]
    swept = sweep(repository, ripe, known, now) if ripe else Swept(0, 0, [], None, [])
    repository.refresh()
    left = marks.objects(marks.read(storage))
    observer(Plan(storage.url, 0))

    def moved(name: str, octets: int) -> None:
        observer(Advance(storage.url, name, 1, octets))

    merged = merge(repository, left, fewest=fewest, sizes=sizes, moved=moved, stop=stop)
    if merged.superfluous:
        marks.put(storage, merged.superfluous, "merged", now)
    if stop.is_set():
        raise Interrupted("stopped", subject=storage.url, remedy="the next prune goes on")
    there = {info.name for kind in (names.PACKS, names.INDEX) for info in storage.list(kind)}
    return PruneReport(
        repository=storage.url,
        packs=merged.packs,
        octets=merged.octets,
        into=merged.into,
        marked=len(merged.superfluous),
        removed=swept.removed,
        freed=swept.octets,
        waiting=len(left & there),
        locked_until=swept.until,
        damaged=merged.damaged,
        needed=swept.needed,
    )
