"""Which maintenance there is, by the configuration, and what each piece of it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from backupd.daemon.maintenance import Task
from backupd.daemon.pulse import Pulse
from backupd.errors import BackupdError, Damaged, StorageError
from backupd.operations import audit_opening, record_check
from backupd.operations.accounts import Accounts
from backupd.operations.audit import Means, audit
from backupd.operations.audit_report import Level, Severity, Wish
from backupd.operations.copy import copy
from backupd.operations.counting import count
from backupd.operations.events import Observer
from backupd.operations.forget import forget, rules_of
from backupd.operations.locks import renew_locks
from backupd.operations.opening import open_copies, open_repository, open_repository_storage
from backupd.operations.prune import prune
from backupd.operations.state import State
from backupd.repository.repository import Repository

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.daemon import AuditJob

NEVER = "never"
LOCKS_SCHEDULE = "every 6 hours"
SILENT_SECONDS = 6 * 3600.0
"""What tells how it gets on may still list millions of objects, or read a large index, without a word."""


class Tasks:
    """The jobs of a configuration, with their schedules.

    pulse: hears of those that tell how they get on; the others may work for hours in silence.
    """

    def __init__(
        self,
        config: Config,
        accounts: Accounts,
        state: State,
        clock: Callable[[], datetime],
        pulse: Pulse | None = None,
    ) -> None:
        self._config, self._accounts, self._state, self._clock = config, accounts, state, clock
        self._pulse = pulse or Pulse()

    def all(self) -> dict[str, tuple[str, Task]]:
        """(schedule, task) of each job that is not switched off, by name."""
        wanted = self._config.maintenance
        jobs: dict[str, tuple[str, Task]] = {"prune": (wanted.prune, self._prune)}
        if any(not rules.are_none for rules in rules_of(self._config).values()):
            jobs["forget"] = (wanted.forget, self._forget)
        if self._config.copies:
            jobs["copy"] = (wanted.copies, self._copy)
        buckets = [self._config.repository.s3, *(each.s3 for each in self._config.copies)]
        if any(bucket and bucket.object_lock for bucket in buckets):
            jobs["locks"] = (LOCKS_SCHEDULE, self._locks)
        for wish in wanted.audits:
            jobs[f"audit {wish.level}"] = (wish.schedule, partial(self._audit, wish))
        return {name: job for name, job in jobs.items() if job[0] != NEVER}

    @contextmanager
    def _repository(self) -> Iterator[Repository]:
        repository, failed = self._accounts.take(), True
        try:
            yield repository
            failed = False
        finally:
            self._accounts.give_back(repository, failed=failed)

    @contextmanager
    def _watched(self, job: str) -> Iterator[Observer]:
        """An observer by whose events a job is known to get on."""
        with self._pulse.job(job, SILENT_SECONDS) as beat:
            yield lambda event: beat()

    def _forget(self, stop: threading.Event) -> str:
        rules, now = rules_of(self._config), self._clock()
        with self._repository() as repository, self._watched("forget") as observer:
            report = forget(repository, rules, state=self._state, now=now, observer=observer, stop=stop)
        return f"{count(report.forgotten, 'snapshot')} forgotten, {report.kept:,} kept"

    def _prune(self, stop: threading.Event) -> str:
        with self._repository() as repository, self._watched("prune") as observer:
            report = prune(repository, state=self._state, now=self._clock(), observer=observer, stop=stop)
        merged = f"{count(report.packs, 'pack')} merged into {report.into:,}"
        return f"{merged}, {count(report.removed, 'object')} removed"

    def _copy(self, stop: threading.Event) -> str:
        done, errors = [], list[BackupdError]()
        for target in open_copies(self._config):
            try:  # the other copies are made all the same
                with self._watched("copy") as observer:
                    report = copy(open_repository_storage(self._config), target, observer=observer, stop=stop)
            except StorageError as error:
                errors.append(error)
                continue
            done.append(f"{report.target}: {count(report.copied, 'object')} copied")
            if report.problems:
                first, some = report.problems[0], count(len(report.problems), "object")
                errors.append(
                    StorageError(
                        f"{some} could not be copied, first {first.object}: {first.what}",
                        subject=report.target,
                        remedy="backupd audit --level storage tells what is damaged, backupd repair mends it",
                    )
                )
        if errors:
            raise errors[0]
        return "; ".join(done)

    def _audit(self, wanted: AuditJob, stop: threading.Event) -> str:
        wish = Wish(
            level=Level(wanted.level),
            objectives=self._config.objectives(),
            budget=wanted.budget / 100 if wanted.budget else None,
        )
        config, storage = self._config, open_repository_storage(self._config)
        servers, scratch = audit_opening.servers(config), audit_opening.scratch(config, None)
        means = Means(
            self._state, self._clock, open_copies(config), servers, scratch,
            record_check.checker(self._state, config.accounts, clock=self._clock),
            record_check.appender(self._state, self._clock),
            record_check.why_gone(self._state, self._clock),
        )  # fmt: skip
        with self._watched(f"audit {wanted.level}") as observer:
            report = audit(
                storage, lambda: open_repository(config, storage), wish, means, observer=observer, stop=stop
            )
        # How old accounts are is watched all the time, and told by itself.
        told = set() if wish.level is Level.FRESHNESS else {Level.FRESHNESS}
        grave = [each for each in report.findings if each.severity is Severity.CRITICAL and each.level not in told]
        if grave:
            more = f" (and {len(grave) - 1:,} more)" if len(grave) > 1 else ""
            raise Damaged(
                f"{grave[0].what}{more}",
                subject=grave[0].subject,
                remedy=f"backupd audit --level {wanted.level} tells all of it, backupd repair mends what it can",
            )
        return f"{report.outcome}, {count(report.problems, 'problem')}"

    def _locks(self, stop: threading.Event) -> str:
        renewed = 0
        for storage in (open_repository_storage(self._config), *open_copies(self._config)):
            if storage.locks and (report := renew_locks(storage, self._state, self._clock(), stop=stop)):
                renewed += report.renewed
        return f"{count(renewed, 'lock')} renewed"


def utc() -> datetime:
    """The clock of the system."""
    return datetime.now(UTC)
