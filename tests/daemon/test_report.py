"""How everything stands, by what is kept and what the daemon does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from backupd.daemon.report import AccountReport, Facts, LastAudit, Report, last_audits, stopwatch
from backupd.operations import audit_history
from backupd.operations.audit_state import Audit, AuditOutcome, Scope
from backupd.operations.status import Level
from tests.support.daemon_facts import HOUR, MINUTE, NOW, facts


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Facts]:
    made = facts(tmp_path / "state")
    yield made
    made.state.close()


def of(made: Facts, name: str) -> AccountReport:
    return made.report([name]).accounts[0]


def test_it_survives_the_wire(everything: Facts) -> None:
    report = everything.report()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_what_is_wrong_with_an_account_is_its_last_error_and_what_to_do(everything: Facts) -> None:
    found = of(everything, "failing")
    assert found.level is Level.CRITICAL
    assert found.reasons == [
        "older than its objective",
        "2 problems in the newest snapshot",
        "mail.example.com:993: the server refused the login of failing (check username and password)",
    ]


def test_a_failure_that_the_daemon_has_got_over_is_forgotten(everything: Facts) -> None:
    assert of(everything, "fine").reasons == []
    everything.board().update("fine", failures=1, error="cut off (try again)")
    assert (of(everything, "fine").level, of(everything, "fine").reasons) == (Level.WARNING, ["cut off (try again)"])


def test_the_worst_account_is_the_level_of_all(everything: Facts) -> None:
    assert everything.report().level is Level.CRITICAL
    assert everything.report(["fine", "watched"]).level is Level.OK


def test_what_is_done_with_an_account(everything: Facts) -> None:
    doing = {account.account: account.doing for account in everything.report().accounts}
    assert {name for name, what in doing.items() if what} == {"held", "running", "waiting"}
    everything.board().update("held", held_until=NOW - MINUTE, next_run=NOW + HOUR)
    assert of(everything, "held").doing == "", "its time is over"


def test_what_was_backed_up_by_a_clock_that_was_ahead_may_be_of_any_age(everything: Facts) -> None:
    past = replace(everything, clock=lambda: NOW - 10 * HOUR)
    found = of(past, "fine")
    assert (found.level, found.age, found.is_overdue) == (Level.CRITICAL, None, True)
    assert "which is yet to come: a clock was wrong" in found.reasons[0]
    everything.board().update("fine", last_good=NOW - 10 * HOUR - MINUTE)
    assert (of(past, "fine").age, of(past, "fine").is_overdue) == (60, False), "what the daemon knows better counts"


def test_a_clock_that_is_a_little_behind_makes_no_account_younger_than_new(everything: Facts) -> None:
    behind = replace(everything, clock=lambda: NOW - 10 * MINUTE)
    assert of(behind, "fine").age == 0


def test_accounts_are_those_of_the_configuration(everything: Facts) -> None:
    one = replace(everything, objectives=lambda: {"fine": HOUR, "new": None})
    found = one.report().accounts
    assert [account.account for account in found] == ["fine", "new"]
    assert found[1].reasons == ["never backed up"]


def audit(number: int, level: str, seconds: int, outcome: AuditOutcome) -> Audit:
    """An audit that began at noon, and took so long."""
    ended = (NOW + timedelta(seconds=seconds)).isoformat()
    return Audit("repository", "", level, NOW.isoformat(), ended, outcome, scope=Scope("reader"), number=number)


def test_of_audits_the_last_of_each_level_counts() -> None:
    found = audit_history.judge(
        [audit(2, "storage", 90, "warning"), audit(1, "storage", 0, "ok"), audit(3, "metadata", 90, "unknown")]
    )
    end = NOW + timedelta(seconds=90)
    assert last_audits(found) == [LastAudit("storage", end, 1, 90), LastAudit("metadata", end, 3, 90)]
    assert last_audits([]) == []


def test_a_failure_counts_no_longer_when_a_deeper_audit_has_gone_well() -> None:
    found = audit_history.judge([audit(1, "metadata", 30, "critical"), audit(2, "storage", 90, "ok")])
    assert {each.level: (each.code, each.seconds) for each in last_audits(found)} == {
        "storage": (0, 90), "metadata": (0, 30),
    }  # fmt: skip


def test_how_long_the_daemon_runs_does_not_change_with_the_clock(everything: Facts) -> None:
    later = replace(everything, clock=lambda: NOW + timedelta(days=365), up=stopwatch())
    daemon = later.report().daemon
    assert daemon
    assert timedelta(0) <= daemon.time - daemon.since < 5 * MINUTE
