"""Everything that runs as long as a configuration holds: built from it, changed to follow it, ended in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import structlog

from backupd.daemon.board import Board, Live
from backupd.daemon.budget import Limits
from backupd.daemon.continuous import Continuous
from backupd.daemon.desk import Desk, Place
from backupd.daemon.maintenance import Maintenance
from backupd.daemon.notifying import Notifying
from backupd.daemon.pulse import JOB_SECONDS, Pulse
from backupd.daemon.runs import Runs
from backupd.daemon.schedules import Due, Schedules
from backupd.daemon.tasks import Tasks
from backupd.daemon.timetable import CONTINUOUS, Span, quiet_until
from backupd.errors import UsageError
from backupd.operations.accounts import Accounts
from backupd.operations.costs import Costs, Meter, known_costs
from backupd.operations.counting import count
from backupd.operations.notices.weekly import Week, gather
from backupd.operations.opening import open_repository, open_repository_storage, open_state
from backupd.operations.standing import Standing, learn
from backupd.operations.status import age_of

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.model import AccountConfig
    from backupd.repository.repository import Repository

STOP_SECONDS = 10.0
"""Runs write a checkpoint meanwhile; one that waits for a silent server is left, and loses what came after its last."""
_TIMEOUTS = 10
"""A run that hears nothing from its server for so many of the account's time-outs has hung."""

log = structlog.get_logger("backupd.engine")


