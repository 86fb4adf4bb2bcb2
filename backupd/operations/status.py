"""`backupd status`: how each account stands. Asks no server; needs metadata only, so the writer role is enough.

A run that finds nothing changed stores no snapshot and proves all the same that the newest one is up to date. So an
account's age is counted from the newest snapshot or from the last run that went well, whichever is later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from backupd.operations.costs import Costs, costs
from backupd.operations.counting import count
from backupd.operations.standing import Standing, accepted_losses, read
from backupd.operations.state import Run, State
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Loss, SnapshotRef

AHEAD = timedelta(minutes=10)
"""Clocks of two machines differ, and go wrong by a little. Times further ahead are of a clock that was wrong."""
FAILED = "the last run failed: "
LOSS = "sudden loss: "
"""How the reason begins that an account's last run failed."""


class Level(StrEnum):
    """How an account stands; the order is from best to worst."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


_WORST = (Level.CRITICAL, Level.WARNING, Level.OK)


class AccountStatus(msgspec.Struct, frozen=True):
    """How one account stands.

    snapshot, time: the newest snapshot and when it began. proved: when the account was last known to be backed up.
    age, objective: seconds, None where there is none; no age has what was backed up at a time that is yet to come.
    problems: of the newest snapshot. losses: sudden losses that nobody has accepted, and whose pinned snapshot is
    still there. reasons: why the level is not ok.
    """

    account: str
    level: Level
    reasons: list[str]
    snapshot: str | None
    time: str | None
    complete: bool
    messages: int
    octets: int
    proved: str | None
    age: float | None
    objective: float | None
    problems: int
    losses: list[Loss]
    last_run: Run | None


class Status(msgspec.Struct, frozen=True):
    """All accounts and the worst level among them, and what the repository costs."""

    level: Level
    accounts: list[AccountStatus]
    repository: Costs


def status(repository: Repository, state: State, objectives: Mapping[str, timedelta | None], now: datetime) -> Status:
    """How the accounts stand.

    Args:
        objectives: each account's name, and the oldest acceptable snapshot where one is configured.
    """
    accepted = accepted_losses(repository)
    accounts = [of_account(repository, state, name, each, now, accepted) for name, each in objectives.items()]
    return Status(worst(account.level for account in accounts), accounts, costs(repository, state, now))


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; ok when there are none."""
    found = set(levels)
    return next((level for level in _WORST if level in found), Level.OK)


def of_account(
    repository: Repository,
    state: State | None,
    name: str,
    objective: timedelta | None,
    now: datetime,
    accepted: frozenset[str] = frozenset(),
) -> AccountStatus:
    """How one account stands.

    state: None where no history of runs is known, and snapshots alone must do. accepted: see standing.read.
    """
    standing, damaged = read(repository, state, name, accepted=accepted)
    return account_status(name, standing, objective, now, damaged)


def account_status(
    name: str,
    standing: Standing | None,
    objective: timedelta | None,
    now: datetime,
    damaged: Sequence[SnapshotRef] = (),
) -> AccountStatus:
    """What to say of an account that stands so; None: nothing is known of it."""
    standing = standing or Standing("")
    proved = datetime.fromisoformat(standing.proved) if standing.proved else None
    age = age_of(proved, now)
    level, reasons = judge(standing, age, objective, damaged)
    return AccountStatus(
        account=name,
        level=level,
        reasons=reasons,
        snapshot=standing.snapshot,
        time=standing.time,
        complete=standing.complete,
        messages=standing.messages,
        octets=standing.octets,
        proved=proved.isoformat(timespec="seconds") if proved else None,
        age=age.total_seconds() if age is not None else None,
        objective=objective.total_seconds() if objective else None,
        problems=standing.problems,
        losses=standing.losses,
        last_run=standing.last_run,
    )


def age_of(proved: datetime | None, now: datetime) -> timedelta | None:
    """How long ago an account was backed up; None where it never was, and where the time of that is yet to come: then a
    clock was wrong, and it may be long ago."""
    return max(timedelta(), now - proved) if proved and proved - now <= AHEAD else None


def remedy_for(reason: str, account: str) -> str:
    """What to do about a reason that `judge` gave, where that is not plain; empty elsewhere."""
    if not reason.startswith(LOSS):
        return ""
    return f"restore what is missed; then, or if it is meant: backupd hold accept-loss {account}"


def judge(
    standing: Standing, age: timedelta | None, objective: timedelta | None, damaged: Sequence[SnapshotRef]
) -> tuple[Level, list[str]]:
    """The level, and the reasons for it, the gravest first."""
    critical, warnings = list[str](), list[str]()
    if age is None and standing.proved:
        (critical if objective else warnings).append(
            f"backed up at {standing.proved[:16].replace('T', ' ')}, which is yet to come: a clock was wrong, and how "
            "old the backup is cannot be told before the next one"
        )
    elif age is None:
        critical.append("no backup has ended yet" if standing.snapshot else "never backed up")
    elif objective is not None and age > objective:
        critical.append("older than its objective")
    critical += [
        f"{LOSS}{loss.gone:,} of {count(loss.before, 'message')} gone from {loss.name or 'the account'}, "
        f"snapshot {loss.pinned} still has them"
        for loss in standing.losses
    ]
    critical += [f"snapshot {ref.id} is damaged" for ref in damaged]
    if standing.last_run and standing.last_run.outcome == "failed":
        warnings.append(f"{FAILED}{standing.last_run.error}")
    if standing.last_run and standing.last_run.outcome == "throttled":
        warnings.append(f"the last run ended before all was read: {standing.last_run.error}")
    if standing.last_run and standing.last_run.outcome == "interrupted":
        warnings.append("the last run was interrupted")
    if standing.checkpoint:
        warnings.append("the newest snapshot is of a backup that did not end")
    elif standing.problems:
        warnings.append(f"{count(standing.problems, 'problem')} in the newest snapshot")
    level = Level.CRITICAL if critical else Level.WARNING if warnings else Level.OK
    return level, critical + warnings
