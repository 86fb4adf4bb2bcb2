"""`backupd backup`."""

from __future__ import annotations

import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import INTERRUPTED, Context, Here
from backupd.errors import BackupdError, ServerError

if TYPE_CHECKING:
    from backupd.operations.backup import BackupReport
    from backupd.operations.events import Observer
    from backupd.operations.state import State
    from backupd.repository.repository import Repository

FAILED = 1
INCOMPLETE = 3


def command(*accounts: str, context: Here) -> int:
    """Take a snapshot of accounts now, of several at once. One that fails does not stop the others.

    Parameters
    ----------
    accounts
        Their names in the configuration; none means all.
    """
    from backupd.cli.progress import shown

    context.not_at_a_copy("backup")
    names = list(dict.fromkeys(accounts)) or list(context.config.accounts)
    for name in names:
        context.config.account(name)  # an unknown name is found before anything is done
    with (
        context.state() as state,
        shown(context) as observer,
        context.stopping() as stop,
        _Runner(context, state, observer, stop) as runner,
        ThreadPoolExecutor(context.config.concurrency, thread_name_prefix="account") as pool,
    ):
        given = pool.map(runner.run, names)
        results = {name: result for name, result in zip(names, given, strict=True) if result is not None}
        stored = runner.bytes_stored
        unlocked = None if stop.is_set() else runner.renew_locks()
    code = INTERRUPTED if stop.is_set() else exit_code([*results.values(), *([unlocked] if unlocked else [])])
    if context.json:
        runs = [_document(name, result) for name, result in results.items()]
        locks = {"locks": {"error": output.describe_error(unlocked)}} if unlocked else {}
        output.document({"runs": runs, "stored": stored, **locks, "exit_code": code})
    for name, result in results.items():
        _tell(context, name, result, alone=len(names) == 1)
    if unlocked:
        output.remark(f"the locks of what is stored could not be renewed: {unlocked}")
    if len(names) > 1 and stored:
        context.say(f"{output.size(stored)} stored in all")
    return code


class _Runner:
    """Runs accounts on one open repository, from several threads. It is opened anew after a failure of its own: its
    writer may be unusable, and the next account must not suffer from that."""

    def __init__(self, context: Context, state: State, observer: Observer, stop: threading.Event) -> None:
        self._context, self._state, self._observer, self._stop = context, state, observer, stop
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._repositories: list[Repository] = []
        # Opened here, so that a wrong passphrase or a missing repository is said once, and not for every account.
        self._usable: Repository | None = self._open()

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _open(self) -> Repository:
        repository = self._opened.enter_context(self._context.open_repository())
        self._repositories.append(repository)
        return repository

    @property
    def bytes_stored(self) -> int:
        """Octets added to the repository's packs by all accounts."""
        return sum(repository.bytes_stored for repository in self._repositories)

    def renew_locks(self) -> BackupdError | None:
        """Keep the locks of what is stored from running out; what it failed of."""
        from backupd.operations.locks import renew_locks

        try:
            if self._repositories[-1].storage.locks:
                renew_locks(self._repositories[-1].storage, self._state, datetime.now(UTC), stop=self._stop)
        except BackupdError as error:
            return error
        return None

    def run(self, name: str) -> BackupReport | BackupdError | None:
        """What came of the account; None when we were stopped before."""
        from backupd.operations.backup import backup, pull
        from backupd.operations.opening import open_copies, open_pop3, open_source
        from backupd.operations.selection import Selection

        if self._stop.is_set():
            return None
        repository: Repository | None = None
        try:
            with self._lock:
                repository = self._usable = self._usable or self._open()
            account = self._context.config.account(name)
            if account.pop3 is not None:
                return pull(
                    repository,
                    open_pop3(self._context.config, name),
                    name,
                    state=self._state,
                    delete_after=account.pop3.delete_after,
                    copies=lambda: open_copies(self._context.config),
                    observer=self._observer,
                    stop=self._stop,
                )
            chosen = account.mailboxes
            return backup(
                repository,
                open_source(self._context.config, name),
                name,
                state=self._state,
                selection=Selection(tuple(chosen.include), tuple(chosen.exclude)),
                observer=self._observer,
                stop=self._stop,
            )
        except ServerError as error:
            return error
        except BackupdError as error:
            self._give_up(repository)
            return error
        except Exception as error:  # noqa: BLE001 - even a bug in one account's run must not cost the others theirs
            if self._context.debug:
                traceback.print_exception(error, file=sys.stderr)
            self._give_up(repository)
            return output.bug(error)

    def _give_up(self, repository: Repository | None) -> None:
        """Use it no more. It is closed at the end: other accounts may be at work on it."""
        with self._lock:
            if self._usable is repository:
                self._usable = None


def exit_code(results: list[BackupReport | BackupdError]) -> int:
    """The worst of all accounts: 130 when interrupted; what they failed with, or 1 when not all of them, or not for
    the same reason; 3 when something is missing; else 0."""
    codes = {result.exit_code for result in results if isinstance(result, BackupdError)}
    if INTERRUPTED in codes:
        return INTERRUPTED
    if codes:
        all_failed = all(isinstance(result, BackupdError) for result in results)
        return codes.pop() if all_failed and len(codes) == 1 else FAILED
    problems = any(not isinstance(result, BackupdError) and result.problems for result in results)
    return INCOMPLETE if problems else 0


def _document(name: str, result: BackupReport | BackupdError) -> object:
    if isinstance(result, BackupdError):
        return {"account": name, "error": output.describe_error(result)}
    return result


def _tell(context: Context, name: str, result: BackupReport | BackupdError, *, alone: bool) -> None:
    if isinstance(result, BackupdError):
        output.remark(str(result) if result.subject.startswith(name) else f"{name}: {result}")
        return
    context.say(summary(result, alone=alone))
    for problem in result.problems:
        where = f"{problem.mailbox} UID {problem.uid}" if problem.uid is not None else problem.mailbox
        output.remark(f"{name}: {where}: {problem.what}")
    for loss in result.losses:
        output.remark(
            f"{name}: sudden loss: {loss.gone:,} of {output.count(loss.before, 'message')} are gone from "
            f"{loss.name or 'the account'}; snapshot {loss.pinned} still has them"
        )
    for note in result.notes:
        context.note(f"{name}: {note}")


def summary(report: BackupReport, *, alone: bool = True) -> str:
    """One line about a run that ended. alone: what the repository has grown by is this run's doing."""
    held = f"{output.count(report.messages, 'message')} in {output.count(report.mailboxes, 'mailbox', 'mailboxes')}"
    if report.snapshot is None:
        return f"{report.account}: nothing has changed, {held}"
    changes = [
        (report.new, f"{report.new:,} new ({output.size(report.downloaded)})"),
        (report.recognised, f"{report.recognised:,} moved"),
        (report.vanished, f"{report.vanished:,} gone"),
        (report.changed, f"{report.changed:,} with other flags"),
    ]
    said = ", ".join([held, *(text for number, text in changes if number)])
    complete = "" if report.complete else " (not complete)"
    stored = f", {output.size(report.stored)} stored" if alone else ""
    return f"{report.account}: {said}; snapshot {report.snapshot}{complete}{stored}"
