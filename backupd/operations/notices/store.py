"""Open causes, and messages on their way, in the state database: a restart repeats nothing and loses nothing.

What was decided and what is to be sent because of it are stored in one transaction. A message stays until it has
arrived, so one that was sent in the very moment of a crash may come twice; none is ever lost that way.

The tables are in the file of the state (backupd/operations/state.py), over a connection of their own. Like all of the
state they may be lost: then open causes are told once more.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from backupd.operations.notices.causes import Cause, Memory, changed
from backupd.operations.notices.wording import Text
from backupd.repository.index_cache import sqlite_error

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notice_cause (
    target TEXT, key TEXT, record BLOB NOT NULL, PRIMARY KEY (target, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notice_memory (target TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notice_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, target TEXT NOT NULL, made REAL NOT NULL, text BLOB NOT NULL,
    attempts INTEGER NOT NULL, error TEXT NOT NULL, given_up INTEGER NOT NULL);
"""


class Waiting(msgspec.Struct, frozen=True):
    """A message that has not arrived. made: seconds since 1970. attempts: so far. error: why the last one failed, empty
    before the first. given_up: it is not tried again; it is mentioned in the next message that arrives."""

    number: int
    target: str
    made: float
    text: Text
    attempts: int = 0
    error: str = ""
    given_up: bool = False


class NoticeStore:
    """Safe to use from several threads and processes. All methods raise StorageError, StorageFull, StorageDenied."""

    def __init__(self, path: Path) -> None:
        """path: of the state's database; its folder is there."""
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise sqlite_error(error, self._path.parent) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                if self._database.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def memory(self, target: str) -> Memory:
        """What is remembered for a target; nothing, for a new one."""
        with self._lock, self._errors():
            query = "SELECT key, record FROM notice_cause WHERE target = ?"
            rows = self._database.execute(query, (target,)).fetchall()
            rest = self._database.execute("SELECT record FROM notice_memory WHERE target = ?", (target,)).fetchone()
        try:
            causes = {str(key): msgspec.json.decode(record, type=Cause) for key, record in rows}
            memory = msgspec.json.decode(rest[0], type=Memory) if rest else Memory()
        except msgspec.DecodeError:
            return Memory()  # of a later version: what is open is told once more
        return msgspec.structs.replace(memory, causes=causes)

    def targets(self) -> list[str]:
        """Names of the targets of which anything is remembered."""
        with self._lock, self._errors():
            return [str(name) for (name,) in self._database.execute("SELECT target FROM notice_memory ORDER BY target")]

    def save(self, target: str, before: Memory, after: Memory, made: Sequence[Waiting] = ()) -> list[Waiting]:
        """Remember, and keep the messages that were made because of it; these with their numbers."""
        keys = changed(before, after)
        stored = [(target, key, _encoded(each)) for key in keys if (each := after.causes.get(key))]
        gone = [(target, key) for key in keys if key not in after.causes]
        kept = []
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO notice_cause VALUES (?, ?, ?)", stored)
            database.executemany("DELETE FROM notice_cause WHERE target = ? AND key = ?", gone)
            rest = _encoded(msgspec.structs.replace(after, causes={}))
            database.execute("INSERT OR REPLACE INTO notice_memory VALUES (?, ?)", (target, rest))
            for message in made:
                row = (target, message.made, _encoded(message.text))
                done = database.execute("INSERT INTO notice_outbox VALUES (NULL, ?, ?, ?, 0, '', 0)", row)
                kept.append(msgspec.structs.replace(message, number=int(done.lastrowid or 0)))
        return kept

    def outbox(self) -> list[Waiting]:
        """All messages that have not arrived, the oldest first."""
        with self._lock, self._errors():
            query = "SELECT number, target, made, text, attempts, error, given_up FROM notice_outbox ORDER BY number"
            rows = self._database.execute(query).fetchall()
        return [
            Waiting(number, target, made, msgspec.json.decode(text, type=Text), attempts, error, bool(given_up))
            for number, target, made, text, attempts, error, given_up in rows
        ]

    def arrived(self, numbers: Iterable[int]) -> None:
        """These messages have arrived, or are of no use any more."""
        with self._transaction() as database:
            database.executemany("DELETE FROM notice_outbox WHERE number = ?", [(number,) for number in numbers])

    def not_arrived(self, waiting: Waiting) -> None:
        """Keep what became of another attempt."""
        row = (waiting.attempts, waiting.error, waiting.given_up, waiting.number)
        with self._transaction() as database:
            database.execute("UPDATE notice_outbox SET attempts=?, error=?, given_up=? WHERE number=?", row)


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value)
