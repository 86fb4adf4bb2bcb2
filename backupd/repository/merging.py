"""Small packs made into large ones, and small index objects into one; what is superfluous then is told, not removed.

Runs that bring little store small packs, and each object costs requests and a place in listings. A block says nothing
of where it lies, so blocks move as they are: that needs no key that reads mail. Nothing is called superfluous unless
what takes its place was read and is what its name says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from backupd.errors import Damaged, ObjectExists, ObjectMissing
from backupd.repository import index, names
from backupd.repository.index import MOST_BLOBS, BlockEntry, PackEntry
from backupd.repository.pack_writer import PACK_MAGIC, Sizes
from backupd.repository.repository import Repository
from backupd.storage.base import Buffer

FEWEST: Final = 8
"""Small objects of a kind, below which merging is not worth while."""

SMALL_INDEX: Final = 256 << 10


class Merged(NamedTuple):
    """superfluous: names of packs, then of index objects, that are not needed any more. packs, octets: of small packs
    that were moved; into: packs that they were moved to. damaged: names of packs that could not be moved.
    """

    superfluous: list[str]
    packs: int
    octets: int
    into: int
    damaged: list[str]


class _Moving(NamedTuple):
    """blocks: numbers of those that are needed."""

    entry: PackEntry
    blocks: list[int]


def merge(
    repository: Repository,
    marked: frozenset[str],
    *,
    fewest: int = FEWEST,
    sizes: Sizes | None = None,
    moved: Callable[[str, int], None] = lambda _name, _octets: None,
    stop: threading.Event | None = None,
) -> Merged:
    """Move and index what is worth it.

    Args:
        marked: what is superfluous already, and is not relied on.
        moved: told each pack that was moved, and its octets.
        stop: move no more, and end in order.
    """
    return _Merge(repository, marked, fewest, sizes or Sizes(), moved, stop or threading.Event()).run()


class _Merge:
    def __init__(
        self,
        repository: Repository,
        marked: frozenset[str],
        fewest: int,
        sizes: Sizes,
        moved: Callable[[str, int], None],
        stop: threading.Event,
    ) -> None:
        self._repository, self._storage = repository, repository.storage
        self._marked, self._fewest, self._sizes, self._moved = marked, fewest, sizes, moved
        self._stop = stop
        self._packs: dict[str, int] = {}
        self._small: dict[bytes, PackEntry] = {}
        self._described: dict[str, frozenset[bytes]] = {}
        self._small_indexes: set[str] = set()
        self._proved: dict[bytes, bool] = {}
        self._damaged: list[str] = []

    def run(self) -> Merged:
        self._look()
        moving, superfluous = self._needed()
        fresh: list[PackEntry] = []
        octets = packs = 0
        if len(moving) >= self._fewest:
            for entry, gone in self._written(moving):
                fresh += entry
                superfluous |= {each.name for each in gone}
                packs += len(gone)
                octets += sum(each.size for each in gone)
        indexes = [name for name, described in self._described.items() if described & superfluous]
        if len(self._small_indexes.union(indexes)) >= self._fewest:
            indexes = sorted(self._small_indexes.union(indexes))
        if indexes:
            self._repository.add_index(self._rewritten(fresh, indexes, superfluous))
        removed = [names.pack(each.hex()) for each in sorted(superfluous)]
        return Merged(removed + indexes, packs, octets, len(fresh), sorted(set(self._damaged)))

    def _look(self) -> None:
        self._packs = {
            info.name: info.size for info in self._storage.list(names.PACKS) if info.name not in self._marked
        }
        for info in list(self._storage.list(names.INDEX)):
            if info.name in self._marked:
                continue
            try:
                entries = self._entries(info.name)
            except (Damaged, ObjectMissing):
                continue  # it stays as it is; backups make up for it
            self._described[info.name] = frozenset(entry.name for entry in entries)
            if info.size < SMALL_INDEX:
                self._small_indexes.add(info.name)
            for entry in entries:
                if entry.size < self._sizes.pack // 2 and self._is_there(entry.name, entry.size):
                    self._small[entry.name] = entry

    def _entries(self, name: str) -> list[PackEntry]:
        return index.unseal(self._storage.get(name), self._repository.secrets, name)

    def _is_there(self, pack: bytes, size: int | None = None) -> bool:
        found = self._packs.get(names.pack(pack.hex()))
        return found is not None and size in (None, found)

    def _needed(self) -> tuple[list[_Moving], set[bytes]]:
        """Of the small packs: those with blocks of which some blob is nowhere else, and the names of all others."""
        moving: list[_Moving] = []
        superfluous: set[bytes] = set()
        taken: dict[bytes, bytes] = {}
        # The largest first: a pack that holds all that others hold makes them superfluous, and stays.
        for entry in sorted(self._small.values(), key=lambda each: (-each.size, each.name)):
            needed = []
            for number, ids in enumerate(_ids(entry)):
                homes = {taken.get(each) or self._elsewhere(each) for each in ids}
                if None in homes or not all(self._is_good(home) for home in homes if home):
                    needed.append(number)
                    taken.update(dict.fromkeys(ids, entry.name))
            if needed:
                moving.append(_Moving(entry, needed))
            else:
                superfluous.add(entry.name)
        return moving, superfluous

    def _elsewhere(self, blob: bytes) -> bytes | None:
        """The large pack that holds a blob, if one does."""
        location = self._repository.index.find(blob)
        if location is None or location.pack in self._small or not self._is_there(location.pack):
            return None
        return location.pack

    def _is_good(self, pack: bytes) -> bool:
        if pack not in self._proved:
            self._proved[pack] = self._got(pack) is not None
        return self._proved[pack]

    def _got(self, pack: bytes) -> bytes | None:
        """A pack's octets, if they are what its name says."""
        name = names.pack(pack.hex())
        try:
            data = self._storage.get(name)
        except (Damaged, ObjectMissing):
            data = b""
        if names.proves(name, [data]):
            return data
        self._damaged.append(name)
        return None

    def _written(self, moving: list[_Moving]) -> Iterator[tuple[list[PackEntry], list[PackEntry]]]:
        """Stores new packs: what is in each, and which small ones are moved with it."""
        target, gone = _Target(), list[PackEntry]()
        for entry, blocks in moving:
            data = self._got(entry.name)
            if data is None:
                continue
            if self._stop.is_set():
                break
            if target.blobs + len(entry.lengths) > MOST_BLOBS:
                yield [target.store(self._repository)], gone
                target, gone = _Target(), []
            target.take(entry, blocks, memoryview(data))
            gone.append(entry)
            self._moved(names.pack(entry.name.hex()), entry.size)
            if target.size >= self._sizes.pack:
                yield [target.store(self._repository)], gone
                target, gone = _Target(), []
        if len(gone) > 1:
            yield [target.store(self._repository)], gone

    def _rewritten(
        self, fresh: list[PackEntry], indexes: Iterable[str], superfluous: set[bytes]
    ) -> Iterator[PackEntry]:
        """What takes the place of the index objects: the new packs, and those described in them that stay."""
        yield from fresh
        told = set(superfluous)
        for name in indexes:
            for entry in self._entries(name):
                if entry.name not in told:
                    told.add(entry.name)
                    yield entry


