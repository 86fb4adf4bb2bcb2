"""`backupd backup`."""

from __future__ import annotations

import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import INTERRUPTED, Context, Here
from backupd.errors import BackupdError, Throttled

if TYPE_CHECKING:
    from backupd.operations.accounts import Accounts
    from backupd.operations.backup import BackupReport
    from backupd.operations.events import Observer
    from backupd.operations.state import State

FAILED = 1
INCOMPLETE = 3


def command(*accounts: str, now: bool = False, context: Here) -> int:
    """Take a snapshot of accounts now, of several at once. One that fails does not stop the others.

    Parameters
    ----------
    accounts
        Their names in the configuration; none means all.
    now
        Even of accounts whose server wants to be left alone for a while, and beyond their daily limit.
    """
    from backupd.cli.progress import shown
    from backupd.operations.accounts import Accounts

    context.not_at_a_copy("backup")
    names = list(dict.fromkeys(accounts)) or list(context.config.accounts)
    for name in names:
        context.config.account(name)  # an unknown name is found before anything is done
    with (
        context.state() as state,
        shown(context) as observer,
        context.stopping() as stop,
        Accounts(context.open_repository, state) as opened,
        ThreadPoolExecutor(context.config.concurrency, thread_name_prefix="account") as pool,
    ):
        runner = _Runner(context, opened, observer, stop, now)
        given = pool.map(runner.run, names)
        results = {name: result for name, result in zip(names, given, strict=True) if result is not None}
        stored = opened.bytes_stored
        unlocked = None if stop.is_set() else runner.renew_locks(state)
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
    """Runs accounts, from several threads, and has what came of each instead of an exception."""

    def __init__(
        self, context: Context, accounts: Accounts, observer: Observer, stop: threading.Event, at_once: bool
    ) -> None:
        self._context, self._accounts, self._observer, self._stop = context, accounts, observer, stop
        self._at_once = at_once

    def renew_locks(self, state: State) -> BackupdError | None:
        """Keep the locks of what is stored from running out; what it failed of."""
        from backupd.operations.locks import renew_locks

        try:
            storage = self._context.storage()
            if storage.locks:
                renew_locks(storage, state, datetime.now(UTC), stop=self._stop)
        except BackupdError as error:
            return error
        return None

    def run(self, name: str) -> BackupReport | BackupdError | None:
        """What came of the account; None when we were stopped before."""
        if self._stop.is_set():
            return None
        try:
            return self._accounts.back_up(
                self._context.config, name, observer=self._observer, stop=self._stop, at_once=self._at_once
            )
        except BackupdError as error:
            return error
        except Exception as error:  # noqa: BLE001 - even a bug in one account's run must not cost the others theirs
            if self._context.debug:
                traceback.print_exception(error, file=sys.stderr)
            return output.bug(error)


def exit_code(results: list[BackupReport | BackupdError]) -> int:
    """The worst of all accounts: 130 when interrupted; what they failed with, or 1 when not all of them, or not for
    the same reason; 3 when something is missing, be it only until a pause is over; else 0."""
    failures = [result for result in results if isinstance(result, BackupdError) and not isinstance(result, Throttled)]
    codes = {error.exit_code for error in failures}
    if INTERRUPTED in codes:
        return INTERRUPTED
    if codes:
        return codes.pop() if len(failures) == len(results) and len(codes) == 1 else FAILED
    missing = any(isinstance(result, BackupdError) or result.problems for result in results)
    return INCOMPLETE if missing else 0


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
            f"{loss.name or 'the account'}; snapshot {loss.pinned} still has them (restore what is missed; then, or if "
            f"it is meant, `backupd hold accept-loss {name}`)"
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
