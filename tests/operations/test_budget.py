"""How much of a day's budget is left: never too much is allowed in any 24 hours, and never nothing for ever."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backupd.operations.budget import DAY, HOUR, WORTH_IT, goes_on, hour_of, used

START = datetime(2026, 3, 1, 7, 20, tzinfo=UTC)
LIMIT = 1000
MESSAGES = st.integers(1, 300)


class Account(RuleBasedStateMachine):
    """An account that is backed up at times of anybody's choosing, as far as its limit goes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.by_hour: Counter[datetime] = Counter()
        self.came: list[tuple[datetime, int]] = []
        self.largest = 0

    @rule(minutes=st.integers(1, 60 * 30))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(messages=st.lists(MESSAGES, max_size=20))
    def back_up(self, messages: list[int]) -> None:
        if goes_on(self.by_hour, self.now, LIMIT) > self.now:
            return
        for octets in messages:
            if used(self.by_hour, self.now) >= LIMIT:
                return
            self.by_hour[hour_of(self.now)] += octets
            self.came.append((self.now, octets))
            self.largest = max(self.largest, octets)

    @rule()
    def wait_until_it_goes_on(self) -> None:
        self.now = max(self.now, goes_on(self.by_hour, self.now, LIMIT))
        assert used(self.by_hour, self.now) <= LIMIT * (1 - WORTH_IT)

    @invariant()
    def no_day_brings_more_than_the_limit_and_a_message(self) -> None:
        for end, _ in self.came:
            day = sum(octets for time, octets in self.came if end - DAY < time <= end)
            assert day < LIMIT + self.largest or day <= self.largest

    @invariant()
    def it_always_goes_on_within_a_day_or_so(self) -> None:
        assert self.now <= goes_on(self.by_hour, self.now, LIMIT) <= self.now + DAY + HOUR


Account.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestAccount = Account.TestCase

HOURS = st.integers(-200, 200).map(lambda number: hour_of(START) + number * HOUR)


@given(st.dictionaries(HOURS, st.integers(1, 5000)))
def test_what_a_clock_wrote_that_was_wrong_does_not_count(by_hour: dict[datetime, int]) -> None:
    near = {hour: octets for hour, octets in by_hour.items() if abs(hour - START) <= DAY + HOUR}
    assert used(by_hour, START) == used(near, START) <= sum(near.values())


@given(st.dictionaries(HOURS, st.integers(1, 5000)), st.integers(1, 10_000))
def test_it_goes_on_no_sooner_than_there_is_room(by_hour: dict[datetime, int], limit: int) -> None:
    begins = goes_on(by_hour, START, limit)
    assert begins >= START
    enough = limit * (1 - WORTH_IT)
    moment = START
    while moment < begins:  # at no hour before
        assert used(by_hour, moment) > enough
        moment += HOUR


def test_the_day_does_not_end_at_midnight() -> None:
    evening = datetime(2026, 3, 1, 23, 10, tzinfo=UTC)
    by_hour = {hour_of(evening): LIMIT}
    assert used(by_hour, evening + timedelta(minutes=55)) == LIMIT
    assert goes_on(by_hour, evening, LIMIT) == datetime(2026, 3, 3, 0, 0, tzinfo=UTC)
