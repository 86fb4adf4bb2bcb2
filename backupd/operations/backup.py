"""`backupd backup`: a snapshot of one account.

What the positions prove to be unchanged is carried over unread. Everything else is scanned; then new messages are
brought in by several sessions at once; then each mailbox is proved complete, and the snapshot is written. An
interruption or a failure in between leaves a checkpoint, from which the next run goes on. backup_run.py does the
work, history.py knows the snapshots before and writes the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from backupd.errors import BackupdError, Damaged, Interrupted
from backupd.operations.backup_run import CHECKPOINT_SECONDS, BackupReport, BackupRun
from backupd.operations.events import Observer, ignore
from backupd.operations.history import History
from backupd.operations.selection import EVERYTHING, Selection
from backupd.operations.state import Outcome, Run, State
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository
from backupd.repository.snapshots import timestamp
from backupd.sources.base import Source

__all__ = ["BackupReport", "backup"]


def now() -> datetime:
    """The clock of the system, in UTC."""
    return datetime.now(UTC)


def backup(
    repository: Repository,
    source: Source,
    account: str,
    *,
    state: State,
    selection: Selection = EVERYTHING,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
    clock: Callable[[], datetime] = now,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> BackupReport:
    """Take a snapshot of an account, and record the run.

    Raises Busy when another run of the account is under way, Interrupted when `stop` was set (what was read is kept),
    and errors of the server or the storage that stop everything. One bad message or mailbox does not: it is in the
    report's problems.
    """
    with state.account_lock(account):
        started = clock()
        history = History(repository, account, started, clock)

        def run() -> BackupReport:
            return BackupRun(
                repository, source, account, history, state, selection, observer, Stop(stop), checkpoint_seconds
            ).run()

        try:
            try:
                report = run()
            except Damaged:
                # What was damaged is known now; the second time it is made up for before anything else (mend.py).
                history = History(repository, account, started, clock)
                report = run()
        except BaseException as error:
            outcome: Outcome = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            text = str(error) if isinstance(error, BackupdError) else type(error).__name__
            try:
                state.record(Run(account, timestamp(started), timestamp(clock()), outcome, history.newest, text))
            except BackupdError as second:
                error.add_note(f"and the run could not be recorded: {second}")
            raise
        outcome = "stored" if report.snapshot else "unchanged"
        state.record(Run(account, report.started, report.ended, outcome, history.newest, "", len(report.problems)))
        return report
