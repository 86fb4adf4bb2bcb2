"""A survey of a repository, for whoever decides what may go: which blobs are where, and which of them are needed.

It is made of all index objects and the listing of packs, and kept in a temporary database, so memory stays bounded: 6
octets a blob, and the database's cache. Blobs have numbers, in the order of packs, blocks and places in blocks. Of a
blob that is in several packs one place counts as its home: in the pack that is most likely to stay.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from backupd.errors import Damaged, ObjectMissing, Overtaken
from backupd.repository import block, index, names, payload, recipe
from backupd.repository.index import PackEntry
from backupd.repository.index_cache import cut
from backupd.repository.keys import Role
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.surveyed import Index, Pack
from backupd.storage.base import ObjectInfo
from backupd.storage.parallel import at_once, in_order

_SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;
CREATE TABLE place (id BLOB, number INTEGER, parts BLOB, PRIMARY KEY (id, number)) WITHOUT ROWID;
CREATE TABLE learned (number INTEGER PRIMARY KEY, parts BLOB NOT NULL);
CREATE TABLE walked (membership INTEGER, state INTEGER, PRIMARY KEY (membership, state)) WITHOUT ROWID;
BEGIN;
"""
"""One transaction that never ends: nobody else sees it, and it goes with the survey."""

_ROWS_AT_ONCE = 65_536
_SMALL: Final = 256 << 10
"""Octets of an index object that may be read beside others: it tells of some 6,000 blobs."""

NEEDED: Final = 1
WALKED: Final = 2
"""Of a membership run: needed, and so is all that it names, which has been seen to."""


