"""Few large objects of the record in place of many small ones; part of a prune.

Entries stay as they are, octet by octet, so what names them and who signed them stays true. An object is removed by
whoever has just stored all of its entries in a later one, and by nobody else: so however many do this at once, each
entry is in some object at any moment. Whoever misses an object that was listed, lists again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import marks, names, record
from backupd.repository.marks import Marked
from backupd.repository.record import Signed, Signer
from backupd.storage.base import Locks, ObjectInfo, Storage
from backupd.storage.parallel import in_order

SMALL: Final = 4 << 20
_FULL: Final = 8 << 20
_THREADS = 8


class Merged(NamedTuple):
    """objects: that were joined; into: new ones. removed: old ones; where locks keep them, they stay until then."""

    objects: int = 0
    into: int = 0
    removed: int = 0


def merge(
    storage: Storage,
    whose: Signer,
    now: datetime,
    *,
    fewest: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Merged:
    """Join the small objects of the record, if they are `fewest` or more. What cannot be believed stays where it is,
    for an audit to tell. Raises StorageDenied where these credentials may not remove objects."""
    there = [info for info in storage.list(names.LOG) if names.log_time(info.name)]
    if len(there) < fewest:
        return Merged()
    done = Merged()
    marked = frozenset[str]()
    if storage.locks:
        known = [each for each in marks.read(storage) if any(name.startswith(names.LOG) for name in each.mark.objects)]
        marked = marks.objects(known)
        done = Merged(removed=_sweep(storage, whose, there, known, now))
    small = [info for info in there if info.size < SMALL and info.name not in marked]
    if len(small) < fewest:
        return done
    # Later than all that is there by name, so that no listing has the old ones behind it and the new one not ahead.
    latest = max(time for info in there if (time := names.log_time(info.name)))
    time = max(now, latest)
    for some in _portions(small):
        if stopped():
            break
        time += timedelta(milliseconds=1)
        joined = _join(storage, whose, some, time)
        if joined and storage.locks:
            marks.put(storage, joined, "in larger pieces of the record; to be removed when their locks have ended", now)
        for name in () if storage.locks else joined:
            storage.delete(name)
        removed = 0 if storage.locks else len(joined)
        done = Merged(done.objects + len(joined), done.into + bool(joined), done.removed + removed)
    return done


def _portions(small: Iterable[ObjectInfo]) -> Iterator[list[str]]:
    some: list[str] = []
    octets = 0
    for info in small:
        if some and octets + info.size > _FULL:
            yield some
            some, octets = [], 0
        some.append(info.name)
        octets += info.size
    if len(some) > 1:
        yield some


def _join(storage: Storage, whose: Signer, some: list[str], time: datetime) -> list[str]:
    """Store the entries of these objects as one; which of them are in it."""
    entries: dict[bytes, bytes] = {}
    good: list[str] = []
    for name, found in _believed(storage, whose, some):
        entries.update((each.id, each.octets) for each in found)
        good.append(name)
    if len(good) < 2:
        return []
    record.put(storage, entries.values(), time)
    return good


def _believed(storage: Storage, whose: Signer, some: Iterable[str]) -> Iterator[tuple[str, list[Signed]]]:
    """Those of these objects that are there and can be believed, with their entries."""

    def get(name: str) -> bytes | None:
        try:
            return storage.get(name)
        except ObjectMissing:  # another machine merges, too
            return None

    for name, data in in_order(get, some, threads=_THREADS):
        if data is None:
            continue
        try:
            yield name, [record.verify(octets, whose, name) for octets in record.cut(data, name)]
        except Damaged:
            continue


def _sweep(storage: Storage, whose: Signer, there: list[ObjectInfo], known: list[Marked], now: datetime) -> int:
    """Remove what was marked, whose locks have ended, if each of its entries is in an object that is not marked."""
    locks = storage.locks
    if locks is None:
        return 0
    marked, seconds = marks.objects(known), locks.seconds
    ripe = marks.objects(each for each in known if (now - each.time).total_seconds() > seconds)
    ended = [info.name for info in there if info.name in ripe and _is_free(locks, info.name, now)]
    waiting = {name: {each.id for each in found} for name, found in _believed(storage, whose, ended)}
    wanted = set[bytes]().union(*waiting.values())
    if wanted:
        for _, found in _believed(storage, whose, [info.name for info in there if info.name not in marked]):
            wanted.difference_update(each.id for each in found)
    superfluous = [name for name, ids in waiting.items() if ids.isdisjoint(wanted)]
    for name in superfluous:
        storage.delete(name)
    left = {info.name for info in there}.difference(superfluous)
    for each in known:
        if left.isdisjoint(each.mark.objects):
            storage.delete(each.name)
    return len(superfluous)


def _is_free(locks: Locks, name: str, now: datetime) -> bool:
    try:
        until = locks.until(name)
    except ObjectMissing:
        return False
    return until is None or until <= now
