"""The weekly summary: once a week on Monday morning, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.operations.costs import Costs
from backupd.operations.notices.weekly import Week, due, gather, summary
from backupd.operations.state import Run, State
from backupd.operations.status import AccountStatus, Level, Status, worst
from backupd.repository.repository import Repository
from tests.operations.conftest import Backup
from tests.support.simulated_account import SimulatedAccount

MONDAY = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def account(name: str, level: Level = Level.OK, *reasons: str, age: float = 600.0) -> AccountStatus:
    return AccountStatus(
        account=name, level=level, reasons=list(reasons), snapshot=None, time=None, complete=True, messages=1000,
        octets=50_000_000, proved=None, age=age, objective=3600.0, problems=0, losses=[], last_run=None,
    )  # fmt: skip


def week(*accounts: AccountStatus, runs: tuple[str, ...] = ()) -> Week:
    status = Status(worst(each.level for each in accounts), list(accounts), Costs("/srv/mail", 12, 34_000_000, None))
    made = [Run("alice", "2026-11-20T00:00:00Z", "2026-11-20T00:00:01Z", outcome) for outcome in runs]  # type: ignore[arg-type]
    return Week(MONDAY - timedelta(days=7), MONDAY, status, made, {"audit storage": "all 12 objects are sound"})


def test_a_good_week() -> None:
    text = summary(
        week(account("alice"), account("bob", age=7300.0), runs=("stored", "unchanged", "failed")), "box", UTC
    )
    assert (text.subject, text.severity) == ("a good week: 2 accounts backed up", "success")
    assert (
        text.body
        == """\
2 accounts well, 0 not.

Runs: 2 backups went well, 1 of them with news; 1 failed.
Oldest last backup: bob, 2 h 1 min ago.
Mail: 2,000 messages, 100 MB; the repository takes 34.0 MB.
audit storage: all 12 objects are sound

backupd on box, week to 2026-11-23 08:00"""
    )


def test_a_bad_one_names_the_worst_first() -> None:
    bad = [account(f"w{number:02}", Level.WARNING, "the last run failed: no route") for number in range(20)]
    text = summary(week(account("fine"), *bad, account("z", Level.CRITICAL, "older than its objective")), "box", UTC)
    assert (text.subject, text.severity) == ("21 of 22 accounts need attention", "failure")
    assert text.body.splitlines()[1] == "- z: older than its objective"
    assert "- and 9 more: backupd status" in text.body
    assert len(text.body) < 1000


def test_it_is_due_when_a_monday_morning_has_come_since_the_last() -> None:
    assert not due(MONDAY, MONDAY + timedelta(days=6, hours=23), UTC)
    assert due(MONDAY - timedelta(seconds=1), MONDAY, UTC)
    assert due(MONDAY, MONDAY + timedelta(days=7), UTC)
    assert due(MONDAY, MONDAY + timedelta(days=40), UTC), "also late, when the machine was off"
    assert not due(MONDAY - timedelta(minutes=59), MONDAY, BERLIN), "eight in Berlin was an hour ago"


def test_it_is_gathered_from_what_is_stored(
    take: Backup, account: SimulatedAccount, repository: Repository, state: State
) -> None:
    account.append(b"INBOX", b"Subject: one\r\n\r\nbody\r\n")
    now = datetime.now(UTC)
    state.record(Run("alice", (now - timedelta(days=9)).isoformat(), now.isoformat(), "failed"))
    report = take()
    found = gather(repository, state, {"alice": None, "bob": None}, now - timedelta(days=7), now + timedelta(minutes=1))
    assert [run.outcome for run in found.runs] == ["stored"]
    assert [each.account for each in found.status.accounts] == ["alice", "bob"]
    assert report.snapshot
    text = summary(found, "box", UTC)
    assert text.subject == "1 of 2 accounts need attention"
    assert "- bob: never backed up" in text.body


@settings(max_examples=25)
@given(start=st.integers(0, 10**7), step=st.integers(600, 6 * 3600), zone=st.sampled_from([UTC, BERLIN]))
def test_whenever_one_looks_there_is_one_a_week(start: int, step: int, zone: ZoneInfo) -> None:
    now = last = MONDAY + timedelta(seconds=start)
    sent = []
    for _ in range(28 * 86400 // step):
        now += timedelta(seconds=step)
        if due(last, now, zone):
            sent.append(now)
            last = now
    assert 3 <= len(sent) <= 5
    assert {each.astimezone(zone).weekday() for each in sent} == {0}
