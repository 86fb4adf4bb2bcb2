"""What came of a backup, and when the account is backed up next."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from backupd import errors
from backupd.config.model import Config
from backupd.daemon.board import Board, Live
from backupd.daemon.retrying import Cause
from backupd.daemon.runs import Runs
from backupd.operations.accounts import Accounts
from backupd.operations.backup import BackupReport

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Desk:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.held: list[tuple[str, float]] = []
        self.spaced: list[tuple[str, float]] = []
        self.released: list[str] = []

    def request(self, name: str, *, delay: float = 0.0, by_hand: bool = False) -> bool:
        self.asked.append((name, delay))
        return True

    def hold(self, name: str, seconds: float) -> None:
        self.held.append((name, seconds))

    def release(self, name: str) -> None:
        self.released.append(name)

    def space(self, name: str, seconds: float) -> None:
        self.spaced.append((name, seconds))


class Told:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def started(self, account: str) -> None:
        self.heard.append(("started", account))

    def succeeded(self, account: str, report: BackupReport) -> None:
        self.heard.append(("succeeded", account))

    def failed(self, account: str, error: Exception, cause: Cause, failures: int) -> None:
        self.heard.append(("failed", account, cause.value, str(failures)))


class Backups:
    """Accounts whose backups come to what is put here."""

    def __init__(self) -> None:
        self.outcomes: list[BackupReport | Exception] = []

    def back_up(self, config: object, account: str, **options: object) -> BackupReport:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Scene:
    def __init__(self, schedule: str = "every 15 minutes") -> None:
        self.desk, self.told, self.backups, self.board = Desk(), Told(), Backups(), Board()
        self.board.set_accounts({"alice": schedule})
        self.runs = Runs(
            lambda: cast("Config", None), cast("Accounts", self.backups), self.board, self.desk, self.told,
            threading.Event(), clock=lambda: NOW, chance=lambda: 0.5,
        )  # fmt: skip

    def run(self, outcome: BackupReport | Exception) -> Live:
        self.backups.outcomes.append(outcome)
        self.runs.run("alice", 2)
        return self.board.account("alice")


def report(**changes: object) -> BackupReport:
    whole: dict[str, object] = {
        "account": "alice", "snapshot": "20260601T120000000Z-00000000", "parent": None, "started": "", "ended": "",
        "complete": True, "mailboxes": 1, "messages": 5, "octets": 500, "new": 2, "downloaded": 200, "recognised": 0,
        "vanished": 0, "changed": 0, "stored": 300, "problems": [], "losses": [], "notes": [],
    }  # fmt: skip
    return BackupReport(**{**whole, **changes})  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_run_that_went_well_is_on_the_board_and_told(scene: Scene) -> None:
    live = scene.run(report())
    assert (live.last_good, live.last_complete, live.failures, live.new_messages) == (NOW, NOW, 0, 2)
    assert scene.told.heard == [("started", "alice"), ("succeeded", "alice")]
    assert scene.desk.asked == scene.desk.held == []


def test_a_failure_is_tried_again_and_the_schedule_waits_as_long(scene: Scene) -> None:
    for failures, seconds in ((1, 30), (2, 60), (3, 120)):
        live = scene.run(errors.ConnectionLost("cut", subject="mail.example.com"))
        assert (live.failures, live.cause, live.error) == (failures, "network", "mail.example.com: cut")
        assert live.held_until == NOW + timedelta(seconds=seconds)
        assert scene.desk.asked[-1] == scene.desk.held[-1] == ("alice", seconds)
    assert scene.told.heard[-1] == ("failed", "alice", "network", "3")
    assert scene.desk.released == []
    live = scene.run(report())  # by hand, before the hold is over
    assert (live.failures, live.error, live.held_until, live.failing_since) == (0, "", None, None)
    assert scene.desk.released == ["alice"]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(errors.Throttled("too much", pause=5000.0), 5000.0), (errors.Busy("a backup by hand is under way"), 60.0)],
)
def test_to_wait_is_no_failure(scene: Scene, error: Exception, seconds: float) -> None:
    live = scene.run(error)
    assert (live.failures, live.failed_runs, live.held_until) == (0, 0, NOW + timedelta(seconds=seconds))
    assert scene.desk.held == [("alice", seconds)]
    assert scene.told.heard == [("started", "alice")]


def test_a_bug_is_told_and_ends_nothing(scene: Scene) -> None:
    live = scene.run(ZeroDivisionError("secret"))
    assert live.cause == "bug"
    assert "secret" not in live.error
    assert scene.told.heard[-1] == ("failed", "alice", "bug", "1")


def test_a_run_that_was_stopped_is_neither(scene: Scene) -> None:
    live = scene.run(errors.Interrupted("stopped"))
    assert (live.failures, live.last_good, live.running_since) == (0, None, None)
    assert scene.told.heard == [("started", "alice")]


def test_what_was_left_out_is_no_complete_backup(scene: Scene) -> None:
    live = scene.run(report(complete=False))
    assert (live.last_good, live.last_complete) == (NOW, None)


def test_one_account_that_is_backed_up_continuously_leaves_the_others_time() -> None:
    scene = Scene("continuous")
    scene.run(report())
    assert scene.desk.spaced == [("alice", 1.0)]
