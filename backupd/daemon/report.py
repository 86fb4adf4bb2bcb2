"""How everything stands, as `backupd status` shows it and the metrics count it: what is kept in the state, and what the
board knows beside it. Nothing here asks a server or reads the repository.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from backupd import __version__
from backupd.daemon.board import Board, Job, Live
from backupd.operations import standing
from backupd.operations.audit_history import LastOfLevel
from backupd.operations.costs import Costs
from backupd.operations.standing import Standing
from backupd.operations.state import State
from backupd.operations.status import FAILED, AccountStatus, Level, Status, account_status, age_of, worst


class AccountReport(AccountStatus, frozen=True):
    """How one account stands, and what the daemon does about it. live: None where no daemon runs.

    doing: "running"; "waiting" for its turn, with a run due; "held" back until live.held_until; or "" when nothing is
    due.
    """

    live: Live | None = None
    doing: Literal["", "running", "waiting", "held"] = ""

    @property
    def now(self) -> Live:
        """What the daemon does; as if it had done nothing where none runs."""
        return self.live or Live(self.account)

    @property
    def is_overdue(self) -> bool:
        """Whether it is older than its objective, as far as can be told, or was never backed up."""
        return self.age is None or (self.objective is not None and self.age > self.objective)

    @property
    def last_seconds(self) -> float | None:
        """How long the last run took."""
        if (run := self.last_run) is None:
            return None
        took = datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)
        return max(0.0, took.total_seconds())


class DaemonReport(msgspec.Struct, frozen=True):
    """The daemon itself. not_ready: why it does no work, empty when it does. quiet_until: in quiet hours, their end."""

    pid: int
    version: str
    since: datetime
    time: datetime
    not_ready: str
    alive: bool
    quiet_until: datetime | None
    jobs: list[Job]


class Report(msgspec.Struct, frozen=True):
    """Everything. repository: None where it is not open. daemon: None where none runs."""

    level: Level
    accounts: list[AccountReport]
    repository: Costs | None
    daemon: DaemonReport | None


class LastAudit(msgspec.Struct, frozen=True):
    """The last audit of a level. code: as the monitoring plugins have it, 0 OK, 1 warning, 2 critical, 3 unknown."""

    level: str
    time: datetime
    code: int
    seconds: float = 0.0


_CODES = {"ok": 0, "warning": 1, "critical": 2}


def last_audits(levels: Iterable[LastOfLevel]) -> list[LastAudit]:
    """The last of each level, and the code that counts for it: of a failure, until a later audit has made up for it."""
    found = []
    for each in levels:
        began, ended = (datetime.fromisoformat(time) for time in (each.last.started, each.last.ended))
        seconds = max(0.0, (ended - began).total_seconds())
        found.append(LastAudit(each.last.level, ended, _CODES.get(each.outcome.outcome, 3), seconds))
    return found


class Queue(msgspec.Struct, frozen=True):
    """Accounts that may be backed up now and wait for their turn, and seconds for which the first of them has."""

    accounts: int = 0
    seconds: float = 0.0


def utc() -> datetime:
    """The clock of the system."""
    return datetime.now(UTC)


def stopwatch() -> Callable[[], float]:
    """Seconds from now on, also those that the machine sleeps, by a clock that nobody sets."""

    def clock() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    began = clock()
    return lambda: clock() - began


@dataclass(frozen=True)
class Facts:
    """Where what is told comes from. All of it may be asked from any thread, at any time, and at once.

    objectives: of the accounts that are configured, in order. not_ready: why no work can be done, empty when it can.
    alive: whether the main loop advances. stored: what the repository holds; None while it is not open. quiet: when the
    quiet hours end that it is now. plans: brings up to date what the board says of next runs. tokens: by account, when
    the right to log in runs out. audits: the last of each level. up: seconds since the daemon began.
    """

    board: Callable[[], Board]
    state: State
    objectives: Callable[[], Mapping[str, timedelta | None]]
    not_ready: Callable[[], str] = lambda: ""
    alive: Callable[[], bool] = lambda: True
    stored: Callable[[], Costs | None] = lambda: None
    queue: Callable[[], Queue] = Queue
    quiet: Callable[[], datetime | None] = lambda: None
    plans: Callable[[], None] = lambda: None
    tokens: Callable[[], Mapping[str, datetime]] = dict
    audits: Callable[[], Sequence[LastAudit]] = tuple
    clock: Callable[[], datetime] = utc
    up: Callable[[], float] = field(default_factory=stopwatch)

    def report(self, wanted: Collection[str] = ()) -> Report:
        """How everything stands, or only these accounts."""
        self.plans()
        now = self.clock()
        objectives = {name: each for name, each in self.objectives().items() if not wanted or name in wanted}
        live = {each.account: each for each in self.board().accounts()}
        kept = standing.kept(self.state)
        accounts = [
            account_report(name, kept.get(name), live.get(name) or Live(name), objective, now)
            for name, objective in objectives.items()
        ]
        return Report(
            level=worst(account.level for account in accounts),
            accounts=accounts,
            repository=self.stored(),
            daemon=DaemonReport(
                pid=os.getpid(),
                version=__version__,
                since=now - timedelta(seconds=self.up()),
                time=now,
                not_ready=self.not_ready(),
                alive=self.alive(),
                quiet_until=self.quiet(),
                jobs=self.board().jobs(),
            ),
        )


def account_report(
    name: str, known: Standing | None, live: Live, objective: timedelta | None, now: datetime
) -> AccountReport:
    """How an account stands, by what the state keeps of it and what the daemon does about it."""
    known = known or Standing("")
    # The board hears of the daemon's own runs, the state of everybody's: the later one counts.
    proved = _later(known.proved, live.last_good, now)
    whole = _later(known.whole, live.last_complete, now)
    known = msgspec.structs.replace(known, proved=proved, whole=whole)
    live = msgspec.structs.replace(live, last_good=_time(proved), last_complete=_time(whole))
    found = account_status(name, known, objective, now)
    level, reasons = found.level, found.reasons
    if live.failures:
        # What the daemon says of its failures is more than the last run's error.
        reasons = [each for each in reasons if not each.startswith(FAILED)] + [live.error]
        level = worst([level, Level.WARNING])
    values = {field: getattr(found, field) for field in AccountStatus.__struct_fields__}
    return AccountReport(**{**values, "level": level, "reasons": reasons}, live=live, doing=_doing(live, now))


def _doing(live: Live, now: datetime) -> Literal["", "running", "waiting", "held"]:
    if live.running_since is not None:
        return "running"
    if live.held_until is not None and live.held_until > now:
        return "held"
    if live.next_run is not None and live.next_run <= now:
        return "waiting"
    return ""


def _later(rfc3339: str | None, other: datetime | None, now: datetime) -> str | None:
    """The later of both times; one that is yet to come, by a clock that was wrong, is none beside one that is not."""
    known = _time(rfc3339)
    if other is None:
        return rfc3339
    if known is None:
        return other.isoformat()
    latest = max(known, other, key=lambda time: (age_of(time, now) is not None, time))
    return rfc3339 if latest == known else latest.isoformat()


def _time(rfc3339: str | None) -> datetime | None:
    return datetime.fromisoformat(rfc3339) if rfc3339 else None


def without_daemon(found: Status) -> Report:
    """The same where no daemon runs."""
    accounts = [
        AccountReport(**{field: getattr(each, field) for field in AccountStatus.__struct_fields__})
        for each in found.accounts
    ]
    return Report(found.level, accounts, found.repository, None)
