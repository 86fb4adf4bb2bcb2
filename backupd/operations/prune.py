"""`backupd prune`: remove what no snapshot needs, in two steps, while others may be reading and writing.

The first step finds what no snapshot needs, and packs that are small or needed in part; it stores what takes their
place and marks them. The second one, a grace period later, removes what was marked and is still superfluous. In
between, those who know the old places have time to end, and whoever writes and relies on something that is marked has
time to say so (repository/reliance.py). There is no lock, and any number of machines may do it. No key that reads mail
is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from backupd.errors import Overtaken, StorageDenied, UsageError
from backupd.operations import record
from backupd.operations.events import Observer, ignore
from backupd.operations.prune_report import PruneReport, together
from backupd.operations.prune_run import PruneRun
from backupd.operations.record_merge import merge
from backupd.operations.state import State
from backupd.repository.pack_writer import Sizes
from backupd.repository.planning import FEWEST, MAX_UNUSED, Limits
from backupd.repository.record import signer
from backupd.repository.reliance import seconds_gone
from backupd.repository.repository import Repository

__all__ = ["GRACE", "LEAST_GRACE", "PruneReport", "prune"]

GRACE: Final = timedelta(days=1)
LEAST_GRACE: Final = timedelta(hours=3)
"""Whoever writes looks at marks every 20 minutes, and believes no look that is older than an hour."""

_MOST_TIMES: Final = 3


def prune(
    repository: Repository,
    *,
    state: State | None = None,
    now: datetime,
    grace: timedelta = GRACE,
    alone: bool = False,
    dry_run: bool = False,
    fewest: int = FEWEST,
    max_unused: float | int = MAX_UNUSED,
    max_repack: int | None = None,
    sizes: Sizes | None = None,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
    seconds: Callable[[], float] = seconds_gone,
) -> PruneReport:
    """Remove what was marked at least `grace` ago, and mark what is superfluous by now.

    Args:
        state: knows the signed record; None: it is read.
        grace: three hours or more. alone: nobody else is at work, on any machine, so nothing need be waited for, and
            what is superfluous goes at once.
        dry_run: only say what would be done.
        fewest, max_unused, max_repack: see repository/planning.py.
        seconds: a clock that only goes forward.

    Raises Interrupted (the next call goes on), UsageError, StorageDenied where these credentials may not remove
    objects, Overtaken where others prune all the time, and errors of the storage that stop everything. Needs the
    writer's role.
    """
    if grace < LEAST_GRACE and not alone:
        raise UsageError(
            "who writes elsewhere needs time to say what it needs",
            subject="--grace",
            remedy="write 3h or more; or --alone, if nobody else is at work",
        )
    sizes = sizes or Sizes()
    run = PruneRun(
        repository,
        now,
        timedelta() if alone else grace,
        Limits(fewest, sizes.pack // 2, max_unused, max_repack),
        sizes,
        observer,
        stop or threading.Event(),
        seconds,
        dry_run=dry_run,
    )
    report = _undisturbed(run)
    if alone and not dry_run:
        report = together(report, _undisturbed(run))
    if not dry_run:
        _record(repository, state, now, report, fewest, stop or threading.Event())
    return report


def _record(
    repository: Repository,
    state: State | None,
    now: datetime,
    report: PruneReport,
    fewest: int,
    stop: threading.Event,
) -> None:
    """Record what was done, if anything was; and keep the record itself in few objects. Raises StorageDenied."""
    try:
        _append(repository, state, now, report, fewest, stop)
    except StorageDenied as error:
        raise StorageDenied(
            f"it was pruned, and the signed record does not tell so: {error.what}",
            subject=error.subject,
            remedy="`backupd s3-policy --role pruner` prints the rights that it takes",
        ) from error


def _append(
    repository: Repository,
    state: State | None,
    now: datetime,
    report: PruneReport,
    fewest: int,
    stop: threading.Event,
) -> None:
    merged = merge(repository.storage, signer(repository.secrets), now, fewest=fewest, stopped=stop.is_set)
    done = {
        "removed": report.removed,
        "freed": report.freed,
        "marked": report.marked,
        "moved": report.moved,
        "into": report.into,
        "record": merged.objects,
    }
    if any(done.values()):
        counts = {what: count for what, count in done.items() if count}
        record.append(repository, state, now, "prune", counts=counts)


def _undisturbed(run: PruneRun) -> PruneReport:
    """Once more, if others pruned meanwhile and what this one goes by is not there any more."""
    for _ in range(_MOST_TIMES - 1):
        try:
            return run.run()
        except Overtaken:
            continue
    return run.run()
