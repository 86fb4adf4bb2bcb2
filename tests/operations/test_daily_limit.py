"""A daily limit ends a run in order; the next day it goes on, until all mail is there. Counts outlive the process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from backupd.errors import Throttled
from backupd.operations.backup import BackupReport, backup, pull
from backupd.operations.daily_limit import SAVE_OCTETS, LimitedPop3Source, LimitedSource, Meter
from backupd.operations.state import State
from backupd.repository.repository import Repository
from backupd.sources.imap import ImapSource
from backupd.sources.pop3.source import Pop3Source
from backupd.wire.imap_settings import ImapSettings
from backupd.wire.pop3_settings import Pop3Settings
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import large_message, message
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount

NOON = datetime(2026, 5, 5, 12, 0, tzinfo=UTC)
MB = 10**6


@pytest.fixture
def dovecot_account(dovecot: Dovecot) -> Account:
    """On a real server; `account` is one in memory here."""
    return dovecot.account()


class Clock:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


Run = Callable[[Meter], BackupReport]


def day_after_day(run: Run, state: State, clock: Clock, limit: int) -> tuple[BackupReport, list[int]]:
    """Run whenever it goes on, until a run is complete; its report, and what each run downloaded."""
    downloads: list[int] = []
    ended: Throttled | None = None
    for _ in range(20):
        if ended:
            assert "daily limit of 5 MB is used up" in ended.what
            assert 3600 <= ended.pause <= 25 * 3600
            clock.time += timedelta(seconds=ended.pause)
        meter = Meter(state, "alice", limit=limit, flow=None, clock=clock)
        before, report = sum(state.downloads("alice").values()), None
        try:
            report = run(meter)
        except Throttled as error:
            ended = error
        meter.save()
        downloads.append(sum(state.downloads("alice").values()) - before)
        if report:
            return report, downloads
    raise AssertionError("it never ends")


@pytest.mark.parametrize("connections", [1, 4])
def test_a_mailbox_larger_than_a_day_comes_day_after_day(
    repository: Repository, state: State, dovecot_account: Account, clock: Clock, connections: int
) -> None:
    account = dovecot_account
    mail = [message(f"number {number}", size=40_000) for number in range(300)]
    mail[100] = large_message(7 * MB)  # more than a day allows, by itself
    account.create("Archive")
    account.append_many("INBOX", mail[:150])
    account.append_many("Archive", mail[150:])

    def run(meter: Meter) -> BackupReport:
        settings = ImapSettings(
            account.host, account.username, account.password, port=account.port, tls="none", flow=meter
        )
        source = LimitedSource(ImapSource(settings, connections), meter)
        return backup(repository, source, "alice", state=state, clock=clock)

    report, downloads = day_after_day(run, state, clock, 5 * MB)
    assert report.complete
    assert report.messages == 300
    found = contents(repository, newest(repository))
    assert sorted(raw for box in found.values() for raw, _, _ in box.values()) == sorted(mail)
    assert len(downloads) >= 3
    # What was under way when the limit was reached came in vain, and little else.
    assert sum(downloads) < sum(map(len, mail)) + 2 * MB * connections * len(downloads)
    outcomes = [each.outcome for each in state.runs("alice")]
    assert outcomes == ["stored"] + ["throttled"] * (len(downloads) - 1)


def test_a_pop3_mailbox_comes_day_after_day_as_well(
    repository: Repository, state: State, dovecot_account: Account, clock: Clock
) -> None:
    mail = [message(f"number {number}", size=40_000) for number in range(300)]
    dovecot_account.append_many("INBOX", mail)

    def run(meter: Meter) -> BackupReport:
        settings = Pop3Settings(
            dovecot_account.host, dovecot_account.username, dovecot_account.password,
            port=dovecot_account.server.ports.pop3, tls="none", flow=meter,
        )  # fmt: skip
        return pull(repository, LimitedPop3Source(Pop3Source(settings), meter), "alice", state=state, clock=clock)

    report, downloads = day_after_day(run, state, clock, 5 * MB)
    assert (report.complete, report.messages) == (True, 300)
    assert len(downloads) == 3
    assert max(downloads) < 7 * MB


# -- in memory ---------------------------------------------------------------------------------------------------------


def metered(simulated: SimulatedAccount, meter: Meter) -> LimitedSource:
    """The account, whose messages count when they are read."""
    simulated.on_message = lambda name, uid: meter.received(len(simulated.boxes[name].messages[uid].raw))
    return LimitedSource(simulated, meter)


def simulated_run(repository: Repository, state: State, clock: Clock, simulated: SimulatedAccount) -> Run:
    return lambda meter: backup(repository, metered(simulated, meter), "alice", state=state, clock=clock)


def test_a_message_larger_than_a_day_is_one_days_work(repository: Repository, state: State, clock: Clock) -> None:
    simulated = SimulatedAccount()
    simulated.append(b"INBOX", message("small"), large_message(6 * MB), message("small again"))
    report, downloads = day_after_day(simulated_run(repository, state, clock, simulated), state, clock, 5 * MB)
    assert (report.messages, len(downloads)) == (3, 2)
    assert sorted(uid for _, uid in simulated.fetched) == [1, 2, 3]  # each of them once


def test_the_last_message_may_use_up_the_limit(repository: Repository, state: State, clock: Clock) -> None:
    simulated = SimulatedAccount()
    simulated.append(b"INBOX", message("small"), large_message(6 * MB))
    report, downloads = day_after_day(simulated_run(repository, state, clock, simulated), state, clock, 5 * MB)
    assert (report.messages, len(downloads)) == (2, 1)


def test_finding_out_what_is_new_may_use_up_the_limit_and_something_comes(
    repository: Repository, state: State, clock: Clock
) -> None:
    simulated = SimulatedAccount(connections=1)
    simulated.append(b"INBOX", *(message(f"number {number}") for number in range(3)))

    def run(meter: Meter) -> BackupReport:
        source = metered(simulated, meter)
        simulated.before_fetch = functools.partial(meter.received, 6 * MB)
        return backup(repository, source, "alice", state=state, clock=clock)

    report, downloads = day_after_day(run, state, clock, 5 * MB)
    assert (report.messages, len(downloads)) == (3, 3)


def test_what_other_runs_downloaded_counts_and_without_a_limit_nothing_does(
    repository: Repository, state: State, clock: Clock
) -> None:
    simulated = SimulatedAccount()
    simulated.append(b"INBOX", message("one"))
    state.downloaded("alice", NOON.replace(hour=3), 5 * MB)
    state.downloaded("bob", NOON, 99 * MB)
    run = simulated_run(repository, state, clock, simulated)
    with pytest.raises(Throttled, match="daily limit of 5 MB is used up: 5 MB in the last 24 hours") as refused:
        run(Meter(state, "alice", limit=5 * MB, flow=None, clock=clock))
    assert refused.value.pause == 16 * 3600  # until 4 o'clock, when what came between 3 and 4 is a day ago
    assert simulated.opened == 0
    state.may_go_on("alice")
    assert run(Meter(state, "alice", limit=None, flow=None, clock=clock)).messages == 1


def test_a_killed_process_forgets_little(state: State, clock: Clock) -> None:
    meter = Meter(state, "alice", limit=None, flow=None, clock=clock)
    for _ in range(100):
        meter.received(SAVE_OCTETS // 10 + 1)  # and nobody calls save
    counted = 100 * (SAVE_OCTETS // 10 + 1)
    assert counted - SAVE_OCTETS < sum(state.downloads("alice").values()) <= counted
    meter.save()
    meter.save()
    assert sum(state.downloads("alice").values()) == counted


def test_downloads_are_kept_by_hour_and_shown_by_day(state: State) -> None:
    for hours in (0, 1, 30, 24 * 40):
        state.downloaded("alice", NOON + timedelta(hours=hours), 100)
    state.downloaded("alice", NOON + timedelta(days=40), 11)
    assert state.downloads("alice") == {NOON + timedelta(days=40): 111}  # the others are a month old
    state.downloaded("bob", NOON, 1)
    state.downloaded("bob", NOON + timedelta(hours=11), 2)
    state.downloaded("bob", NOON + timedelta(hours=12), 4)
    assert state.downloads_by_day("bob") == {NOON.date(): 3, NOON.date() + timedelta(days=1): 4}
