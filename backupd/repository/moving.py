"""Moving blocks to new packs. A block says nothing of where it lies, so it moves as it is: that needs no key that reads
mail. A pack is read and compared with its name before anything of it is moved, or said to be elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from backupd.errors import Damaged, ObjectExists
from backupd.repository import names
from backupd.repository.index import MOST_BLOBS, BlockEntry, PackEntry
from backupd.repository.pack_writer import PACK_MAGIC, Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.survey import Survey
from backupd.repository.surveyed import Pack
from backupd.storage.base import Buffer


class Batch(NamedTuple):
    """A new pack that is stored, and those whose needed blocks it has now. octets: that were moved."""

    entry: PackEntry
    gone: list[Pack]
    octets: int


class Mover:
    """Moves what is needed of some packs. damaged: names of packs that are not what their names say."""

    def __init__(self, repository: Repository, survey: Survey, sizes: Sizes, stop: threading.Event) -> None:
        self._repository, self._storage = repository, repository.storage
        self._survey, self._sizes, self._stop = survey, sizes, stop
        self.damaged: dict[str, None] = {}
        self._proved: dict[int, bool] = {}

    def is_good(self, pack: Pack) -> bool:
        """Whether it is what its name says; it is read for that, once."""
        if pack.number not in self._proved:
            self._got(pack)
        return self._proved[pack.number]

    def _got(self, pack: Pack) -> bytes | None:
        try:
            data = self._survey.got(pack.object)
        except Damaged:
            data = b""
        self._proved[pack.number] = bool(names.proves(pack.object, [data]))
        if self._proved[pack.number]:
            return data
        self.damaged[pack.object] = None
        return None

    def move(
        self, packs: Iterable[Pack], moved: Callable[[str, int], None], *, even_one: Callable[[Pack], bool]
    ) -> Iterator[Batch]:
        """Store new packs. moved: told each pack that was moved, and its octets. even_one: whether a pack is worth
        moving alone; else it stays if no other comes with it.

        Ends in order when it is to stop; what is not in a batch yet stays where it is.
        """
        target = _Target()
        for pack, entry in self._entries(packs):
            data = self._got(pack)
            if data is None:
                continue
            if self._stop.is_set():
                break
            if target.gone and target.weight + entry.weight > MOST_BLOBS:
                yield from self._stored(target)
                target = _Target()
            target.take(pack, entry, self._survey.needed_blocks(pack), memoryview(data))
            del data  # before the next one is read
            moved(pack.object, pack.size)
            if target.size >= self._sizes.pack:
                yield from self._stored(target)
                target = _Target()
        if len(target.gone) > 1 or any(map(even_one, target.gone)):
            yield from self._stored(target)

    def _stored(self, target: _Target) -> Iterator[Batch]:
        """Store it, unless somebody has made the same before, and it is marked: others may be removing that. Then what
        it holds stays where it is until that has gone."""
        if target.object not in self._survey.marked:
            yield target.store(self._repository)

    def _entries(self, packs: Iterable[Pack]) -> Iterator[tuple[Pack, PackEntry]]:
        """What the index tells of these packs. Each index object is read once, and the order is the same wherever this
        is done, so that two machines that merge the same packs make the same of them."""
        indexes = self._survey.indexes
        of_index: dict[str, dict[bytes, Pack]] = {}
        for pack in packs:
            name = min(indexes[each].name for each in pack.told if not indexes[each].marked)
            of_index.setdefault(name, {})[pack.name] = pack
        for name in sorted(of_index):
            wanted = of_index[name]
            for entry in self._survey.entries(name):
                if found := wanted.pop(entry.name, None):
                    yield found, self._survey.completed(entry)


class _Target:
    """A pack that is being put together."""

    def __init__(self) -> None:
        self._pieces: list[Buffer] = [PACK_MAGIC]
        self.size = len(PACK_MAGIC)
        self.gone: list[Pack] = []
        self.weight = 0
        self._blocks: list[BlockEntry] = []
        self._ids: list[bytes] = []
        self._kinds = bytearray()
        self._lengths: list[int] = []
        self._parts: list[bytes | None] = []

    def take(self, pack: Pack, entry: PackEntry, blocks: Sequence[int], data: memoryview) -> None:
        """Take these blocks of a pack."""
        self.gone.append(pack)
        self.weight += entry.weight
        wanted, first = set(blocks), 0
        parts = list(entry.parts_of_blobs())
        for number, block in enumerate(entry.blocks):
            last = first + block.blobs
            if number in wanted:
                # A copy: a part of it would keep all of the pack in memory, of which perhaps little is needed.
                self._pieces.append(bytes(data[block.offset : block.offset + block.length]))
                self._blocks.append(
                    BlockEntry(self.size, block.length, block.kind, block.plain_length, block.blobs)
                )
                self.size += block.length
                self._ids.append(entry.ids[32 * first : 32 * last])
                self._kinds += entry.kinds[first:last]
                self._lengths += entry.lengths[first:last]
                self._parts += [
                    parts[at] for at in range(first, last) if entry.kinds[at] == BlobKind.RECIPE
                ]
            first = last

    @cached_property
    def object(self) -> str:
        """Its object's name, when nothing is to be taken any more."""
        return names.pack(names.sha256(self._pieces))

    def store(self, repository: Repository) -> Batch:
        """Store it."""
        name = self.object
        try:
            repository.storage.put(name, self._pieces)
        except ObjectExists:  # damaged: these are the bytes that the name promises
            repository.storage.replace(name, self._pieces)
        parts = self._parts if any(each is not None for each in self._parts) else None
        entry = PackEntry(
            name=bytes.fromhex(name.rpartition("/")[2]),
            size=self.size,
            blocks=self._blocks,
            ids=b"".join(self._ids),
            kinds=bytes(self._kinds),
            lengths=self._lengths,
            parts=parts,
        )
        return Batch(entry, self.gone, self.size - len(PACK_MAGIC))
