"""A local cache of the index in SQLite: where each blob is. Deleted, it is rebuilt from the repository.

It keeps memory bounded whatever the number of blobs, and answers in microseconds.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from backupd.errors import StateDamaged, StorageDenied, StorageError, StorageFull
from backupd.repository.blob_filter import BlobFilter
from backupd.repository.index import PackEntry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS repository (number INTEGER PRIMARY KEY, id BLOB UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS index_object (repository INTEGER, name TEXT, PRIMARY KEY (repository, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pack (
    number INTEGER PRIMARY KEY, repository INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
    UNIQUE (repository, name));
CREATE TABLE IF NOT EXISTS block (
    number INTEGER PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS place (
    repository INTEGER, id BLOB, block INTEGER, ordinal INTEGER NOT NULL, length INTEGER NOT NULL, parts BLOB,
    PRIMARY KEY (repository, id, block)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    repository INTEGER, pack BLOB, offset INTEGER, size INTEGER NOT NULL, PRIMARY KEY (repository, pack, offset))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (repository INTEGER, pack BLOB, PRIMARY KEY (repository, pack)) WITHOUT ROWID;
"""
"""place.parts: of a recipe the ids of the blobs that it needs, NULL where that is not known; empty of all others. told:
packs that are lost, and that index objects in the cache tell of."""

_EARLIER = "SELECT 1 FROM sqlite_master WHERE name = 'blob'"
_ANEW = "DROP TABLE blob; DELETE FROM index_object; DELETE FROM pack; DELETE FROM block;"
"""A cache of an earlier version knew one place of a blob, and nothing of parts."""

WHOLE_PACK = -1
"""In place of an offset: the pack is missing, so none of its blocks counts."""


Lost = tuple[bytes, int]
"""A pack's name, and the offset of a block in it."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sqlite_error(error: OSError | sqlite3.Error, place: Path | str) -> StorageError:
    """What a failure of the local state means to a user. place: the file or folder."""
    text, where = str(error), str(place)
    if (error.errno in _NO_ROOM) if isinstance(error, OSError) else "full" in text:
        return StorageFull("no space for the state", subject=where, remedy="free some space, or move state_dir")
    if is_damage(error):
        return StateDamaged(
            f"the state is damaged: {text}",
            subject=where,
            remedy="restart the daemon, or end what uses it and remove state.sqlite* there: it is built anew",
        )
    return StorageDenied(f"the state cannot be kept: {text}", subject=where, remedy="check state_dir's owner")


def is_damage(error: OSError | sqlite3.Error) -> bool:
    """Whether the database itself is damaged, so that it has to be made anew."""
    return "malformed" in str(error) or "not a database" in str(error)


class Location(NamedTuple):
    """Where a blob is: the pack's name, the block's place in it, and the blob's number in the block."""

    pack: bytes
    offset: int
    length: int
    ordinal: int


_PlaceRow = tuple[int, bytes, int | None, int, int, bytes | None]
"""repository, id, block, ordinal, length, parts."""

Home = tuple[bytes, bytes | None]
"""The name of a pack that holds a blob, and there the ids of the blobs that it needs; None: not known."""

def cut(ids: bytes | None) -> list[bytes]:
    """Ids that stand one after another."""
    return [ids[at : at + 32] for at in range(0, len(ids), 32)] if ids else []


_ROWS_AT_ONCE = 65_536
_ASKED_AT_ONCE = 500


def _in_order(rows: Iterable[_PlaceRow]) -> Iterator[list[_PlaceRow]]:
    """Rows in stretches, each in the order of its ids: ids are random, and SQLite takes 100,000 of them into a million
    in 0.5 s when they come in order, in 0.9 s when they do not. Of equal ids the first stays the first."""
    rows = iter(rows)
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield sorted(some, key=itemgetter(1))


