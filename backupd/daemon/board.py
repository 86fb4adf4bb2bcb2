"""What is going on, for everyone who asks: `backupd status`, the health endpoints, the metrics, systemd's status line.

What an account's runs came to is kept in the state database; here is what lives as long as the daemon does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from backupd.operations.events import Advance, Event, Plan


class Live(msgspec.Struct, frozen=True):
    """One account, now. Times are aware, in UTC; None where there is none.

    schedule: as configured. watching: how changes are learnt of: "notify", "idle", "polling", "connecting", "lost", or
    "" where the schedule alone counts. running_since: of the run under way; `messages` and `octets` of `planned`
    (messages) are done. next_run: when the schedule or a retry will begin it. held_until: before that nothing begins,
    for the reason in `held_for`. failures: in a row, since `failing_since`, because of `cause`; `error` says what
    happened and what to do, and is empty when all is well. last_good: when the last run that went well began, or the
    newest snapshot; last_complete: the same of those that left nothing out. last_run: when the last run began, or
    failed. seconds, problems: of the last run. The rest counts since the daemon began.
    """

    account: str
    schedule: str = ""
    watching: str = ""
    running_since: datetime | None = None
    planned: int = 0
    messages: int = 0
    octets: int = 0
    next_run: datetime | None = None
    held_until: datetime | None = None
    held_for: str = ""
    failures: int = 0
    failing_since: datetime | None = None
    cause: str = ""
    error: str = ""
    last_good: datetime | None = None
    last_complete: datetime | None = None
    last_run: datetime | None = None
    seconds: float = 0.0
    problems: int = 0
    runs: int = 0
    failed_runs: int = 0
    new_messages: int = 0
    downloaded: int = 0
    stored: int = 0
    throttled_seconds: float = 0.0


class Job(msgspec.Struct, frozen=True):
    """Work on the repository as a whole, such as "forget" or "copy". outcome: "", "ok" or "failed"."""

    name: str
    running_since: datetime | None = None
    next_run: datetime | None = None
    last_run: datetime | None = None
    last_good: datetime | None = None
    seconds: float = 0.0
    outcome: str = ""
    text: str = ""


class Board:
    """All accounts and jobs. Safe to use from several threads; what is read is a value that does not change any more.

    moved: called whenever work on an account or a job advances, with its name.
    """

    def __init__(self, moved: Callable[[str], None] = lambda name: None) -> None:
        self._lock = threading.Lock()
        self._moved = moved
        self._accounts: dict[str, Live] = {}
        self._jobs: dict[str, Job] = {}

    def accounts(self) -> list[Live]:
        """All accounts, in the order of the configuration."""
        with self._lock:
            return list(self._accounts.values())

    def account(self, name: str) -> Live:
        """One account. Raises KeyError for one that is not configured."""
        with self._lock:
            return self._accounts[name]

    def find(self, name: str) -> Live | None:
        """One account; None for one that is not configured."""
        with self._lock:
            return self._accounts.get(name)

    def jobs(self) -> list[Job]:
        """All jobs."""
        with self._lock:
            return list(self._jobs.values())

    def set_accounts(self, schedules: dict[str, str]) -> None:
        """These are the accounts from now on, with their schedules; what is known of those that stay, stays."""
        with self._lock:
            known = self._accounts
            self._accounts = {
                name: msgspec.structs.replace(known.get(name) or Live(name), schedule=schedule)
                for name, schedule in schedules.items()
            }

    def set_jobs(self, names: list[str], before: Mapping[str, Job] | None = None) -> None:
        """These are the jobs from now on; before: what is known from an earlier daemon of those that are new here."""
        with self._lock:
            known = {**(before or {}), **self._jobs}
            self._jobs = {name: known.get(name) or Job(name) for name in names}

    def update(self, account: str, **changes: object) -> Live | None:
        """Change what is known of an account; what it is now, None if it is not configured any more."""
        with self._lock:
            if (known := self._accounts.get(account)) is None:
                return None
            self._accounts[account] = found = msgspec.structs.replace(known, **changes)
            return found

    def update_job(self, name: str, **changes: object) -> Job | None:
        """Change what is known of a job; what it is now, None if there is no such job any more."""
        with self._lock:
            if name not in self._jobs:
                return None
            self._jobs[name] = found = msgspec.structs.replace(self._jobs[name], **changes)
            return found

    def observe(self, event: Event) -> None:
        """An observer of operations (backupd/operations/events.py)."""
        if isinstance(event, Plan):
            self.update(event.account, planned=event.messages)
        elif isinstance(event, Advance):
            with self._lock:
                if known := self._accounts.get(event.account):
                    self._accounts[event.account] = msgspec.structs.replace(
                        known, messages=known.messages + event.messages, octets=known.octets + event.octets
                    )
        self._moved(event.account)
