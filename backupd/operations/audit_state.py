"""What audits leave in the local state: their history, what was proved when, and objects as they were first seen.

A part of `State`, in tables of its own. Lost, it begins anew.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

AuditOutcome = Literal["ok", "warning", "critical", "unknown"]

AUDIT_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, repository TEXT NOT NULL, account TEXT NOT NULL, level TEXT NOT NULL,
    started TEXT NOT NULL, ended TEXT NOT NULL, outcome TEXT NOT NULL, problems INTEGER NOT NULL,
    octets INTEGER NOT NULL, recovery REAL, scope BLOB NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS audit_of_account ON audit (repository, account, number);
CREATE TABLE IF NOT EXISTS proof (
    repository TEXT, object TEXT, kind TEXT, time REAL NOT NULL, PRIMARY KEY (repository, object, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    repository TEXT, object TEXT, digest TEXT NOT NULL, time REAL NOT NULL, gone INTEGER NOT NULL,
    PRIMARY KEY (repository, object)) WITHOUT ROWID;
"""
_AUDITS_KEPT = 100
"""Of a level, of an account, and of the repository as a whole: many cheap ones push out no drill."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an audit looked at, of all that its level can. role: of the key it had. accounts: these alone; empty for all
    there is. budget, since, full: as they were wished for. exported: whether an exported record was compared, too."""

    role: str = "auditor"
    accounts: tuple[str, ...] = ()
    budget: float | None = None
    since: datetime | None = None
    full: bool = False
    exported: bool = False


class Audit(msgspec.Struct, frozen=True):
    """An audit that ended. repository: its address. account: whom it was about; empty for all that was looked at.
    level: such as "content". octets: whose bytes were read. recovery: seconds that restoring the whole account takes,
    as a drill measured it. number: the later, the higher; given by the state."""

    repository: str
    account: str
    level: str
    started: str
    ended: str
    outcome: AuditOutcome
    problems: int = 0
    octets: int = 0
    recovery: float | None = None
    scope: Scope = Scope()
    number: int = 0


_COLUMNS = tuple(name for name in Audit.__struct_fields__ if name not in ("scope", "number"))


class Seen(msgspec.Struct, frozen=True):
    """An object whose name does not prove its bytes, as an audit saw it first. time: seconds since 1970. gone: whether
    it was missing later."""

    object: str
    digest: str
    time: float
    gone: bool


def with_new_columns(database: sqlite3.Connection) -> None:
    """Give the history of an earlier version the columns that it had not."""

    def is_old() -> bool:
        return "scope" not in {str(row[1]) for row in database.execute("PRAGMA table_info(audit)")}

    if is_old():
        database.execute("BEGIN IMMEDIATE")
        if is_old():  # another process may have been quicker
            database.execute("ALTER TABLE audit ADD COLUMN scope BLOB NOT NULL DEFAULT '{}'")
        database.execute("COMMIT")


class AuditState(ABC):
    """The part of the state that is about audits. repository: the address, in all of these."""

    @abstractmethod
    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement for each row, all or none."""

    @abstractmethod
    def _read(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """All rows of a query."""

    def audited(self, audits: Iterable[Audit]) -> None:
        """Add to the history of audits."""
        audits = list(audits)
        rows = [
            (*(getattr(each, name) for name in _COLUMNS), msgspec.json.encode(each.scope)) for each in audits
        ]
        names = ", ".join((*_COLUMNS, "scope"))
        self._write(f"INSERT INTO audit ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
        self._write(
            "DELETE FROM audit WHERE repository = ?1 AND account = ?2 AND level = ?3 AND number <= (SELECT number"
            " FROM audit WHERE repository = ?1 AND account = ?2 AND level = ?3"
            " ORDER BY number DESC LIMIT 1 OFFSET ?4)",
            [(each.repository, each.account, each.level, _AUDITS_KEPT) for each in audits],
        )

    def audits(
        self, repository: str | None = None, account: str | None = None, level: str | None = None, limit: int = 100
    ) -> list[Audit]:
        """The latest audits, newest first. account: "" for those of the repository as a whole; None: no matter
        whose."""
        rows = self._read(
            f"SELECT {', '.join(_COLUMNS)}, scope, number FROM audit WHERE (?1 IS NULL OR repository = ?1)"  # noqa: S608
            " AND (?2 IS NULL OR account = ?2) AND (?3 IS NULL OR level = ?3) ORDER BY number DESC LIMIT ?4",
            repository,
            account,
            level,
            limit,
        )
        return [_audit(row) for row in rows]

    def proofs(self, repository: str, kind: str) -> dict[str, float]:
        """When each object was last proved in this way, in seconds since 1970."""
        rows = self._read("SELECT object, time FROM proof WHERE repository = ? AND kind = ?", repository, kind)
        return {str(name): float(str(time)) for name, time in rows}

    def prove(self, repository: str, kind: str, names: Iterable[str], time: float) -> None:
        """These objects have been proved in this way."""
        rows = [(repository, name, kind, time) for name in names]
        self._write("INSERT OR REPLACE INTO proof VALUES (?, ?, ?, ?)", rows)

    def unprove(self, repository: str, names: Iterable[str]) -> None:
        """These objects are gone, or not what they were."""
        self._write("DELETE FROM proof WHERE repository = ? AND object = ?", [(repository, name) for name in names])

    def seen(self, repository: str) -> list[Seen]:
        """Objects whose names do not prove their bytes, as they were first seen."""
        rows = self._read("SELECT object, digest, time, gone FROM seen WHERE repository = ?", repository)
        return [Seen(str(name), str(digest), float(str(time)), bool(gone)) for name, digest, time, gone in rows]

    def saw(self, repository: str, seen: Iterable[Seen], *, anew: bool = False) -> None:
        """Remember these. anew: and nothing else of this repository."""
        if anew:
            self._write("DELETE FROM seen WHERE repository = ?", [(repository,)])
        rows = [(repository, each.object, each.digest, each.time, each.gone) for each in seen]
        self._write("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)


def _audit(row: Sequence[object]) -> Audit:
    *values, scope, number = row
    known = dict(zip(_COLUMNS, values, strict=True))
    given = bytes(scope) if isinstance(scope, bytes) else str(scope).encode()
    return msgspec.convert({**known, "scope": msgspec.json.decode(given), "number": number}, Audit)
