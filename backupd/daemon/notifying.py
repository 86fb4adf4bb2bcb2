"""From what happens in the daemon to the events that people are told of (backupd/operations/notices)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from backupd.daemon.board import Live
from backupd.daemon.retrying import Cause
from backupd.errors import BackupdError
from backupd.operations.backup import BackupReport
from backupd.operations.notices import events

if TYPE_CHECKING:
    from backupd.config import Config


class Tells(Protocol):
    """What a notifier offers (backupd/operations/notices/notifier.py)."""

    def tell(self, event: events.Event) -> None: ...


class Notifying:
    """Tells a notifier what became of accounts and jobs. All methods return at once, and never raise.

    Args:
        config: gives the configuration that holds now.
        last_good: when an account was last known to be backed up.
    """

    def __init__(
        self, notifier: Tells, config: Callable[[], Config], last_good: Callable[[str], datetime | None]
    ) -> None:
        self._notifier, self._config, self._last_good = notifier, config, last_good
        self._missed: set[str] | None = None

    def started(self, account: str) -> None:
        """A backup of the account begins."""
        self._notifier.tell(events.Started(account))

    def succeeded(self, account: str, report: BackupReport) -> None:
        """The account was backed up, with or without problems and losses."""
        for loss in report.losses:
            if loss.pinned:
                self._notifier.tell(events.Lost(account, loss.name, loss.gone, loss.before, loss.pinned))
        if report.problems:
            first = report.problems[0]
            where = f"{first.mailbox}{f' {first.uid}' if first.uid is not None else ''}"
            self._notifier.tell(events.Incomplete(account, len(report.problems), f"{where}: {first.what}"))
        else:
            self._notifier.tell(events.Completed(account))

    def failed(self, account: str, error: Exception, cause: Cause, failures: int) -> None:
        """The account could not be backed up."""
        what, remedy = said(error)
        self._notifier.tell(
            events.Failed(
                account, cause.value, what, remedy, self._place(account, cause), self._last_good(account),
                self._objective(account),
            )
        )  # fmt: skip

    def job_succeeded(self, name: str, text: str) -> None:
        """A job was done."""
        self._notifier.tell(events.AuditPassed(name))

    def job_failed(self, name: str, error: Exception) -> None:
        """A job failed."""
        self._notifier.tell(events.AuditFailed(name, *said(error)))

    def reload_refused(self, error: BackupdError) -> None:
        """The changed configuration is wrong."""
        self._notifier.tell(events.ReloadRefused(str(error)))

    def running(self) -> None:
        """The configuration in the file is in force: at the start, and after each reload."""
        self._notifier.tell(events.Reloaded())

    def repository_unreachable(self, error: Exception) -> None:
        """The repository cannot be opened."""
        self._notifier.tell(events.Unreachable(self._config().repository.url, *said(error)))

    def repository_reachable(self) -> None:
        """The repository was opened."""
        self._notifier.tell(events.Reachable(self._config().repository.url))

    def objectives(self, accounts: Iterable[Live], overdue: Iterable[Live]) -> None:
        """How accounts stand against their objectives, looked at every minute or so. overdue: those that miss it."""
        late = {live.account: live for live in overdue}
        for name, live in late.items():
            if (objective := self._objective(name)) is not None:
                self._notifier.tell(events.Missed(name, objective, live.last_good))
        # Of those that never missed it nobody needs to hear, but for the first time: they may have before the restart.
        met = {live.account for live in accounts} if self._missed is None else self._missed
        for name in met - late.keys():
            self._notifier.tell(events.Met(name))
        self._missed = set(late)

    def _objective(self, account: str) -> float | None:
        config = self._config()
        found = config.objectives([account])[account] if account in config.accounts else None
        return found.total_seconds() if found else None

    def _place(self, account: str, cause: Cause) -> str:
        config = self._config()
        if cause is Cause.STORAGE:
            return config.repository.url
        found = config.accounts.get(account)
        server = (found.imap or found.pop3) if found else None
        return server.host.lower() if server else ""


def said(error: Exception) -> tuple[str, str]:
    """(what happened, what to do about it)."""
    if not isinstance(error, BackupdError):
        return f"an error in backupd itself: {type(error).__name__}", "please report it"
    return (f"{error.subject}: {error.what}" if error.subject else error.what), error.remedy
