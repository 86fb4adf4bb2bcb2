"""Backups of many accounts on one open repository, from several threads: what `backup` and the daemon have in common.

The repository is opened once, for opening it takes the memory and the time that a passphrase is meant to cost, and all
accounts share what is known of stored blobs. After a failure of its own it is opened anew: its writer may be unusable,
and the next account must not suffer from that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from backupd.errors import Busy, ConfigError, Overtaken, ServerError, UsageError
from backupd.operations.backup import BackupReport, backup, pull
from backupd.operations.daily_limit import Meter
from backupd.operations.events import Observer, ignore
from backupd.operations.opening import open_copies, open_meter, open_pop3, open_source
from backupd.operations.selection import Selection
from backupd.operations.state import State
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository

if TYPE_CHECKING:
    from backupd.config import Config


class Accounts:
    """Runs backups of accounts. Close it when none is under way."""

    def __init__(self, open_repository: Callable[[], Repository], state: State) -> None:
        """Opens the repository, so that a wrong passphrase is said once, and not for every account.

        Raises NoRepository, WrongKey, ConfigError, StorageError.
        """
        self._open, self._state = open_repository, state
        self._lock = threading.Lock()
        self._users: dict[Repository, int] = {}
        self._stored_by_closed = 0
        self._usable: Repository | None = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the repository."""
        with self._lock:
            repositories, self._users, self._usable = list(self._users), {}, None
        for repository in repositories:
            repository.close()

    def _opened(self) -> Repository:
        repository = self._open()
        self._users[repository] = 0
        return repository

    @property
    def bytes_stored(self) -> int:
        """Octets added to the repository's packs by all accounts so far."""
        with self._lock:
            return self._stored_by_closed + sum(repository.bytes_stored for repository in self._users)

    def take(self) -> Repository:
        """The repository, for use until it is given back. Raises what opening it raises."""
        with self._lock:
            repository = self._usable = self._usable or self._opened()
            self._users[repository] += 1
            return repository

    def take_open(self) -> Repository | None:
        """The repository, as `take` gives it, if it is open; for who has no reason to open it."""
        with self._lock:
            if self._usable is not None:
                self._users[self._usable] += 1
            return self._usable

    def give_back(self, repository: Repository, *, failed: bool) -> None:
        """Of a repository that failed, nobody takes up the use any more; the last to use it closes it."""
        with self._lock:
            if failed and self._usable is repository:
                self._usable = None
            if repository not in self._users:  # all was closed meanwhile
                return
            self._users[repository] -= 1
            done = not self._users[repository] and self._usable is not repository
            if done:
                del self._users[repository]
                self._stored_by_closed += repository.bytes_stored
        if done:
            repository.close()

    def back_up(
        self,
        config: Config,
        account: str,
        *,
        connections: int | None = None,
        observer: Observer = ignore,
        stop: threading.Event | None = None,
        at_once: bool = False,
    ) -> BackupReport:
        """Take a snapshot of an account now.

        Args:
            connections: fewer than configured, if this is what may be used now.
            at_once: even if its server wants to be left alone, and beyond its daily limit.

        Raises what operations.backup.backup() raises, and what opening the repository raises.
        """
        try:
            return self._once(config, account, connections, observer, stop, at_once)
        except Overtaken:
            # This machine stood still, and others have pruned; the repository is opened anew, and all is well.
            return self._once(config, account, connections, observer, stop, at_once)

    def _once(
        self,
        config: Config,
        account: str,
        connections: int | None,
        observer: Observer,
        stop: threading.Event | None,
        at_once: bool,
    ) -> BackupReport:
        repository, failed = self.take(), True
        try:
            meter = open_meter(config, account, self._state, limited=not at_once)
            try:
                report = self._run(repository, config, account, meter, connections, observer, stop, at_once)
            finally:
                meter.save()
            failed = False
            return report
        except (ServerError, Busy, ConfigError, UsageError):
            failed = False  # not of the repository, which is as good as before
            raise
        finally:
            self.give_back(repository, failed=failed)

    def _run(
        self,
        repository: Repository,
        config: Config,
        account: str,
        meter: Meter,
        connections: int | None,
        observer: Observer,
        stop: threading.Event | None,
        at_once: bool,
    ) -> BackupReport:
        found = config.account(account)
        ours = Stop(stop)
        if found.pop3 is not None:
            return pull(
                repository,
                open_pop3(config, account, meter=meter),
                account,
                state=self._state,
                delete_after=found.pop3.delete_after,
                copies=lambda: open_copies(config),
                observer=observer,
                stop=ours,
                at_once=at_once,
            )
        return backup(
            repository,
            open_source(config, account, connections, meter=meter, wait=ours.wait),
            account,
            state=self._state,
            selection=Selection(tuple(found.mailboxes.include), tuple(found.mailboxes.exclude)),
            observer=observer,
            stop=ours,
            at_once=at_once,
        )
