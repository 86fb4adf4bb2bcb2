"""Removing what was marked as superfluous a while ago, and still is.

A mark is not believed. A pack is removed if each of its blobs is in another one that is there, that an index object
tells of, and that no mark names, whoever made it; an index object is removed if others tell of all its packs that are
there. Packs go first: an index object that tells of packs that are gone is what the next run knows to go on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import index, marks, names
from backupd.repository.index import PackEntry
from backupd.repository.marks import Marked
from backupd.repository.repository import Repository


class Swept(NamedTuple):
    """removed: objects; octets: their sizes. waiting: objects that a lock keeps for now. until: when all locks of packs
    and indexes that were looked at have ended. needed: objects that are not superfluous, and are marked no longer.
    """

    removed: int
    octets: int
    waiting: list[str]
    until: datetime | None
    needed: list[str]


def sweep(repository: Repository, ripe: Sequence[Marked], every: Sequence[Marked], now: datetime) -> Swept:
    """Remove what these marks name. every: all marks there are."""
    return _Sweep(repository, every, now).run(ripe)


class _Sweep:
    def __init__(self, repository: Repository, every: Sequence[Marked], now: datetime) -> None:
        self._repository, self._storage, self._now = repository, repository.storage, now
        self._marked = marks.objects(list(every))
        self._there = {
            info.name: info.size for kind in (names.PACKS, names.INDEX) for info in self._storage.list(kind)
        }
        self._removed = self._octets = 0
        self._waiting: set[str] = set()
        self._until: datetime | None = None
        self._needed: list[str] = []

    def run(self, ripe: Sequence[Marked]) -> Swept:
        wanted = sorted({name for each in ripe for name in each.mark.objects if name in self._there})
        marked = [name for name in wanted if name.startswith(names.PACKS)]
        described: dict[str, list[bytes] | None] = {}
        packs: dict[str, PackEntry | None] = dict.fromkeys(marked)
        for name in wanted:
            if name.startswith(names.INDEX):
                entries = self._entries(name)
                described[name] = [entry.name for entry in entries] if entries is not None else None
                # Of all the others, which may be many, the names will do.
                packs |= {place: entry for entry in entries or () if (place := names.pack(entry.name.hex())) in packs}
        found, told = self._elsewhere({blob for entry in packs.values() if entry for blob in _blobs(entry)})
        for name in marked:
            # What no marked index object tells of cannot be compared with anything.
            if (entry := packs[name]) and all(blob in found for blob in _blobs(entry)):
                self._remove(name)
            else:
                self._needed.append(name)
        for name, tells in described.items():
            alone = {names.pack(pack.hex()) for pack in tells or () if pack not in told}
            blocking = alone & self._there.keys()
            if tells is None or blocking - self._waiting:
                self._needed.append(name)
            elif blocking:
                self._waiting.add(name)
            else:
                self._remove(name)
        for each in ripe:
            if any(name.startswith(names.SNAPSHOTS) for name in each.mark.objects):
                continue  # it is there for the locks, and `forget` removes it
            if not self._waiting.intersection(each.mark.objects):  # all of it is gone, or needed
                self._storage.delete(each.name)
        return Swept(self._removed, self._octets, sorted(self._waiting), self._until, self._needed)

    def _entries(self, name: str) -> list[PackEntry] | None:
        try:
            return index.unseal(self._storage.get(name), self._repository.secrets, name)
        except (Damaged, ObjectMissing):
            return None

    def _elsewhere(self, blobs: set[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Those of the blobs that are in packs that stay, and the names of all packs that indexes that stay tell of."""
        found: set[bytes] = set()
        told: set[bytes] = set()
        for entry in self._staying():
            told.add(entry.name)
            name = names.pack(entry.name.hex())
            if name not in self._marked and self._there.get(name) == entry.size:
                found.update(blobs.intersection(_blobs(entry)))
        return found, told

    def _staying(self) -> Iterator[PackEntry]:
        for name in [name for name in self._there if name.startswith(names.INDEX) and name not in self._marked]:
            yield from self._entries(name) or ()

    def _remove(self, name: str) -> None:
        until = self._storage.locks.until(name) if self._storage.locks else None
        if until and until > self._now:
            self._waiting.add(name)
            self._until = max(until, self._until or until)
            return
        self._storage.delete(name)
        self._removed += 1
        self._octets += self._there.pop(name)


def _blobs(entry: PackEntry) -> Iterator[bytes]:
    return (entry.ids[at : at + 32] for at in range(0, len(entry.ids), 32))