class _Target:
    """A pack that is being put together."""

    def __init__(self) -> None:
        self._pieces: list[Buffer] = [PACK_MAGIC]
        self.size = len(PACK_MAGIC)
        self._blocks: list[BlockEntry] = []
        self._ids: list[bytes] = []
        self._kinds = bytearray()
        self._lengths: list[int] = []

    @property
    def blobs(self) -> int:
        """How many are in it."""
        return len(self._lengths)

    def take(self, entry: PackEntry, blocks: list[int], data: memoryview) -> None:
        """Take these blocks of a pack."""
        wanted, first = set(blocks), 0
        for number, block in enumerate(entry.blocks):
            last = first + block.blobs
            if number in wanted:
                self._pieces.append(data[block.offset : block.offset + block.length])
                self._blocks.append(
                    BlockEntry(self.size, block.length, block.kind, block.plain_length, block.blobs)
                )
                self.size += block.length
                self._ids.append(entry.ids[32 * first : 32 * last])
                self._kinds += entry.kinds[first:last]
                self._lengths += entry.lengths[first:last]
            first = last

    def store(self, repository: Repository) -> PackEntry:
        """Store it; what an index says of it."""
        digest = names.sha256(self._pieces)
        name = names.pack(digest)
        try:
            repository.storage.put(name, self._pieces)
        except ObjectExists:  # damaged: these are the bytes that the name promises
            repository.storage.replace(name, self._pieces)
        ids = b"".join(self._ids)
        return PackEntry(bytes.fromhex(digest), self.size, self._blocks, ids, bytes(self._kinds), self._lengths)


def _ids(entry: PackEntry) -> Iterator[list[bytes]]:
    """Ids of the blobs of each block."""
    first = 0
    for block in entry.blocks:
        yield [entry.ids[32 * number : 32 * number + 32] for number in range(first, first + block.blobs)]
        first += block.blobs
