"""What a machine knows of repositories' signed records, in its local state: which entries it has seen, which of them
are the last, and what they say is there and gone.

A part of `State`, in tables of its own. It is what tells that the newest entries were taken away; lost, it is read from
the record again. A ledger is known by the address and the id of its repository.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager

import msgspec

from backupd.repository.record import Entry

RECORD_SCHEMA = """
CREATE TABLE IF NOT EXISTS record_ledger (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS record_object (
    number INTEGER PRIMARY KEY, ledger INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    UNIQUE (ledger, name));
CREATE TABLE IF NOT EXISTS record_entry (
    ledger INTEGER, id BLOB, object INTEGER NOT NULL, time TEXT NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (ledger, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_entry_of_object ON record_entry (object);
CREATE TABLE IF NOT EXISTS record_head (ledger INTEGER, id BLOB, PRIMARY KEY (ledger, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_wanted (ledger INTEGER, id BLOB, PRIMARY KEY (ledger, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_added (
    ledger INTEGER, name TEXT, entry BLOB, digest BLOB NOT NULL, PRIMARY KEY (ledger, name, entry)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_removed (
    ledger INTEGER, name TEXT, entry BLOB, done INTEGER NOT NULL, PRIMARY KEY (ledger, name, entry)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_despite (
    ledger INTEGER, name TEXT, entry BLOB, PRIMARY KEY (ledger, name, entry)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_accepted (ledger INTEGER, id BLOB, PRIMARY KEY (ledger, id)) WITHOUT ROWID;
"""

_NOT_BACK = (
    "NOT EXISTS (SELECT 1 FROM record_despite d WHERE d.ledger = r.ledger AND d.name = r.name AND d.entry = r.entry)"
)
"""Of a removal: nothing has brought back what it took."""
_MISSING = (
    "SELECT DISTINCT name FROM record_added a WHERE ledger = ?1 AND NOT EXISTS (SELECT 1 FROM record_removed r"  # noqa: S608
    f" WHERE r.ledger = a.ledger AND r.name = a.name AND {_NOT_BACK})"
)
_REMOVED = (
    f"SELECT name, max(done) FROM record_removed r WHERE ledger = ?1 AND {_NOT_BACK} GROUP BY name"  # noqa: S608
)
_LIVE = (
    "SELECT r.name, r.entry, e.time FROM record_removed r JOIN record_entry e"  # noqa: S608
    f" ON e.ledger = r.ledger AND e.id = r.entry WHERE r.ledger = ?1 AND {_NOT_BACK}"
)
_WAITING = (
    f"{_LIVE} AND done = 0 AND r.name NOT IN"  # noqa: S608
    f" (SELECT name FROM record_removed r WHERE ledger = ?1 AND done = 1 AND {_NOT_BACK})"
)
_GONE_BY = f"SELECT name FROM ({_LIVE} AND done = 1 AND e.kind = ?2)"  # noqa: S608
_UNACCEPTED = "id NOT IN (SELECT id FROM record_accepted WHERE ledger = ?1)"


class RecordState(ABC):
    """The part of the state that is about signed records."""

    @abstractmethod
    def _read(self, query: str, *values: object) -> list[tuple[object, ...]]: ...

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def ledger(self, name: str) -> int:
        """The number of the ledger of this name, from now on."""
        if found := self._read("SELECT number FROM record_ledger WHERE name = ?", name):
            return int(str(found[0][0]))
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO record_ledger VALUES (NULL, ?)", (name,))
        return self.ledger(name)

    def record_learn(self, ledger: int, name: str, size: int, entries: Iterable[tuple[bytes, Entry]]) -> None:
        """An object of the record holds these entries, and no others: what it held before may be in others."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO record_object VALUES (NULL, ?, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size",
                (ledger, name, size),
            )
            (number,) = database.execute(
                "SELECT number FROM record_object WHERE ledger = ? AND name = ?", (ledger, name)
            ).fetchone()
            database.execute("UPDATE record_entry SET object = 0 WHERE object = ?", (number,))
            for key, entry in entries:
                _learn(database, ledger, number, key, entry)

    def record_gone(self, ledger: int, names: Iterable[str]) -> None:
        """These objects of the record are not there any more; what they held may be in others."""
        gone = [(ledger, name) for name in names]
        with self._transaction() as database:
            # SQLite gives the number of a row that is deleted to the next one, which does not hold these entries.
            database.executemany(
                "UPDATE record_entry SET object = 0 WHERE object ="
                " (SELECT number FROM record_object WHERE ledger = ? AND name = ?)",
                gone,
            )
            database.executemany("DELETE FROM record_object WHERE ledger = ? AND name = ?", gone)

    def record_objects(self, ledger: int) -> dict[str, int]:
        """Sizes of the objects that were read."""
        rows = self._read("SELECT name, size FROM record_object WHERE ledger = ?", ledger)
        return {str(name): int(str(size)) for name, size in rows}

    def record_heads(self, ledger: int) -> list[bytes]:
        """Ids of the entries that no known entry comes after."""
        return [_octets(key) for (key,) in self._read("SELECT id FROM record_head WHERE ledger = ?", ledger)]

    def record_has(self, ledger: int, key: bytes) -> bool:
        """Whether this entry was ever seen."""
        return bool(self._read("SELECT 1 FROM record_entry WHERE ledger = ? AND id = ?", ledger, key))

    def record_vouched(self, ledger: int, key: bytes) -> bool | None:
        """Whether this entry is in an object that is there; None if it is not, and somebody has accepted that."""
        there = "SELECT 1 FROM record_entry e JOIN record_object o ON o.number = e.object WHERE e.ledger = ? AND id = ?"
        if self._read(there, ledger, key):
            return True
        return None if self._read("SELECT 1 FROM record_accepted WHERE ledger = ? AND id = ?", ledger, key) else False

    def record_known(self, ledger: int) -> bool:
        """Whether any entry was ever seen."""
        return bool(self._read("SELECT 1 FROM record_entry WHERE ledger = ? LIMIT 1", ledger))

    def record_count(self, ledger: int) -> int:
        """How many entries were ever seen."""
        return int(str(self._read("SELECT count(*) FROM record_entry WHERE ledger = ?", ledger)[0][0]))

    def record_wanted(self, ledger: int) -> list[bytes]:
        """Ids of entries that others come after, that were never seen, and that nobody has accepted as lost."""
        query = f"SELECT id FROM record_wanted WHERE ledger = ?1 AND {_UNACCEPTED}"  # noqa: S608
        return [_octets(key) for (key,) in self._read(query, ledger)]

    def record_lost(self, ledger: int) -> list[tuple[bytes, str, str]]:
        """(id, time, kind) of entries that were seen and are in no object any more, unless somebody has accepted that;
        the latest first."""
        rows = self._read(
            f"SELECT id, time, kind FROM record_entry WHERE ledger = ?1 AND {_UNACCEPTED}"  # noqa: S608
            " AND object NOT IN (SELECT number FROM record_object WHERE ledger = ?1) ORDER BY time DESC",
            ledger,
        )
        return [(_octets(key), str(time), str(kind)) for key, time, kind in rows]

    # What the entries say together

    def record_missing(self, ledger: int, there: Collection[str]) -> list[str]:
        """Names of what was added, that nothing has taken, and that is not there."""
        return [str(name) for (name,) in self._read(_MISSING, ledger) if name not in there]

    def record_removed(self, ledger: int) -> dict[str, bool]:
        """Names of what was removed, and whether it is known to have been gone."""
        return {str(name): bool(done) for name, done in self._read(_REMOVED, ledger)}

    def record_waiting(self, ledger: int) -> dict[str, dict[bytes, str]]:
        """Names of what was to be removed and is not known to be gone, each with the entries that say so and their
        times."""
        found: dict[str, dict[bytes, str]] = {}
        for name, entry, time in self._read(_WAITING, ledger):
            found.setdefault(str(name), {})[_octets(entry)] = str(time)
        return found

    def record_gone_by(self, ledger: int, kind: str) -> set[str]:
        """Names of what an entry of this kind says is gone."""
        return {str(name) for (name,) in self._read(_GONE_BY, ledger, kind)}

    def record_removals_of(self, ledger: int, names: Collection[str]) -> list[bytes]:
        """Ids of the entries by which these were removed."""
        found: list[bytes] = []
        for name in names:
            rows = self._read("SELECT entry FROM record_removed WHERE ledger = ? AND name = ?", ledger, name)
            found += [_octets(entry) for (entry,) in rows]
        return list(dict.fromkeys(found))

    def record_unknown(self, ledger: int, names: Sequence[str]) -> list[str]:
        """Those of these names, which are in order, of which no entry tells."""
        if not names:
            return []
        known: set[object] = set()
        for table in ("record_added", "record_removed"):
            query = f"SELECT DISTINCT name FROM {table} WHERE ledger = ? AND name BETWEEN ? AND ?"  # noqa: S608
            known.update(name for (name,) in self._read(query, ledger, names[0], names[-1]))
        return [name for name in names if name not in known]


def _learn(database: sqlite3.Connection, ledger: int, number: int, key: bytes, entry: Entry) -> None:
    def have(table: str, each: bytes) -> bool:
        query = f"SELECT 1 FROM {table} WHERE ledger = ? AND id = ?"  # noqa: S608
        return database.execute(query, (ledger, each)).fetchone() is not None

    if have("record_entry", key):
        database.execute("UPDATE record_entry SET object = ? WHERE ledger = ? AND id = ?", (number, ledger, key))
        return
    database.execute("INSERT INTO record_entry VALUES (?, ?, ?, ?, ?)", (ledger, key, number, entry.time, entry.kind))
    # Entries may be met in any order: one that others come after is no head, although it is new.
    if have("record_wanted", key):
        database.execute("DELETE FROM record_wanted WHERE ledger = ? AND id = ?", (ledger, key))
    else:
        database.execute("INSERT INTO record_head VALUES (?, ?)", (ledger, key))
    for before in entry.after:
        if have("record_entry", before):
            database.execute("DELETE FROM record_head WHERE ledger = ? AND id = ?", (ledger, before))
        else:
            database.execute("INSERT OR IGNORE INTO record_wanted VALUES (?, ?)", (ledger, before))
    database.executemany(
        "INSERT OR IGNORE INTO record_added VALUES (?, ?, ?, ?)",
        [(ledger, name, key, digest) for name, digest in entry.adds],
    )
    removed = [(ledger, name, key, 0) for name in entry.going] + [(ledger, name, key, 1) for name in entry.gone]
    database.executemany("INSERT OR REPLACE INTO record_removed VALUES (?, ?, ?, ?)", removed)
    database.executemany(
        "INSERT OR IGNORE INTO record_despite VALUES (?, ?, ?)",
        [(ledger, name, before) for name, _ in entry.adds for before in entry.despite],
    )
    database.executemany("INSERT OR IGNORE INTO record_accepted VALUES (?, ?)", [(ledger, each) for each in entry.lost])


def _octets(value: object) -> bytes:
    return msgspec.convert(value, bytes)
