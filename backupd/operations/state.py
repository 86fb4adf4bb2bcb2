"""Local state: the history of runs and audits, what buckets were asked for, what servers call known messages, the
journal of restores.

All of it is a cache or a record for people; the repository does not need it. The index cache of the repository lives in
the same file (backupd/repository/index_cache.py), in tables of its own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from backupd.operations.audit_state import AUDIT_SCHEMA, AuditState, with_new_columns
from backupd.operations.record_state import RECORD_SCHEMA, RecordState
from backupd.operations.state_files import DATABASE
from backupd.repository.index_cache import sqlite_error
from backupd.repository.runs import MessageRow
from backupd.storage.base import Requests

Outcome = Literal["stored", "unchanged", "imported", "failed", "interrupted", "throttled"]
"""throttled: ended in order before it was done, because the server or a limit wants a pause."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    number INTEGER PRIMARY KEY, account TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL,
    outcome TEXT NOT NULL, snapshot TEXT, error TEXT NOT NULL, problems INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS run_of_account ON run (account, number);
CREATE TABLE IF NOT EXISTS server_id (
    account TEXT, id BLOB, message BLOB NOT NULL, size INTEGER NOT NULL, fingerprint BLOB NOT NULL,
    envelopes BLOB NOT NULL, envelope INTEGER NOT NULL, PRIMARY KEY (account, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS restore_mailbox (
    target TEXT, mailbox BLOB, strangers INTEGER NOT NULL, PRIMARY KEY (target, mailbox)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS restore_written (
    target TEXT, mailbox BLOB, uid INTEGER, PRIMARY KEY (target, mailbox, uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sound (repository TEXT PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS locked (repository TEXT PRIMARY KEY, time REAL, seconds REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    repository TEXT, day TEXT, writes INTEGER NOT NULL, listings INTEGER NOT NULL, reads INTEGER NOT NULL,
    PRIMARY KEY (repository, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listing (account TEXT PRIMARY KEY, digest BLOB NOT NULL, snapshot TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (repository TEXT, name TEXT, facts BLOB NOT NULL, PRIMARY KEY (repository, name))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mended (account TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS downloaded (account TEXT, hour TEXT, octets INTEGER NOT NULL, PRIMARY KEY (account, hour))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pause (
    account TEXT PRIMARY KEY, since TEXT NOT NULL, until TEXT NOT NULL, why TEXT NOT NULL, times INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (kind TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
"""
_RUNS_KEPT = 1000
"""Of an account."""
_DAYS_KEPT = 30


class Run(msgspec.Struct, frozen=True):
    """One run of a backup. started, ended: RFC 3339 in UTC. snapshot: the newest one after it, if any."""

    account: str
    started: str
    ended: str
    outcome: Outcome
    snapshot: str | None = None
    error: str = ""
    problems: int = 0


class Pause(msgspec.Struct, frozen=True):
    """Until when an account is to be left alone. since, until: aware times. times: how often in a row for as long as we
    guess."""

    since: datetime
    until: datetime
    why: str
    times: int = 0


class Journal(msgspec.Struct, frozen=True):
    """What an unfinished restore did to a mailbox. strangers: how many messages were there that the snapshot does not
    know, before the first was written. written: UIDs, as the snapshot has them."""

    strangers: int
    written: frozenset[int]


class State(AuditState, RecordState):
    """The state directory. Safe to use from several threads and several processes."""

    def __init__(self, folder: Path) -> None:
        """Raises StorageDenied, StorageFull, StateDamaged."""
        self.folder = folder
        self.path = folder / DATABASE
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=60)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA + AUDIT_SCHEMA + RECORD_SCHEMA)
            with_new_columns(self._database)
        except (OSError, sqlite3.Error) as error:
            raise sqlite_error(error, folder) from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        with self._transaction() as database:
            database.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    if self._database.in_transaction:  # SQLite itself rolls back when the disk is full
                        self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise sqlite_error(error, self.folder) from error

    def _read(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise sqlite_error(error, self.folder) from error

    # Runs

    def record(self, run: Run) -> None:
        """Add a run to the history."""
        row = (run.account, run.started, run.ended, run.outcome, run.snapshot, run.error, run.problems)
        self._write("INSERT INTO run VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", [row])
        # Of each account by itself: one that is backed up once a day must not be forgotten for those that always are.
        self._write(
            "DELETE FROM run WHERE account = ?1 AND number <="
            " (SELECT number FROM run WHERE account = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            [(run.account, _RUNS_KEPT)],
        )

    def runs(self, account: str | None = None, limit: int = 100) -> list[Run]:
        """The latest runs, newest first; of one account, or of all."""
        rows = self._read(
            "SELECT account, started, ended, outcome, snapshot, error, problems FROM run"
            " WHERE ?1 IS NULL OR account = ?1 ORDER BY number DESC LIMIT ?2",
            account,
            limit,
        )
        return [msgspec.convert(dict(zip(Run.__struct_fields__, row, strict=True)), Run) for row in rows]

    # What others keep here, in forms of their own

    def keep(self, kind: str, name: str, value: bytes) -> None:
        """Keep this of a thing, in place of what was kept of it."""
        self._write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", [(kind, name, value)])

    def kept(self, kind: str, name: str | None = None) -> dict[str, bytes]:
        """What is kept of all things of a kind by their names, or of the one of this name."""
        rows = self._read("SELECT name, value FROM kept WHERE kind = ?1 AND (?2 IS NULL OR name = ?2)", kind, name)
        return {str(each): msgspec.convert(value, bytes) for each, value in rows}

    # What a bucket was asked for

    def asked(self, repository: str, day: date, requests: Requests) -> None:
        """Add to the day's requests of the repository at this address; days of a month ago are forgotten."""
        self._write(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET writes = writes + excluded.writes,"
            " listings = listings + excluded.listings, reads = reads + excluded.reads",
            [(repository, day.isoformat(), *requests)],
        )
        self._write("DELETE FROM requests WHERE day <= ?", [((day - timedelta(days=_DAYS_KEPT)).isoformat(),)])

    def requests(self, repository: str) -> dict[date, Requests]:
        """Requests of the latest days on which there were any."""
        rows = self._read("SELECT day, writes, listings, reads FROM requests WHERE repository = ?", repository)
        return {date.fromisoformat(str(day)): Requests(*(int(str(each)) for each in counts)) for day, *counts in rows}

    # What servers were asked for, and when they may be asked again

    def downloaded(self, account: str, hour: datetime, octets: int) -> None:
        """Add to what was downloaded in the hour that begins then; hours of a month ago are forgotten."""
        self._write(
            "INSERT INTO downloaded VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET octets = octets + excluded.octets",
            [(account, hour.astimezone(UTC).isoformat(), octets)],
        )
        old = (hour - timedelta(days=_DAYS_KEPT)).astimezone(UTC).isoformat()
        self._write("DELETE FROM downloaded WHERE account = ? AND hour <= ?", [(account, old)])

    def downloads(self, account: str) -> dict[datetime, int]:
        """Octets downloaded, by the beginning of the hour in UTC."""
        rows = self._read("SELECT hour, octets FROM downloaded WHERE account = ? ORDER BY hour", account)
        return {datetime.fromisoformat(str(hour)): int(str(octets)) for hour, octets in rows}

    def downloads_by_day(self, account: str) -> dict[date, int]:
        """Octets downloaded on each of the latest days, in UTC."""
        days: Counter[date] = Counter()
        for hour, octets in self.downloads(account).items():
            days[hour.date()] += octets
        return dict(days)

    def not_before(self, account: str) -> Pause | None:
        """The pause that was last asked for, whether it is over or not; None after a run that went well."""
        rows = self._read("SELECT since, until, why, times FROM pause WHERE account = ?", account)
        return msgspec.convert(dict(zip(Pause.__struct_fields__, rows[0], strict=True)), Pause) if rows else None

    def leave_alone(self, account: str, pause: Pause) -> None:
        """Remember when the account may be asked again."""
        times = (pause.since.astimezone(UTC).isoformat(), pause.until.astimezone(UTC).isoformat())
        self._write("INSERT OR REPLACE INTO pause VALUES (?, ?, ?, ?, ?)", [(account, *times, pause.why, pause.times)])

    def may_go_on(self, account: str) -> None:
        """Nobody wants a pause any more."""
        self._write("DELETE FROM pause WHERE account = ?", [(account,)])

    # What the server calls messages that are stored

    def learn(self, account: str, rows: Iterable[MessageRow]) -> None:
        """Remember under which EMAILID or X-GM-MSGID messages are stored."""
        self._write(
            "INSERT OR REPLACE INTO server_id VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (account, row.server_id, row.message, row.size, row.fingerprint, row.envelopes, row.envelope)
                for row in rows
                if row.server_id
            ],
        )

    def recall(self, account: str, server_id: bytes) -> MessageRow | None:
        """The message the server calls so; UID and INTERNALDATE are to be filled in."""
        rows = self._read(
            "SELECT message, size, fingerprint, envelopes, envelope FROM server_id WHERE account=? AND id=?",
            account,
            server_id,
        )
        for message, size, fingerprint, envelopes, envelope in rows:
            known = {"message": message, "size": size, "fingerprint": fingerprint}
            known |= {"envelopes": envelopes, "envelope": envelope, "server_id": server_id}
            return msgspec.convert({"uid": 0, "internaldate": b"", **known}, MessageRow)
        return None

    # What a POP3 server listed

    def listed(self, account: str) -> tuple[bytes, str] | None:
        """(digest of what the server listed last, the snapshot that holds all of it)."""
        rows = self._read("SELECT digest, snapshot FROM listing WHERE account = ?", account)
        return msgspec.convert(rows[0], tuple[bytes, str]) if rows else None

    def remember_listing(self, account: str, digest: bytes, snapshot: str) -> None:
        """The snapshot holds all that the server lists."""
        self._write("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", [(account, digest, snapshot)])

    # What is known of snapshots

    def facts(self, repository: str, first: str, last: str) -> dict[str, bytes]:
        """What is remembered of the snapshots of a repository (its id) whose object names are first to last."""
        query = "SELECT name, facts FROM facts WHERE repository = ? AND name BETWEEN ? AND ?"
        rows = self._read(query, repository, first, last)
        return dict(msgspec.convert(rows, list[tuple[str, bytes]]))

    def remember_facts(self, repository: str, facts: Mapping[str, bytes]) -> None:
        """Remember this of snapshots, which never change."""
        if facts:
            rows = [(repository, name, each) for name, each in facts.items()]
            self._write("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)

    def forget_facts(self, repository: str, names: Iterable[str]) -> None:
        """These snapshots are gone."""
        self._write("DELETE FROM facts WHERE repository = ? AND name = ?", [(repository, name) for name in names])

    # Damage that a backup has made up for

    def is_mended(self, account: str, token: str) -> bool:
        """Whether a backup of the account has completed since this damage was there."""
        return self._read("SELECT token FROM mended WHERE account = ?", account) == [(token,)]

    def mended(self, account: str, token: str) -> None:
        """A backup of the account has made up for this damage."""
        self._write("INSERT OR REPLACE INTO mended VALUES (?, ?)", [(account, token)])

    def sound_since(self, repository: str) -> float | None:
        """When nothing was amiss in the repository at this address, in seconds since 1970."""
        rows = self._read("SELECT time FROM sound WHERE repository = ?", repository)
        return float(str(rows[0][0])) if rows else None

    def found_sound(self, repository: str, time: float | None) -> None:
        """At this time nothing was amiss; None: something is."""
        if time is None:
            self._write("DELETE FROM sound WHERE repository = ?", [(repository,)])
        else:
            self._write("INSERT OR REPLACE INTO sound VALUES (?, ?)", [(repository, time)])

    def locks_renewed(self, repository: str) -> tuple[float, float] | None:
        """When all objects' locks were renewed, in seconds since 1970, and for how many seconds from then on."""
        rows = self._read("SELECT time, seconds FROM locked WHERE repository = ?", repository)
        return (float(str(rows[0][0])), float(str(rows[0][1]))) if rows else None

    def renewed_locks(self, repository: str, time: float, seconds: float) -> None:
        """All objects that were there at this time are locked for so long from then on, or since they were stored."""
        self._write("INSERT OR REPLACE INTO locked VALUES (?, ?, ?)", [(repository, time, seconds)])

    # The journal of restores

    def journal(self, target: str, mailbox: bytes) -> Journal | None:
        """What an earlier, unfinished restore to this target did to the mailbox."""
        rows = self._read("SELECT strangers FROM restore_mailbox WHERE target=? AND mailbox=?", target, mailbox)
        if not rows:
            return None
        uids = self._read("SELECT uid FROM restore_written WHERE target=? AND mailbox=?", target, mailbox)
        return Journal(int(str(rows[0][0])), frozenset(int(str(uid)) for (uid,) in uids))

    def open_journal(self, target: str, mailbox: bytes, strangers: int) -> None:
        """Begin the journal of a mailbox, unless there is one."""
        self._write("INSERT OR IGNORE INTO restore_mailbox VALUES (?, ?, ?)", [(target, mailbox, strangers)])

    def journal_written(self, target: str, mailbox: bytes, uids: Iterable[int]) -> None:
        """These messages are in the target now."""
        self._write("INSERT OR IGNORE INTO restore_written VALUES (?, ?, ?)", [(target, mailbox, uid) for uid in uids])

    def close_journal(self, target: str) -> None:
        """The restore is complete: forget how it came about."""
        self._write("DELETE FROM restore_written WHERE target=?", [(target,)])
        self._write("DELETE FROM restore_mailbox WHERE target=?", [(target,)])