class Survey:
    """Made by `look`. Not thread-safe."""

    def __init__(self, repository: Repository, marked: Collection[str]) -> None:
        """marked: names of all objects that are marked."""
        self._repository, self._storage = repository, repository.storage
        self.marked = marked
        self.indexes: list[Index] = []
        self.packs: list[Pack] = []
        self.by_name: dict[bytes, Pack] = {}
        self.replaced: dict[int, set[int]] = {}
        """By pack, packs that are the home of needed blobs which it holds too."""
        self.unknown = 0
        """How many needed recipes do not tell what they need."""
        self.missing = 0
        """How many parts are needed, and nowhere."""
        # By block: the number of its first blob, its pack, its offset and length there.
        self._first, self._pack, self._offset, self._length = array("Q"), array("I"), array("Q"), array("Q")
        # By blob.
        self._state, self._kinds, self._sizes = bytearray(), bytearray(), array("I")
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Drop the temporary database."""
        self._database.close()

    # What is where

    def look(self) -> None:
        """List and read all. Indexes come first: whoever stores, stores packs before them. Raises Overtaken."""
        infos = list(self._storage.list(names.INDEX))
        listed = {info.name: info for info in self._storage.list(names.PACKS)}
        for info, entries in self._read(infos):
            found = Index(info.name, info.size, marked=info.name in self.marked)
            self.indexes.append(found)
            if entries is None:
                found.readable = False
                continue
            rows = (row for entry in entries for row in self._add(entry, found, listed))
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                self._database.executemany("INSERT OR IGNORE INTO place VALUES (?, ?, ?)", sorted(some, key=_ID))
        for name, info in listed.items():
            if (digest := _digest(name)) and digest not in self.by_name:
                self._new(digest, info.size, info)
        self._rank()

    def _read(self, infos: Iterable[ObjectInfo]) -> Iterator[tuple[ObjectInfo, list[PackEntry] | None]]:
        """What index objects tell; None: one of them is damaged. Small ones are read side by side."""

        def read(info: ObjectInfo) -> list[PackEntry] | None:
            try:
                return self.entries(info.name)
            except Damaged:
                return None

        for small, some in groupby(infos, lambda info: info.size <= _SMALL):
            yield from in_order(read, some, threads=at_once(self._storage) if small else 1)

    def entries(self, name: str) -> list[PackEntry]:
        """What an index object tells. Raises Damaged; Overtaken when somebody has removed it since it was listed."""
        return index.unseal(self.got(name), self._repository.secrets, name)

    def got(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Octets of an object that was listed. Raises Damaged; Overtaken when somebody has removed it since."""
        try:
            return self._storage.get(name, offset, length)
        except ObjectMissing as error:
            raise Overtaken(
                "others prune this repository at the same time", subject=self._storage.url, remedy="run it again"
            ) from error

    def _new(self, name: bytes, size: int, listed: ObjectInfo | None) -> Pack:
        pack = Pack(len(self.packs), name, size, listed, marked=names.pack(name.hex()) in self.marked)
        pack.first = len(self._first)
        self.packs.append(pack)
        self.by_name[name] = pack
        return pack

    def _add(
        self, entry: PackEntry, found: Index, listed: dict[str, ObjectInfo]
    ) -> Iterator[tuple[bytes, int, bytes | None]]:
        """Take in what an index object tells of a pack; rows for its blobs."""
        known = self.by_name.get(entry.name)
        parts = list(entry.parts_of_blobs())
        found.unknown |= None in parts
        pack = known or self._new(entry.name, entry.size, listed.get(names.pack(entry.name.hex())))
        pack.told.append(len(self.indexes) - 1)
        found.packs.append(pack.number)
        if not pack.listed:
            return
        if known:
            # It may tell what the one before did not.
            first = self._first[pack.first] if pack.blocks else 0
            self._learn((_id(entry, at), first + at, each) for at, each in enumerate(parts) if each)
            return
        number = len(self._state)
        at = 0
        for one in entry.blocks:
            self._first.append(number + at)
            self._pack.append(pack.number)
            self._offset.append(one.offset)
            self._length.append(one.length)
            at += one.blobs
        pack.blocks = len(entry.blocks)
        self._state += bytes(at)
        self._kinds += entry.kinds
        self._sizes.extend(entry.lengths)
        for place, needed in enumerate(parts):
            yield _id(entry, place), number + place, needed

    def _learn(self, rows: Iterable[tuple[bytes, int, bytes]]) -> None:
        """What the recipes in these places need."""
        query = "UPDATE place SET parts = ? WHERE id = ? AND number = ? AND parts IS NULL"
        for some_id, number, parts in rows:
            if self._database.execute(query, (parts, some_id, number)).rowcount:
                self._database.execute("INSERT OR REPLACE INTO learned VALUES (?, ?)", (number, parts))

    def _rank(self) -> None:
        """Which packs are most likely to stay: the last ones."""

        def order(pack: Pack) -> tuple[bool, bool, bool, int, bytes]:
            told = any(not self.indexes[each].marked for each in pack.told)
            return pack.good, not pack.marked, told, pack.size, pack.name

        for rank, pack in enumerate(sorted(self.packs, key=order)):
            pack.rank = rank

    def mark(self, objects: Collection[str]) -> None:
        """These are marked by now, too. It changes no home: that was chosen by what was marked before."""
        self.marked = frozenset(self.marked) | frozenset(objects)
        for index_object in self.indexes:
            index_object.marked = index_object.name in self.marked
        for pack in self.packs:
            pack.marked = pack.object in self.marked

    def leave_out(self, pack: Pack) -> None:
        """It is damaged: what it holds is to be found elsewhere, if it is elsewhere."""
        pack.good = False
        self._rank()
        for homes in self.replaced.values():
            homes.discard(pack.number)
        first, last = self._range(pack)
        query = "SELECT id, number FROM place WHERE number >= ? AND number < ?"
        for some_id, number in self._database.execute(query, (first, last)).fetchall():
            if self._state[number]:
                state, self._state[number] = self._state[number], 0
                home, _ = self.need(some_id)
                self._state[home] = max(self._state[home], state)

    # What is needed

    def need(self, blob: bytes, *, part: bool = False) -> tuple[int, bool]:
        """The blob is needed, and what it needs: (the number of its place, whether this is news); (-1, False) if it is
        nowhere. part: it is a part, which needs nothing."""
        rows = self._database.execute("SELECT number, parts FROM place WHERE id = ?", (blob,)).fetchall()
        if not rows:
            return -1, False
        number = rows[0][0]
        if len(rows) > 1:
            packs = [self.pack_of(each) for each, _ in rows]
            home = max(range(len(rows)), key=lambda at: packs[at].rank)
            number = rows[home][0]
            for pack in packs:
                if pack is not packs[home]:
                    self.replaced.setdefault(pack.number, set()).add(packs[home].number)
        if self._state[number]:
            return number, False
        self._state[number] = NEEDED
        # Recipes of one message are all the same, as long as nobody splits otherwise; else all of them are reckoned
        # with.
        for _, parts in () if part else rows:
            if parts is None:
                self.unknown += 1
            for each in cut(parts):
                if self.need(each, part=True)[0] < 0:
                    self.missing += 1
        return number, True

    def places(self, blob: bytes) -> list[tuple[int, bytes | None]]:
        """(number, ids of the parts that it needs there; None: not known) of all places of a blob."""
        return self._database.execute("SELECT number, parts FROM place WHERE id = ?", (blob,)).fetchall()

    def is_needed(self, number: int) -> bool:
        """Whether the blob is needed from this place."""
        return self._state[number] > 0

    def unneeded(self) -> list[int]:
        """Blocks of content, by number, of which some blob is not needed from there."""
        content, states, first = (BlobKind.PLAIN, BlobKind.RECIPE, BlobKind.ENVELOPES), self._state, self._first
        return [at for at, one in enumerate(first) if self._kinds[one] in content and 0 in states[one : self._end(at)]]

    def ids(self, block: int) -> list[tuple[int, bytes]]:
        """(number, id) of all blobs of a block."""
        self._database.execute("CREATE INDEX IF NOT EXISTS by_number ON place (number)")
        query = "SELECT number, id FROM place WHERE number >= ? AND number < ? ORDER BY number"
        return self._database.execute(query, (self._first[block], self._end(block))).fetchall()

    def pack_of(self, number: int) -> Pack:
        """The pack of a blob's place."""
        return self.packs[self._pack[self.block_of(number)]]

    def is_block_needed(self, block: int) -> bool:
        """Whether a blob is needed from this block."""
        return any(self._state[self._first[block] : self._end(block)])

    def octets(self, number: int) -> int:
        """Of a blob, before compression."""
        return self._sizes[number]

    def make_home(self, places: Iterable[int], home: int) -> None:
        """Of all places of a blob, it is needed from this one."""
        new = self.pack_of(home)
        for number in places:
            if number == home:
                continue
            self._state[home], self._state[number] = max(self._state[home], self._state[number]), 0
            if (old := self.pack_of(number)) is not new:
                self.replaced.setdefault(old.number, set()).add(new.number)

    def need_kinds(self, kinds: Collection[BlobKind]) -> None:
        """All blobs of these kinds are needed, as it is not known which."""
        rows = self._database.execute("SELECT DISTINCT id FROM place")
        wanted = {int(kind) for kind in kinds}
        while some := rows.fetchmany(_ROWS_AT_ONCE):
            for (blob,) in some:
                places = self._database.execute("SELECT number FROM place WHERE id = ?", (blob,)).fetchall()
                if any(self._kinds[number] in wanted for (number,) in places):
                    self.need(blob)

    def is_walked(self, number: int) -> bool:
        """Whether `walked` was called of this membership run."""
        return self._state[number] == WALKED

    def walked(self, membership: int, state: int | None = None) -> bool:
        """All that a membership run names is needed; or with a state run, what that names of it. Whether it is news."""
        if state is None:
            before, self._state[membership] = self._state[membership], WALKED
            return before != WALKED
        row = "INSERT OR IGNORE INTO walked VALUES (?, ?)"
        return self._database.execute(row, (membership, state)).rowcount > 0

    # Packs and blocks

    def _end(self, number: int) -> int:
        """The number after that of the last blob of a block."""
        return self._first[number + 1] if number + 1 < len(self._first) else len(self._state)

    def _range(self, pack: Pack) -> tuple[int, int]:
        if not pack.blocks:
            return 0, 0
        return self._first[pack.first], self._end(pack.first + pack.blocks - 1)

    def needed_blocks(self, pack: Pack) -> list[int]:
        """The numbers, in the pack, of its blocks with a blob that is needed from there."""
        return [at for at in range(pack.blocks) if self.is_block_needed(pack.first + at)]

    def needed_octets(self, pack: Pack) -> int:
        """Octets of these blocks."""
        return sum(self._length[pack.first + at] for at in self.needed_blocks(pack))

    def beside(self, pack: Pack) -> int:
        """Octets (before compression) of blobs that nobody needs, in blocks of the pack that stay for their
        neighbours."""
        octets = 0
        for at in self.needed_blocks(pack):
            first, end = self._first[pack.first + at], self._end(pack.first + at)
            octets += sum(self._sizes[number] for number in range(first, end) if not self._state[number])
        return octets

    def read(self, number: int) -> tuple[str, bytes]:
        """(the name of a blob's pack, the octets of its block). Raises Damaged, Overtaken."""
        at = self.block_of(number)
        name = self.packs[self._pack[at]].object
        return name, self.got(name, self._offset[at], self._length[at])

    def block_of(self, number: int) -> int:
        """The number of a blob's block."""
        return bisect_right(self._first, number) - 1

    def place_in_block(self, number: int) -> int:
        """A blob's number in its block."""
        return number - self._first[self.block_of(number)]

    # Recipes of which no index tells what they need

    def learn_parts(self) -> None:
        """Read those recipes, if this key can; what cannot be read stays unknown."""
        if self._repository.secrets.role is not Role.READER:
            return
        query = "SELECT id, number FROM place WHERE parts IS NULL"
        unknown = sorted(self._database.execute(query).fetchall(), key=itemgetter(1))
        blobs: list[tuple[BlobKind, memoryview]] = []
        last = -1
        for some_id, number in unknown:
            try:
                if self.block_of(number) != last:
                    last = self.block_of(number)
                    name, data = self.read(number)
                    blobs = payload.parse(block.unseal(data, self._repository.secrets, name), name)
                kind, blob = blobs[number - self._first[last]]
                parts = recipe.parts(recipe.decode(blob, "a recipe")) if kind is BlobKind.RECIPE else None
            except (Damaged, IndexError):
                continue
            if parts is not None:
                self._learn([(some_id, number, parts)])

    def has_learnt(self, of: Index) -> bool:
        """Whether something is known by now that this index object leaves out."""
        query = "SELECT 1 FROM learned WHERE number >= ? AND number < ? LIMIT 1"
        ranges = (self._range(self.packs[number]) for number in of.packs)
        return any(self._database.execute(query, each).fetchone() for each in ranges)

    def completed(self, entry: PackEntry) -> PackEntry:
        """What an index tells of a pack, and what was learnt since."""
        pack = self.by_name[entry.name]
        first, last = self._range(pack)
        query = "SELECT number, parts FROM learned WHERE number >= ? AND number < ?"
        learned = dict(self._database.execute(query, (first, last)).fetchall())
        if not learned:
            return entry
        recipes = [
            (number, parts)
            for number, (kind, parts) in enumerate(zip(entry.kinds, entry.parts_of_blobs(), strict=True), first)
            if kind == BlobKind.RECIPE
        ]
        parts = [learned.get(number) if parts is None else parts for number, parts in recipes]
        return PackEntry(entry.name, entry.size, entry.blocks, entry.ids, entry.kinds, entry.lengths, parts)


_ID = itemgetter(0)


def _id(entry: PackEntry, at: int) -> bytes:
    return entry.ids[32 * at : 32 * at + 32]


def _digest(name: str) -> bytes:
    digest = name.rpartition("/")[2]
    return bytes.fromhex(digest) if len(digest) == 64 and names.pack(digest) == name else b""
