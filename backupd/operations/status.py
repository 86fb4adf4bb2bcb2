"""`backupd status`: how each account stands. Asks no server; needs metadata only, so the writer role is enough.

A run that finds nothing changed stores no snapshot and proves all the same that the newest one is up to date. So an
account's age is counted from the newest snapshot or from the last run that went well, whichever is later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.costs import Costs, costs
from backupd.operations.state import Run, State
from backupd.repository import holds
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Loss, Snapshot, SnapshotRef

LOOKED_AT = 100
"""Newest snapshots of an account that are searched for sudden losses."""


class Level(StrEnum):
    """How an account stands; the order is from best to worst."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


_WORST = (Level.CRITICAL, Level.WARNING, Level.OK)


class AccountStatus(msgspec.Struct, frozen=True):
    """How one account stands.

    snapshot, time: the newest snapshot and when it began. proved: when the account was last known to be backed up. age,
    objective: seconds, None where there is none. problems: of the newest snapshot. losses: sudden losses that
    nobody has accepted, and whose pinned snapshot is still there. reasons: why the level is not ok.
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
    accepted = _accepted(repository)
    accounts = [_account(repository, state, name, objective, accepted, now) for name, objective in objectives.items()]
    return Status(worst(account.level for account in accounts), accounts, costs(repository, state, now))


def last_good(
    repository: Repository, state: State, account: str
) -> tuple[datetime | None, datetime | None]:
    """When the account was last known to be backed up: (at all, with nothing left out). None where it never was."""
    good: datetime | None = None
    complete: datetime | None = None
    for ref in reversed(repository.refs(account)[-LOOKED_AT:]):
        try:
            snapshot = repository.snapshot(ref)
        except (Damaged, ObjectMissing):
            continue
        if not snapshot.checkpoint:
            good = good or ref.time
        if snapshot.complete:
            complete = ref.time
            break
    # A run that found nothing changed stored no snapshot, and is as good as the newest one.
    for run in state.runs(account, LOOKED_AT):
        if run.outcome in ("stored", "unchanged"):
            began = datetime.fromisoformat(run.started)
            good = max(good or began, began)
            if not run.problems:
                complete = max(complete or began, began)
                break
    return good, complete


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; ok when there are none."""
    found = set(levels)
    return next((level for level in _WORST if level in found), Level.OK)


def _accepted(repository: Repository) -> frozenset[str]:
    """Snapshots whose losses somebody has accepted; none as long as a hold cannot be read, which `forget` tells."""
    try:
        return holds.read(repository).accepted
    except Damaged:
        return frozenset()


def _account(
    repository: Repository,
    state: State,
    name: str,
    objective: timedelta | None,
    accepted: frozenset[str],
    now: datetime,
) -> AccountStatus:
    refs = repository.refs(name)
    snapshots, damaged = _read(repository, refs)
    newest = snapshots[-1] if snapshots else None
    runs = state.runs(name, 100)
    proved = _proved(snapshots, runs)
    age = max(timedelta(), now - proved) if proved else None
    there = {ref.id for ref in refs}
    told = [snapshot for ref, snapshot in snapshots if ref.id not in accepted]
    losses = [loss for snapshot in told for loss in snapshot.losses if loss.pinned in there]
    level, reasons = judge(
        newest=newest[1] if newest else None,
        age=age,
        objective=objective,
        losses=losses,
        last_run=runs[0] if runs else None,
        damaged=damaged,
    )
    return AccountStatus(
        account=name,
        level=level,
        reasons=reasons,
        snapshot=newest[0].id if newest else None,
        time=newest[1].started if newest else None,
        complete=bool(newest and newest[1].complete),
        messages=newest[1].messages if newest else 0,
        octets=newest[1].octets if newest else 0,
        proved=proved.isoformat(timespec="seconds") if proved else None,
        age=age.total_seconds() if age is not None else None,
        objective=objective.total_seconds() if objective else None,
        problems=len(newest[1].problems) if newest else 0,
        losses=losses,
        last_run=runs[0] if runs else None,
    )


def _read(
    repository: Repository, refs: list[SnapshotRef]
) -> tuple[list[tuple[SnapshotRef, Snapshot]], list[SnapshotRef]]:
    found, damaged = [], []
    for ref in refs[-LOOKED_AT:]:
        try:
            found.append((ref, repository.snapshot(ref)))
        except Damaged:
            damaged.append(ref)
    return found, damaged


def _proved(snapshots: list[tuple[SnapshotRef, Snapshot]], runs: list[Run]) -> datetime | None:
    times = [snapshot.started for _, snapshot in snapshots if not snapshot.checkpoint][-1:]
    times += [run.started for run in runs if run.outcome in ("stored", "unchanged")][:1]
    return max((datetime.fromisoformat(text) for text in times), default=None)


def judge(
    *,
    newest: Snapshot | None,
    age: timedelta | None,
    objective: timedelta | None,
    losses: list[Loss],
    last_run: Run | None,
    damaged: list[SnapshotRef],
) -> tuple[Level, list[str]]:
    """The level, and the reasons for it, the gravest first."""
    critical, warnings = [], []
    if age is None:
        critical.append("never backed up" if newest is None else "no backup has ended yet")
    elif objective is not None and age > objective:
        critical.append("older than its objective")
    critical += [
        f"sudden loss: {loss.gone:,} of {loss.before:,} messages gone from {loss.name or 'the account'}, "
        f"snapshot {loss.pinned} still has them"
        for loss in losses
    ]
    critical += [f"snapshot {ref.id} is damaged" for ref in damaged]
    if last_run and last_run.outcome == "failed":
        warnings.append(f"the last run failed: {last_run.error}")
    if last_run and last_run.outcome == "interrupted":
        warnings.append("the last run was interrupted")
    if newest and newest.checkpoint:
        warnings.append("the newest snapshot is of a backup that did not end")
    elif newest and newest.problems:
        warnings.append(f"{len(newest.problems)} problems in the newest snapshot")
    level = Level.CRITICAL if critical else Level.WARNING if warnings else Level.OK
    return level, critical + warnings
