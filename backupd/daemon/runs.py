"""One backup of one account, as the daemon does it: what came of it, and when it is done again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from backupd.daemon import retrying
from backupd.daemon.board import Board
from backupd.daemon.timetable import CONTINUOUS
from backupd.errors import BackupdError, Interrupted
from backupd.operations.accounts import Accounts
from backupd.operations.backup import BackupReport

if TYPE_CHECKING:
    from backupd.config import Config

FEWEST_SECONDS = 1.0
"""Between two runs of an account that is backed up continuously: a mailing list's burst is one run, not twenty."""
_SHARE_OF_TIME = 2.0
"""And so many times as long as the last one took: no account keeps a core busy."""

log = structlog.get_logger("backupd.runs")


class Asked(Protocol):
    """What the desk offers (backupd/daemon/desk.py)."""

    def request(self, name: str, *, delay: float = 0.0, by_hand: bool = False) -> bool: ...
    def hold(self, name: str, seconds: float) -> None: ...
    def release(self, name: str) -> None: ...
    def space(self, name: str, seconds: float) -> None: ...


class Told(Protocol):
    """Who is told what came of an account."""

    def started(self, account: str) -> None: ...
    def succeeded(self, account: str, report: BackupReport) -> None: ...
    def failed(self, account: str, error: Exception, cause: retrying.Cause, failures: int) -> None: ...


class Runs:
    """Backs accounts up. Safe to use from several threads, one for an account at a time.

    Args:
        config: gives the configuration that holds now.
        desk: is asked for the next run after a failure.
        told: hears of each beginning and end.
        stop: when set, runs end in order, with a checkpoint.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        accounts: Accounts,
        board: Board,
        desk: Asked,
        told: Told,
        stop: threading.Event,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config, self._accounts, self._board, self._desk = config, accounts, board, desk
        self._told, self._stop, self._clock, self._chance = told, stop, clock, chance

    def run(self, account: str, connections: int) -> None:
        """Back the account up now; never raises."""
        began, started = time.monotonic(), self._clock()
        self._board.update(account, running_since=started, planned=0, messages=0, octets=0, next_run=None)
        log.debug("backup begins", account=account, connections=connections)
        self._told.started(account)
        try:
            report = self._accounts.back_up(
                self._config(), account, connections=connections, observer=self._board.observe, stop=self._stop
            )
        except Interrupted:
            self._board.update(account, running_since=None)
            log.info("backup stopped", account=account, seconds=round(time.monotonic() - began, 3))
        except BackupdError as error:
            self._failed(account, error, time.monotonic() - began)
        except Exception as error:  # even a bug in one account's run must not cost the others theirs
            log.exception("backup failed of an error in backupd itself", account=account)
            self._failed(account, error, time.monotonic() - began)
        else:
            self._succeeded(account, report, started, time.monotonic() - began)

    def _succeeded(self, account: str, report: BackupReport, started: datetime, seconds: float) -> None:
        known = self._board.update(account, running_since=None)
        if known is not None:
            self._board.update(
                account,
                failures=0, failing_since=None, cause="", error="", held_until=None, held_for="",
                last_run=started, last_good=started,
                last_complete=started if report.complete else known.last_complete,
                seconds=seconds, problems=len(report.problems),
                runs=known.runs + 1, new_messages=known.new_messages + report.new,
                downloaded=known.downloaded + report.downloaded, stored=known.stored + report.stored,
            )  # fmt: skip
        self._desk.release(account)  # what it was held for is over, as a run by hand has shown
        if known and known.schedule == CONTINUOUS:
            self._desk.space(account, max(FEWEST_SECONDS, _SHARE_OF_TIME * seconds))
        if report.snapshot is None:
            log.debug("nothing has changed", account=account, messages=report.messages, seconds=round(seconds, 3))
        else:
            changes = {
                "new": report.new, "moved": report.recognised, "gone": report.vanished, "changed": report.changed,
                "octets": report.downloaded, "problems": len(report.problems),
            }  # fmt: skip
            log.info(
                "backed up", account=account, snapshot=report.snapshot, messages=report.messages,
                **{name: count for name, count in changes.items() if count}, seconds=round(seconds, 3),
            )  # fmt: skip
        for problem in report.problems[:20]:
            log.warning("not backed up", account=account, mailbox=problem.mailbox, uid=problem.uid, why=problem.what)
        for loss in report.losses:
            log.error(
                "sudden loss", account=account, mailbox=loss.name,
                gone=loss.gone, before=loss.before, pinned=loss.pinned,
            )  # fmt: skip
        self._told.succeeded(account, report)

    def _failed(self, account: str, error: Exception, seconds: float) -> None:
        now = self._clock()
        known = self._board.update(account, running_since=None)
        # To wait for a server or for another run is no failure: if it takes too long, the objective is missed.
        passing = retrying.cause_of(error) in retrying.WAITING
        failures = (known.failures if known else 0) + (not passing)
        pause = retrying.plan(error, failures, self._chance)
        until = now + timedelta(seconds=pause.seconds)
        text = str(error) if isinstance(error, BackupdError) else f"an error in backupd itself: {type(error).__name__}"
        if known is not None:
            throttled = pause.seconds if pause.cause is retrying.Cause.THROTTLED else 0.0
            self._board.update(
                account,
                failures=failures, failing_since=known.failing_since or (now if failures else None),
                cause=pause.cause.value, error=text,
                last_run=now, seconds=seconds, failed_runs=known.failed_runs + (not passing), next_run=until,
                held_until=until, held_for=pause.cause.value,
                throttled_seconds=known.throttled_seconds + throttled,
            )  # fmt: skip
        self._desk.hold(account, pause.seconds)
        self._desk.request(account, delay=pause.seconds)
        again = until.isoformat(timespec="seconds")
        if passing:
            log.warning("backup has to wait", account=account, why=text, cause=pause.cause.value, again=again)
            return
        log.error(
            "backup failed", account=account, why=text, cause=pause.cause.value, failures=failures, again=again,
            seconds=round(seconds, 3),
        )  # fmt: skip
        self._told.failed(account, error, pause.cause, failures)
