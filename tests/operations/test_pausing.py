"""A pause that a server wants is kept over runs and restarts, whatever the clock does."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Interrupted, Throttled
from backupd.operations.backup import backup
from backupd.operations.pausing import LONGEST, left, pause_of
from backupd.operations.state import Pause, State
from backupd.repository.repository import Repository
from backupd.turns import TURN
from tests.operations.conftest import Backup
from tests.support.mail import message
from tests.support.simulated_account import SimulatedAccount

NOW = datetime(2026, 5, 5, 12, 0, tzinfo=UTC)
SECONDS = st.floats(0.001, 10**7)


class Clock:
    """The clock on the wall."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


@given(SECONDS, st.integers(0, 50))
def test_what_the_server_says_is_what_counts(seconds: float, times: int) -> None:
    pause = pause_of(Throttled("slower", pause=seconds), Pause(NOW, NOW, "before", times), NOW)
    assert pause.until - NOW == min(timedelta(seconds=seconds), LONGEST)
    assert pause.times == times


@given(st.floats(1, 86_400), st.integers(0, 50))
def test_guesses_grow_up_to_a_day(seconds: float, times: int) -> None:
    error = Throttled("slower", pause=seconds, guessed=True)
    pause, after = (pause_of(error, Pause(NOW, NOW, "before", count), NOW) for count in (times, times + 1))
    assert timedelta(seconds=seconds) <= pause.until - NOW <= after.until - NOW <= timedelta(days=1)
    assert pause.times == times + 1


@given(st.timedeltas(timedelta(), LONGEST), st.timedeltas(-timedelta(days=4000), timedelta(days=4000)))
def test_no_clock_makes_a_pause_longer(asked: timedelta, passed: timedelta) -> None:
    rest = left(Pause(NOW, NOW + asked, "slower"), NOW + passed)
    assert timedelta() <= rest <= asked + timedelta(minutes=5)
    if passed >= timedelta():
        assert rest == max(timedelta(), asked - passed)


# -- runs --------------------------------------------------------------------------------------------------------------


def throttled_at(account: SimulatedAccount, uid: int, error: Throttled) -> None:
    def wait(name: bytes, number: int) -> None:
        if number == uid:
            raise error

    account.on_message = wait


def test_a_throttled_run_keeps_what_it_has_and_the_next_goes_on(
    take: Backup, account: SimulatedAccount, state: State
) -> None:
    account.connections = 1
    account.append(b"INBOX", *(message(f"number {number}") for number in range(1, 41)))
    clock = Clock()
    throttled_at(account, 31, Throttled("the server is throttling", pause=1000, guessed=False))
    with pytest.raises(Throttled, match="the server is throttling") as ended:
        take(clock=clock)
    assert "2026-05-05 12:16 UTC" in ended.value.remedy
    assert state.runs("alice")[0].outcome == "throttled"

    account.on_message = lambda name, uid: None
    opened, before = account.opened, len(account.fetched)
    clock.time += timedelta(seconds=400)
    with pytest.raises(Throttled, match="left alone until 2026-05-05 12:16 UTC") as left_alone:
        take(clock=clock)
    assert left_alone.value.pause == 600
    assert account.opened == opened  # the server was not asked
    assert len(state.runs("alice")) == 1

    clock.time += timedelta(seconds=600)
    report = take(clock=clock)
    assert report.messages == 40
    assert [uid for _, uid in account.fetched[before:]] == list(range(31, 41))
    assert state.not_before("alice") is None


def test_at_once_goes_on_all_the_same(take: Backup, account: SimulatedAccount, state: State) -> None:
    account.append(b"INBOX", message("one"))
    state.leave_alone("alice", Pause(NOW, NOW + timedelta(hours=3), "slower"))
    with pytest.raises(Throttled, match="slower") as refused:
        take(clock=Clock())
    assert "--now" in refused.value.remedy
    assert take(clock=Clock(), at_once=True).messages == 1


def test_a_server_that_goes_on_refusing_is_asked_ever_more_seldom(
    take: Backup, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", message("one"))
    throttled_at(account, 1, Throttled("no more today", pause=3600, guessed=True))
    clock, pauses = Clock(), []
    for _ in range(7):
        with pytest.raises(Throttled) as ended:
            take(clock=clock)
        pauses.append(ended.value.pause / 3600)
        clock.time += timedelta(seconds=ended.value.pause)
        throttled_at(account, 1, Throttled("no more today", pause=3600, guessed=True))
    assert pauses == [1, 2, 4, 8, 16, 24, 24]


def test_a_short_pause_is_waited_out_and_ends_with_the_run(
    repository: Repository, state: State, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", message("one"))
    throttled_at(account, 1, Throttled("slower", pause=60))
    stop = Event()
    Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        backup(repository, account, "alice", state=state, stop=stop)


def test_a_short_pause_is_no_end(take: Backup, account: SimulatedAccount) -> None:
    account.append(b"INBOX", message("one"), message("two"))
    refusals = iter([Throttled("slower", pause=0.05), Throttled("slower", pause=0.05)])

    def wait(name: bytes, uid: int) -> None:
        if uid == 2 and (error := next(refusals, None)):
            raise error

    account.on_message = wait
    assert take().messages == 2


def test_pauses_outlive_the_process(tmp_path: Path) -> None:
    pause = Pause(NOW, NOW + timedelta(hours=1), "slower", 3)
    first = State(tmp_path)
    first.leave_alone("alice", Pause(NOW, NOW, "an earlier one"))
    first.leave_alone("alice", pause)
    first.close()
    second = State(tmp_path)
    assert second.not_before("alice") == pause
    assert second.not_before("bob") is None
    second.may_go_on("alice")
    assert second.not_before("alice") is None
    second.close()


def test_every_run_that_is_cut_short_brings_the_account_further(
    take: Backup, account: SimulatedAccount, state: State
) -> None:
    """Several sessions read ahead of each other, and leave gaps that are filled, again not wholly, by the next run."""
    account.connections = 4
    account.append(b"INBOX", *(message(f"number {number}") for number in range(1, 601)))
    clock, counted, runs = Clock(), [0], 0

    def wait(name: bytes, uid: int) -> None:
        with TURN.given_up():  # as whoever waits for a network does
            time.sleep(0.0005)
        counted[0] += 1
        if counted[0] > 60:
            raise Throttled("slower", pause=1000)

    account.on_message = wait
    report = None
    while report is None:
        counted[0], runs = 0, runs + 1
        clock.time += timedelta(hours=1)
        try:
            report = take(clock=clock)
        except Throttled:
            assert runs < 30
    assert (report.messages, report.complete) == (600, True)
    assert sorted(uid for _, uid in account.fetched) == list(range(1, 601))  # each of them once
