"""`backupd backup`: a snapshot of one account, and the record of the run.

What the positions prove to be unchanged is carried over unread. Everything else is scanned; then new messages are
brought in by several sessions at once; then each mailbox is proved complete, and the snapshot is written. An
interruption or a failure in between leaves a checkpoint, from which the next run goes on. backup_run.py does the
work, history.py knows the snapshots before and writes the new one. For POP3 pull.py does the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from backupd.errors import BackupdError, Damaged, Interrupted, Throttled
from backupd.operations import pausing, standing
from backupd.operations.backup_report import BackupReport
from backupd.operations.backup_run import CHECKPOINT_SECONDS, BackupRun
from backupd.operations.events import Observer, ignore
from backupd.operations.history import History
from backupd.operations.pull import Pull
from backupd.operations.pull_delete import Deletion
from backupd.operations.record import Recorder
from backupd.operations.selection import EVERYTHING, Selection
from backupd.operations.state import Outcome, Run, State
from backupd.operations.state_files import account_lock
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository
from backupd.repository.snapshots import timestamp
from backupd.sources.base import Source
from backupd.sources.pop3.base import Pop3Source
from backupd.storage.base import Storage

__all__ = ["BackupReport", "backup", "pull", "recorded"]


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
    stop: threading.Event | Stop | None = None,
    clock: Callable[[], datetime] = now,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    at_once: bool = False,
) -> BackupReport:
    """Take a snapshot of an account, and record the run.

    at_once: even if the account is to be left alone, because a run before was throttled.

    Raises Throttled when it is to be left alone, or the server or a limit wants a pause (what was read is kept), Busy
    when another run of the account is under way, Interrupted when `stop` was set (what was read is kept),
    and errors of the server or the storage that stop everything. One bad message or mailbox does not: it is in the
    report's problems.
    """

    def run(history: History) -> BackupReport:
        return BackupRun(
            repository, source, account, history, state, selection, observer, _ours(stop), checkpoint_seconds
        ).run()

    return _with_pauses(run, repository, account, state, clock, at_once)


def pull(
    repository: Repository,
    source: Pop3Source,
    account: str,
    *,
    state: State,
    delete_after: timedelta | None = None,
    copies: Callable[[], Sequence[Storage]] = tuple,
    observer: Observer = ignore,
    stop: threading.Event | Stop | None = None,
    clock: Callable[[], datetime] = now,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    at_once: bool = False,
) -> BackupReport:
    """Take a snapshot of a POP3 account, and record the run.

    delete_after: how long a message must have been in a snapshot before it is deleted from the server; None: for ever.
    copies: opens all copies of the repository, which are proved before anything is deleted.

    Raises what backup() raises. One bad message stops nothing: it is in the report's problems.
    """
    ours = _ours(stop)

    def run(history: History) -> BackupReport:
        deletion = Deletion(repository, account, delete_after, copies, ours) if delete_after else None
        return Pull(
            repository, source, account, history, state, observer, ours,
            deletion=deletion, checkpoint_seconds=checkpoint_seconds,
        ).run()  # fmt: skip

    return _with_pauses(run, repository, account, state, clock, at_once)


def _ours(stop: threading.Event | Stop | None) -> Stop:
    return stop if isinstance(stop, Stop) else Stop(stop)


def _with_pauses(
    run: Callable[[History], BackupReport],
    repository: Repository,
    account: str,
    state: State,
    clock: Callable[[], datetime],
    at_once: bool,
) -> BackupReport:
    """As `recorded`, of a run that asks a server: not while it wants to be left alone, unless at once."""
    if not at_once:
        pausing.obey(state, account, clock())

    def obedient(history: History) -> BackupReport:
        try:
            return run(history)
        except Throttled as error:
            pausing.remember(state, account, error, clock())
            raise

    report = recorded(obedient, repository, account, state, clock)
    pausing.forget(state, account)
    return report


def recorded(
    run: Callable[[History], BackupReport],
    repository: Repository,
    account: str,
    state: State,
    clock: Callable[[], datetime],
    *,
    imported: bool = False,
) -> BackupReport:
    """Run this alone on the account, and record what came of it. Raises Busy, and what the run raises.

    imported: the mail is not the server's, so that the account is no fresher for it.
    """
    with account_lock(state.folder, account):
        started = clock()
        record = Recorder(repository, state, clock)
        history = History(repository, account, started, clock, record)
        try:
            try:
                record.settle(history.refs)
                with repository.running(history.parent_ref):
                    report = run(history)
            except Damaged:
                # What was damaged is known now; the second time it is made up for before anything else (mend.py), so
                # that nothing was amiss a moment ago must not keep it from looking.
                repository.sound_until = 0.0
                history = History(repository, account, started, clock, record)
                with repository.running(history.parent_ref):
                    report = run(history)
        except BaseException as error:
            outcome: Outcome = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            if isinstance(error, Throttled):
                outcome = "throttled"
            text = str(error) if isinstance(error, BackupdError) else type(error).__name__
            try:
                run_was = Run(account, timestamp(started), timestamp(clock()), outcome, history.newest, text)
                standing.record(state, repository, history, run_was)
            except BackupdError as second:
                error.add_note(f"and the run could not be recorded: {second}")
            raise
        outcome = "imported" if imported else "stored" if report.snapshot else "unchanged"
        # By the clock, and not as the snapshot is dated, which never lies before the one before it: where the clock was
        # a year ahead once, the account would be as good as new for a year.
        times = (timestamp(started), timestamp(max(started, clock())))
        run_was = Run(account, *times, outcome, history.newest, "", len(report.problems))
        standing.record(state, repository, history, run_was, report)
        return report
