"""What an audit finds, and how grave that is: values, and judgement of values.

A note alarms nobody. What the audit wanted to know and could not is `unknown`; of several, the gravest counts:
critical, then warning, then unknown, as monitoring plugins have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from backupd.operations.audit_state import AuditOutcome
from backupd.operations.status import AccountStatus
from backupd.repository.keys import Role


class Level(StrEnum):
    """How deep an audit looks; each includes the ones before."""

    FRESHNESS = "freshness"
    METADATA = "metadata"
    STORAGE = "storage"
    CONTENT = "content"
    SOURCE = "source"
    DRILL = "drill"

    def includes(self, other: Level) -> bool:
        """Whether an audit of this level does what the other one does."""
        return LEVELS.index(other) <= LEVELS.index(self)


LEVELS = tuple(Level)

NEEDED: dict[Level, Role] = {
    Level.FRESHNESS: Role.WRITER,
    Level.METADATA: Role.WRITER,
    Level.STORAGE: Role.AUDITOR,
    Level.CONTENT: Role.READER,
    Level.SOURCE: Role.WRITER,
    Level.DRILL: Role.READER,
}
"""The least role that each level needs by itself."""


class Wish(msgspec.Struct, frozen=True):
    """What to audit.

    objectives: the accounts, and the oldest acceptable snapshot of each where one is configured. alone: only these
    accounts, and the packs that hold their mail; else all there is, whoever it belongs to. budget: the share of the
    octets to read, above 0 and up to 1; None: all. since: only snapshots and objects of this time or later. sample:
    messages of an account whose bytes are compared with the server's. full: a drill restores whole accounts. exported:
    the signed record is compared with what was exported of it.
    """

    level: Level
    objectives: Mapping[str, timedelta | None]
    alone: bool = False
    budget: float | None = None
    since: datetime | None = None
    sample: int = 50
    full: bool = False
    exported: bool = False


class Severity(StrEnum):
    """How grave a finding is."""

    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    CRITICAL = "critical"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found.

    level: which level's business it is. subject: an object, account or mailbox. what: a sentence without its full stop.
    remedy: what to do about it. account: whom alone it concerns; empty for all, or for nobody knows.
    """

    severity: Severity
    level: Level
    subject: str
    what: str
    remedy: str = ""
    account: str = ""


class Affected(msgspec.Struct, frozen=True):
    """A message that is damaged in some snapshots; or a stretch of UIDs of which no more can be told.

    uid, last: the same for one message. messages: how many of them. id: of the message in the archive, in hexadecimal;
    empty for a stretch. snapshots: ids, the oldest first; of many the first hundred. certain: whether it is known to be
    damaged; a key that cannot read mail tells no more than that it may be. restorable: whether the message itself is
    whole, and only what lists show of it is lost. subject, date: None without the reader role. """

    account: str
    mailbox: str
    uid: int
    last: int
    messages: int
    what: str
    id: str = ""
    certain: bool = True
    restorable: bool = False
    snapshots: list[str] = []
    subject: str | None = None
    sender: str | None = None
    date: str | None = None


class Checked(msgspec.Struct, frozen=True):
    """What was looked at. snapshots: read, and all they refer to. references: that were looked up. objects, octets:
    whose bytes were read and compared with their names. joined: blobs compared with their ids."""

    snapshots: int = 0
    references: int = 0
    objects: int = 0
    octets: int = 0
    joined: int = 0


class Coverage(msgspec.Struct, frozen=True):
    """How much of the repository's bytes is proved, by audits of this level on this machine.

    objects, octets: that are there. proved: octets proved by this audit or one before. oldest: when those were that
    were proved longest ago (RFC 3339). never: octets that were never proved. budget: the share that each audit reads,
    from 0 to 1. cycle_runs: audits until every byte is proved; cycle_seconds: how long these take at the rate of the
    latest ones, None where there were too few. remembered: whether earlier audits are known. """

    level: Level
    objects: int
    octets: int
    proved: int
    never: int
    oldest: str | None
    budget: float | None
    cycle_runs: int
    cycle_seconds: float | None
    remembered: bool


class SourceResult(msgspec.Struct, frozen=True):
    """An account's server compared with a snapshot. agreed: messages that are the same on both sides. new, gone: since
    the snapshot. changed: flags that were changed since. unexplained: differences that the snapshot should not have.
    bodies: messages that were downloaded and compared; octets: theirs."""

    snapshot: str
    mailboxes: int
    agreed: int
    new: int
    gone: int
    changed: int
    unexplained: int
    bodies: int
    octets: int


class DrillResult(msgspec.Struct, frozen=True):
    """A restore that was tried. messages, octets: restored and compared. seconds: that restoring took. total_messages,
    total_octets: of the whole account; total_seconds: what all of it takes, measured if `full`, else reckoned from the
    sample. altered: that the target could not take exactly, and said so. wrong: that came out otherwise."""

    snapshot: str
    target: str
    full: bool
    messages: int
    octets: int
    seconds: float
    total_messages: int
    total_octets: int
    total_seconds: float
    altered: int
    wrong: int


class AuditedAccount(msgspec.Struct, frozen=True):
    """An account in an audit. status: how fresh it is; None where no key tells. snapshots: that are there."""

    account: str
    snapshots: int
    status: AccountStatus | None = None
    source: SourceResult | None = None
    drill: DrillResult | None = None


class AuditReport(msgspec.Struct, frozen=True):
    """The result of an audit. left_out: what of the level was not done, and why. affected_more: messages that are not
    in `affected`, which is bounded."""

    repository: str
    id: str
    role: Role
    level: Level
    started: str
    ended: str
    outcome: AuditOutcome
    accounts: list[AuditedAccount]
    checked: Checked
    coverage: Coverage | None
    findings: list[Finding]
    affected: list[Affected]
    affected_more: int
    left_out: list[str]

    @property
    def problems(self) -> int:
        """Findings that are more than notes."""
        return sum(each.severity is not Severity.NOTE for each in self.findings)


_GRAVEST = (Severity.CRITICAL, Severity.WARNING, Severity.UNKNOWN)


def judge(findings: Iterable[Finding]) -> AuditOutcome:
    """The gravest of what was found; ok when there are only notes."""
    found = {each.severity for each in findings}
    worst = next((each for each in _GRAVEST if each in found), None)
    return "ok" if worst is None else worst.value  # type: ignore[return-value]