class IndexCache:
    """The cached index of one repository. Safe to use from several threads and several processes."""

    def __init__(self, path: Path | None, repository: bytes) -> None:
        """path: the SQLite file, shared with other state; None keeps the cache in memory."""
        self._mutex = threading.RLock()  # "whole" holds it around all the others
        self._stale = False
        self._place = path.parent if path else Path()
        with self._locked():
            self._database = sqlite3.connect(
                str(path) if path else ":memory:", check_same_thread=False, isolation_level=None, timeout=60
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("PRAGMA cache_size=-16384")
            self._database.executescript(_SCHEMA)
            if self._database.execute(_EARLIER).fetchone():
                self._database.executescript(_ANEW)
            self._database.execute("INSERT OR IGNORE INTO repository (id) VALUES (?)", (repository,))
            (self._number,) = self._database.execute(
                "SELECT number FROM repository WHERE id = ?", (repository,)
            ).fetchone()
            self._filter = BlobFilter(path.with_name(f"blobs-{repository.hex()}") if path else None)
            if not self._filter.open():
                with self._transaction():
                    if not self._filter.open():
                        self._make_filter()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One thread at a time, and errors of SQLite as those of the state."""
        with self._mutex:
            try:
                yield
            except (OSError, sqlite3.Error) as error:
                raise sqlite_error(error, self._place) from error

    def _make_filter(self) -> None:
        """Anew from what SQLite has. Within a transaction, so that no other process adds to one that is replaced."""
        where = "FROM place WHERE repository = ?"
        (count,) = self._database.execute(f"SELECT count(*) {where}", (self._number,)).fetchone()
        blobs = self._database.execute(f"SELECT id {where}", (self._number,))
        self._filter.make((blob for (blob,) in blobs), count)

    def objects(self) -> set[str]:
        """Names of the index objects that are in the cache."""
        with self._locked():
            rows = self._database.execute("SELECT name FROM index_object WHERE repository = ?", (self._number,))
            return {name for (name,) in rows}

    def add(self, name: str, packs: Iterable[PackEntry]) -> None:
        """Take in an index object; all of it or, if this fails, nothing."""
        with self._locked(), self._transaction() as database:
            found = database.execute("SELECT 1 FROM index_object WHERE repository=? AND name=?", (self._number, name))
            if found.fetchone():
                return
            lost = self._lost_now()
            self._filter.open()  # another process may have made a larger one
            for rows in _in_order(row for pack in packs for row in self._add_pack(pack, lost)):
                database.executemany("INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?, ?, ?)", rows)
                self._filter.add(row[1] for row in rows)
            if self._filter.is_full:
                self._make_filter()
            database.execute("INSERT INTO index_object VALUES (?, ?)", (self._number, name))

    def _add_pack(self, pack: PackEntry, lost: Collection[Lost]) -> Iterator[_PlaceRow]:
        """Add a pack and its blocks; the rows of its blobs, which are yet to be added."""
        database = self._database
        if (pack.name, WHOLE_PACK) in lost:
            database.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (self._number, pack.name))
            return
        inserted = database.execute(
            "INSERT OR IGNORE INTO pack (repository, name, size) VALUES (?, ?, ?)", (self._number, pack.name, pack.size)
        )
        if not inserted.rowcount:
            return
        pack_number, blob = inserted.lastrowid, 0
        parts = pack.parts_of_blobs()
        for entry in pack.blocks:
            if (pack.name, entry.offset) in lost:  # so that another copy of its blobs is found, or made
                blob += entry.blobs
                deque(islice(parts, entry.blobs), maxlen=0)
                continue
            block = database.execute(
                "INSERT INTO block (pack, offset, length) VALUES (?, ?, ?)", (pack_number, entry.offset, entry.length)
            ).lastrowid
            for i in range(entry.blobs):
                identity = pack.ids[32 * (blob + i) : 32 * (blob + i + 1)]
                yield self._number, identity, block, i, pack.lengths[blob + i], next(parts)
            blob += entry.blobs

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is done within, other threads and processes see when it ends: nobody meets a cache that was emptied and
        is not full again, and takes what is stored for lost. It keeps them waiting for so long."""
        with self._locked(), self._transaction():
            yield
            if self._stale:
                self._stale = False
                self._make_filter()

    def clear(self) -> None:
        """Forget everything known of this repository, because an index object has gone: it is read anew."""
        with self._locked(), self._transaction() as database:
            database.execute("DELETE FROM place WHERE repository = ?", (self._number,))
            database.execute(
                "DELETE FROM block WHERE pack IN (SELECT number FROM pack WHERE repository = ?)", (self._number,)
            )
            database.execute("DELETE FROM pack WHERE repository = ?", (self._number,))
            database.execute("DELETE FROM index_object WHERE repository = ?", (self._number,))
            database.execute("DELETE FROM told WHERE repository = ?", (self._number,))
            self._stale = True  # it says "perhaps" more often than it should, until it is made anew

    def packs(self) -> dict[bytes, int]:
        """Size of each pack that an index object describes, by name; those that are lost too."""
        with self._locked():
            rows = self._database.execute(
                "SELECT name, size FROM pack WHERE repository = ?1 UNION"
                " SELECT pack, size FROM lost JOIN told USING (repository, pack) WHERE repository = ?1 AND offset = ?2",
                (self._number, WHOLE_PACK),
            )
            return dict(rows.fetchall())

    def offsets(self, pack: bytes) -> list[int]:
        """Where the blocks of a pack begin."""
        with self._locked():
            query = "SELECT offset FROM block JOIN pack ON pack.number = block.pack WHERE repository = ? AND name = ?"
            return [offset for (offset,) in self._database.execute(query, (self._number, pack))]

    def size(self, pack: bytes) -> int:
        """Octets of a pack; 0 for one that no index object describes."""
        with self._locked():
            query = "SELECT size FROM pack WHERE repository = ? AND name = ?"
            row = self._database.execute(query, (self._number, pack)).fetchone()
            return int(row[0]) if row else 0

    def lost(self) -> set[Lost]:
        """Blocks known to be lost: (pack, offset), or (pack, WHOLE_PACK)."""
        with self._locked():
            return self._lost_now()

    def _lost_now(self) -> set[Lost]:
        rows = self._database.execute("SELECT pack, offset FROM lost WHERE repository = ?", (self._number,))
        return set(rows.fetchall())

    def set_lost(self, lost: Mapping[Lost, int]) -> None:
        """Remember what is lost, with the size of each pack (0 for a block). It counts for what is added from then on.
        """
        with self._locked(), self._transaction() as database:
            database.execute("DELETE FROM lost WHERE repository = ?", (self._number,))
            database.executemany(
                "INSERT INTO lost VALUES (?, ?, ?, ?)", [(self._number, *each, size) for each, size in lost.items()]
            )

    def mark_lost(self, pack: bytes, offset: int, size: int = 0) -> None:
        """Remember that a block cannot be read, or with WHOLE_PACK that a pack of this size is missing."""
        with self._locked():
            row = (self._number, pack, offset, size)
            self._database.execute("INSERT OR IGNORE INTO lost VALUES (?, ?, ?, ?)", row)

    def has_block(self, pack: bytes, offset: int) -> bool:
        """Whether the block counts, or with WHOLE_PACK any block of the pack."""
        with self._locked():
            query = (
                "SELECT 1 FROM pack LEFT JOIN block ON block.pack = pack.number"
                " WHERE repository = ?1 AND name = ?2 AND (?3 = ?4 OR offset = ?3) LIMIT 1"
            )
            return self._database.execute(query, (self._number, pack, offset, WHOLE_PACK)).fetchone() is not None

    def find(self, blob: bytes) -> Location | None:
        """Where the blob is, or None. Of several places one that is not known to be lost; of several recipes of a
        message, one of which all parts are there."""
        with self._locked():
            rows = self._database.execute(
                "SELECT pack.name, block.offset, block.length, place.ordinal, place.parts FROM place"
                " JOIN block ON block.number = place.block JOIN pack ON pack.number = block.pack"
                " WHERE place.repository = ? AND place.id = ? ORDER BY place.block",
                (self._number, blob),
            ).fetchall()
        if len(rows) > 1:
            lost = self.lost()
            rows.sort(key=lambda row: ((row[0], row[1]) in lost, not all(map(self.has, cut(row[4])))))
        return Location(*rows[0][:4]) if rows else None

    def homes(self, blob: bytes) -> list[Home]:
        """All packs that hold the blob, those first that were known first."""
        if blob not in self._filter:
            return []
        with self._locked():
            return self._database.execute(
                "SELECT pack.name, place.parts FROM place JOIN block ON block.number = place.block"
                " JOIN pack ON pack.number = block.pack WHERE place.repository = ? AND place.id = ?"
                " ORDER BY place.block",
                (self._number, blob),
            ).fetchall()

    def is_whole(self, blob: bytes) -> bool:
        """Whether the blob is there with all that it is known to need."""
        return any(all(map(self.has, cut(parts))) for _, parts in self.homes(blob))

    def may_have(self, blob: bytes) -> bool:
        """Whether it is worth looking; False for nearly all that is not in the index."""
        return blob in self._filter

    def has(self, blob: bytes) -> bool:
        """Whether the blob is in the index."""
        if blob not in self._filter:
            return False
        # Asked for each message of a backup, so without the context manager, which costs as much as the answer.
        try:
            with self._mutex:
                query = "SELECT 1 FROM place WHERE repository = ? AND id = ?"
                return self._database.execute(query, (self._number, blob)).fetchone() is not None
        except sqlite3.Error as error:
            raise sqlite_error(error, self._place) from error

    def stored(self) -> tuple[int, int]:
        """(packs, their octets) that index objects describe; quick, whatever the number of blobs."""
        with self._locked():
            row = self._database.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM pack WHERE repository = ?", (self._number,)
            ).fetchone()
        return int(row[0]), int(row[1])

    def lacking(self, blobs: Iterable[bytes]) -> set[bytes]:
        """Those of the blobs that are not in the index. Of many, it takes a fifth of the time of asking for each."""
        missing: set[bytes] = set()
        wanted = iter(sorted(blobs))
        while some := list(islice(wanted, _ASKED_AT_ONCE)):
            query = (
                f"WITH wanted (id) AS (VALUES {', '.join(['(?)'] * len(some))}) SELECT id FROM wanted"  # noqa: S608
                " WHERE NOT EXISTS (SELECT 1 FROM place WHERE repository = ? AND place.id = wanted.id)"
            )
            with self._locked():
                missing.update(blob for (blob,) in self._database.execute(query, (*some, self._number)))
        return missing

    def totals(self) -> tuple[int, int, int]:
        """(packs, their bytes, blobs)."""
        with self._locked():
            packs, size = self._database.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM pack WHERE repository = ?", (self._number,)
            ).fetchone()
            (blobs,) = self._database.execute(
                "SELECT count(DISTINCT id) FROM place WHERE repository = ?", (self._number,)
            ).fetchone()
        return packs, size, blobs

    def close(self) -> None:
        """Close the database."""
        with self._locked():
            self._database.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)


class _Transaction:
    """A transaction, or a part of the one that is under way."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._part = database, False

    def __enter__(self) -> sqlite3.Connection:
        self._part = self._database.in_transaction
        if not self._part:
            self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def __exit__(self, kind: object, *_: object) -> None:
        if self._part:
            return
        if kind is None:
            self._database.execute("COMMIT")
        elif self._database.in_transaction:  # SQLite itself rolls back when the disk is full
            self._database.execute("ROLLBACK")
