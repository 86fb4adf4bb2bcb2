"""What audits leave in the local state: their history, what was proved when, and objects as they were first seen.

A part of `State`, in tables of its own. Lost, it begins anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

AuditOutcome = Literal["ok", "warning", "critical", "unknown"]

AUDIT_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, repository TEXT NOT NULL, account TEXT NOT NULL, level TEXT NOT NULL,
    started TEXT NOT NULL, ended TEXT NOT NULL, outcome TEXT NOT NULL, problems INTEGER NOT NULL,
    octets INTEGER NOT NULL, recovery REAL);
CREATE INDEX IF NOT EXISTS audit_of_account ON audit (repository, account, number);
CREATE TABLE IF NOT EXISTS proof (
    repository TEXT, object TEXT, kind TEXT, time REAL NOT NULL, PRIMARY KEY (repository, object, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    repository TEXT, object TEXT, digest TEXT NOT NULL, time REAL NOT NULL, gone INTEGER NOT NULL,
    PRIMARY KEY (repository, object)) WITHOUT ROWID;
"""
_AUDITS_KEPT = 200
"""Of an account, and of the repository as a whole."""


class Audit(msgspec.Struct, frozen=True):
    """An audit that ended. repository: its address. account: whom it was about; empty for the repository and all that
    was looked at. level: such as "content". octets: whose bytes were read. recovery: seconds that restoring the whole
    account takes, as a drill measured it."""

    repository: str
    account: str
    level: str
    started: str
    ended: str
    outcome: AuditOutcome
    problems: int = 0
    octets: int = 0
    recovery: float | None = None


class Seen(msgspec.Struct, frozen=True):
    """An object whose name does not prove its bytes, as an audit saw it first. time: seconds since 1970. gone: whether
    it was missing later."""

    object: str
    digest: str
    time: float
    gone: bool


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
        rows = [tuple(getattr(each, name) for name in Audit.__struct_fields__) for each in audits]
        self._write("INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._write(
            "DELETE FROM audit WHERE repository = ?1 AND account = ?2 AND number <= (SELECT number FROM audit"
            " WHERE repository = ?1 AND account = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)",
            [(each[0], each[1], _AUDITS_KEPT) for each in rows],
        )

    def audits(
        self, repository: str | None = None, account: str | None = None, level: str | None = None, limit: int = 100
    ) -> list[Audit]:
        """The latest audits, newest first. account: "" for those of the repository as a whole; None: no matter
        whose."""
        rows = self._read(
            f"SELECT {', '.join(Audit.__struct_fields__)} FROM audit WHERE (?1 IS NULL OR repository = ?1)"  # noqa: S608
            " AND (?2 IS NULL OR account = ?2) AND (?3 IS NULL OR level = ?3) ORDER BY number DESC LIMIT ?4",
            repository,
            account,
            level,
            limit,
        )
        return [msgspec.convert(dict(zip(Audit.__struct_fields__, row, strict=True)), Audit) for row in rows]

    def latest_audits(self, repository: str) -> list[Audit]:
        """Of the repository as a whole, the latest audit of each level, the newest first."""
        latest: dict[str, Audit] = {}
        for each in self.audits(repository, "", limit=_AUDITS_KEPT):
            latest.setdefault(each.level, each)
        return list(latest.values())

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