class Engine:
    """Backups, maintenance, and what is told of them, of one configuration at a time. Close it.

    Args:
        telling: who hears of what happens.
        pulse: hears that work advances.
        zone: in which cron lines and quiet hours are meant; None for the system's.
    """

    def __init__(
        self,
        config: Config,
        telling: Notifying,
        *,
        pulse: Pulse | None = None,
        zone: tzinfo | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises NoRepository, WrongKey, ConfigError, StorageError."""
        self._config, self._telling, self._clock = config, telling, clock
        self._pulse = pulse or Pulse()
        self._schedules = Schedules(zone, clock=clock)
        self._zone = self._schedules.zone
        self._stop = threading.Event()
        self._meters: list[Meter] = []
        with ExitStack() as opened:
            self.state = open_state(config)
            opened.callback(self.state.close)
            self.board = Board(self._pulse.moved)
            self._accounts = opened.enter_context(Accounts(self._open, self.state))
            known = self._known(config)
            self._desk = Desk(self._run, _limits(config), quiet=self._quiet)
            self._runs = Runs(
                lambda: self._config, self._accounts, self.board, self._desk, telling, self._stop, clock=clock
            )
            self._maintenance = Maintenance(self.board, telling, self._stop, state=self.state, clock=clock)
            self._continuous = Continuous(self.board, self._desk, self._replan)
            self._apply(config, known)
            self._opened = opened.pop_all()

    def start(self) -> None:
        """From now on what is due is done."""
        self._schedules.start()
        self._continuous.follow(self._config)

    def close(self, seconds: float = STOP_SECONDS) -> bool:
        """End in order; whether everything has ended within so many seconds. If not, the process must end."""
        until = time.monotonic() + seconds
        self._stop.set()
        self._schedules.close()
        self._continuous.close()
        done = self._desk.close(seconds)
        done = self._maintenance.close(max(0.0, until - time.monotonic())) and done
        if done:
            self._count_requests()
            self._opened.close()
        return done

    # The configuration

    @property
    def config(self) -> Config:
        """The configuration that holds."""
        return self._config

    def reload(self, config: Config) -> None:
        """Follow another configuration; what has not changed goes on undisturbed.

        Raises UsageError where that takes a restart, and what opening the repository raises, which knows how new
        accounts stand; then nothing has changed.
        """
        for key in ("state_dir", "repository"):
            if getattr(config, key) != getattr(self._config, key):
                raise UsageError(
                    f"{key} cannot change while the daemon runs", remedy="restart it: systemctl restart backupd"
                )
        known = self._known(config)
        before, self._config = self._config, config
        self._apply(config, known)
        self._continuous.follow(config)
        changed = [name for name, account in config.accounts.items() if before.accounts.get(name) != account]
        gone = sorted(before.accounts.keys() - config.accounts.keys())
        log.info("configuration reloaded", accounts=len(config.accounts), changed=changed, removed=gone)
        for name in changed:
            # Whatever kept the account from being backed up may be what was mended.
            if self.board.account(name).failures:
                self._desk.request(name, by_hand=True)

    def _apply(self, config: Config, known: Mapping[str, Standing]) -> None:
        schedules = {name: self._schedule(account) for name, account in config.accounts.items()}
        self.board.set_accounts(schedules)
        for name, standing in known.items():
            self.board.update(name, last_good=_time(standing.proved), last_complete=_time(standing.whole))
        self._desk.resize(_limits(config))
        self._desk.set_accounts({name: _place(account) for name, account in config.accounts.items()})
        jobs = Tasks(config, self._accounts, self.state, self._clock, self._pulse).all()
        self._maintenance.set({name: task for name, (_, task) in jobs.items()})
        due = {f"account {name}": self._due(name, text) for name, text in schedules.items()}
        due |= {f"job {name}": Due(text, _asking(self._maintenance.request, name)) for name, (text, _) in jobs.items()}
        self._schedules.set(due)
        for name, text in schedules.items():
            if text == CONTINUOUS:
                self._desk.request(name)
        self.show_plans()

    def _schedule(self, account: AccountConfig) -> str:
        return account.schedule or self._config.schedule

    def _due(self, name: str, schedule: str) -> Due:
        if schedule == CONTINUOUS:
            poll = self._continuous.poll(name, self._config.accounts[name])
            schedule = f"every {max(1, int(poll.total_seconds()))} seconds"
        return Due(schedule, _asking(self._desk.request, name), self.board.account(name).last_good)

    def _replan(self, name: str) -> None:
        """Another interval holds for an account that is watched, or is not any more."""
        if (account := self._config.accounts.get(name)) is not None:
            self._schedules.put(f"account {name}", self._due(name, self._schedule(account)))

    def _known(self, config: Config) -> dict[str, Standing]:
        """How those accounts stand, from before, that the board does not know."""
        new = config.accounts.keys() - {live.account for live in self.board.accounts()}
        repository = self._accounts.take()
        try:
            return {name: learn(repository, self.state, name) for name in new}
        finally:
            self._accounts.give_back(repository, failed=False)

    # What is asked of it

    def trigger(self, names: Iterable[str] = ()) -> list[str]:
        """Back these accounts up now, or all; names of those there are not."""
        wanted = list(names) or list(self._config.accounts)
        return [name for name in wanted if not self._desk.request(name, by_hand=True)]

    def clock_was_set(self, seconds: float) -> None:
        """The clock on the wall went forward by so many seconds, or backward where it is negative."""
        log.warning("the clock was set", seconds=round(seconds, 1))
        now = self._clock()

        def right(time: datetime | None) -> datetime | None:
            # A time that is yet to come now was as wrong as the clock; a machine that slept made none wrong.
            return time + timedelta(seconds=seconds) if time and seconds < 0 and time > now else time

        for live in self.board.accounts():
            self.board.update(live.account, last_good=right(live.last_good), last_complete=right(live.last_complete))
        self._continuous.clock_was_set()
        self._schedules.restart()

    def tick(self) -> None:
        """Now and then: what is shown and counted is brought up to date."""
        self.show_plans()
        self._count_requests()

    def show_plans(self) -> None:
        """Bring up to date what the board says of the next runs."""
        waiting, now = self._desk.waiting(), self._clock()
        for live in self.board.accounts():
            ahead = self._schedules.next(f"account {live.account}")
            if (delay := waiting.get(live.account)) is not None:
                soon = now + timedelta(seconds=delay)
                ahead = min(ahead, soon) if ahead and not live.held_until else soon
            if live.next_run != ahead:
                self.board.update(live.account, next_run=ahead)
        for job in self.board.jobs():
            self.board.update_job(job.name, next_run=self._schedules.next(f"job {job.name}"))

    def overdue(self) -> list[Live]:
        """Accounts that are older than their objective."""
        now, objectives = self._clock(), self._config.objectives()
        found = []
        for live in self.board.accounts():
            objective = objectives.get(live.account)
            age = age_of(live.last_good, now)
            if objective and (age is None or age > objective):
                found.append(live)
        return found

    def behind(self) -> tuple[int, float]:
        """Accounts that wait for their turn, and for how many seconds the first of them has."""
        return self._desk.behind()

    def quiet_until(self) -> datetime | None:
        """When the quiet hours end that it is now."""
        return self._clock() + timedelta(seconds=seconds) if (seconds := self._quiet()) else None

    def costs(self) -> Costs | None:
        """What the repository holds, as far as the index knows; None while it is not open."""
        repository = self._accounts.take_open()
        if repository is None:
            return None
        try:
            return known_costs(repository, self.state, self._clock())
        finally:
            self._accounts.give_back(repository, failed=False)

    def week(self, begins: datetime, ends: datetime) -> Week:
        """What the weekly summary sums up. Raises StorageError."""
        repository = self._accounts.take()
        try:
            jobs = {job.name: f"{job.outcome}: {job.text}" for job in self.board.jobs() if job.outcome}
            return gather(repository, self.state, self._config.objectives(), begins, ends, jobs)
        finally:
            self._accounts.give_back(repository, failed=False)

    def summary(self) -> str:
        """How it goes, in a line."""
        accounts = self.board.accounts()
        running, failing = self._desk.running(), [live for live in accounts if live.failures]
        parts = [count(len(accounts), "account")]
        if running:
            parts.append(f"{len(running):,} being backed up")
        if failing:
            parts.append(f"{len(failing):,} failing")
        if overdue := self.overdue():
            parts.append(f"{len(overdue):,} older than {'its' if len(overdue) == 1 else 'their'} objective")
        ahead = min((live.next_run for live in accounts if live.next_run), default=None)
        if ahead and not running:
            parts.append(f"next {ahead.astimezone(self._zone):%H:%M:%S}")
        return ", ".join(parts)

    def _quiet(self) -> float:
        spans = [Span(*hours) for hours in self._config.quiet_hours]
        now = self._clock().astimezone(self._zone)
        until = quiet_until(spans, now) if spans else None
        return (until - now).total_seconds() if until else 0.0

    def _run(self, name: str, connections: int) -> None:
        account = self._config.accounts.get(name)
        server = account and (account.imap or account.pop3)
        # Whoever lets a server be silent for an hour does not mean that as a hang.
        with self._pulse.job(name, max(JOB_SECONDS, _TIMEOUTS * server.timeout) if server else None):
            self._runs.run(name, connections)

    def _open(self) -> Repository:
        storage = open_repository_storage(self._config)
        self._meters.append(Meter(storage))
        return open_repository(self._config, storage)

    def _count_requests(self) -> None:
        """Put what the bucket was asked for into the state, for `backupd status`."""
        for meter in self._meters:
            if any(news := meter.news()):
                self.state.asked(meter.url, self._clock().date(), news)


def _time(rfc3339: str | None) -> datetime | None:
    return datetime.fromisoformat(rfc3339) if rfc3339 else None


def _asking(call: Callable[[str], object], name: str) -> Callable[[], object]:
    return lambda: call(name)


def _limits(config: Config) -> Limits:
    return Limits(config.concurrency, config.connections_per_host, config.memory)


def _place(account: AccountConfig) -> Place:
    if account.imap is not None:
        return Place(account.imap.host.lower(), account.imap.connections)
    return Place(account.pop3.host.lower() if account.pop3 else "", 1)

