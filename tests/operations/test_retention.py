"""Which snapshots the rules keep, and why."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.operations import retention
from backupd.operations.retention import Candidate, Rules, judge

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)  # a Sunday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def candidate(time: datetime, *, complete: bool = True, checkpoint: bool = False, readable: bool = True) -> Candidate:
    name = f"{time:%Y%m%dT%H%M%S}000Z-00000000"
    return Candidate(name, time, complete and not checkpoint, checkpoint, readable)


def kept(candidates: list[Candidate], rules: Rules, now: datetime = NOON) -> dict[datetime, list[str]]:
    """By time, what keeps each snapshot that is kept."""
    times = {each.id: each.time for each in candidates}
    return {times[each.id]: each.reasons for each in judge(candidates, rules, now) if each.reasons}


def every(step: timedelta, count: int, *, until: datetime = NOON) -> list[Candidate]:
    return [candidate(until - step * number) for number in range(count)]


def test_without_rules_nothing_goes() -> None:
    some = every(HOUR, 5)
    assert list(kept(some, Rules()).values()) == [[retention.NO_RULES]] * 5
    assert len(kept(some, Rules(keep_last=0, keep_daily=0))) == 5


def test_keep_last_keeps_the_newest() -> None:
    found = kept(every(HOUR, 5), Rules(keep_last=2))
    assert found == {NOON: ["last 1", retention.NEWEST, retention.NEWEST_COMPLETE], NOON - HOUR: ["last 2"]}


def test_each_period_keeps_its_last_snapshot() -> None:
    found = kept(every(timedelta(minutes=20), 12), Rules(keep_hourly=3))
    assert {time: why[0] for time, why in found.items()} == {
        NOON: "hourly 2026-11-01 12",
        NOON - timedelta(minutes=20): "hourly 2026-11-01 11",
        NOON - timedelta(minutes=80): "hourly 2026-11-01 10",
    }


def test_only_periods_that_have_a_snapshot_count() -> None:
    pauses = [0, 1, 2, 100, 101, 400]
    some = [candidate(NOON - DAY * days) for days in pauses]
    assert [(NOON - time).days for time in kept(some, Rules(keep_daily=4))] == [100, 2, 1, 0]
    assert [(NOON - time).days for time in kept(some, Rules(keep_yearly=2))] == [400, 0]


def test_weeks_begin_on_monday_and_their_years_are_those_of_iso_8601() -> None:
    new_year = datetime(2027, 1, 1, 12, tzinfo=UTC)  # a Friday, in the last week of 2026
    some = [candidate(new_year + DAY * days) for days in (-6, -5, -4, 0, 2, 3)]
    found = kept(some, Rules(keep_weekly=9))
    assert {why[0]: (time - new_year).days for time, why in found.items()} == {
        "weekly 2026-W52": -5, "weekly 2026-W53": 2, "weekly 2027-W01": 3,
    }  # fmt: skip


def test_days_are_those_of_utc_wherever_a_time_was_taken() -> None:
    some = [candidate(NOON.replace(hour=hour) + DAY * day) for day, hour in ((0, 0), (0, 23), (1, 0))]
    assert len(kept(some, Rules(keep_daily=9))) == 2


def test_one_snapshot_may_be_kept_by_many_rules() -> None:
    found = kept(every(DAY, 3), Rules(keep_daily=1, keep_monthly=1, keep_yearly=1, keep_within=12 * HOUR))
    assert found == {
        NOON: [
            "daily 2026-11-01", "monthly 2026-11", "yearly 2026", "within 12h", retention.NEWEST,
            retention.NEWEST_COMPLETE,
        ]
    }  # fmt: skip


def test_keep_within_counts_from_the_newest_so_an_account_that_ended_keeps_what_it_has() -> None:
    old = every(DAY, 5, until=NOON - 1000 * DAY)
    assert len(kept(old, Rules(keep_within=3 * DAY))) == 3
    assert len(kept(old, Rules(keep_within=3 * DAY), now=NOON + 10_000 * DAY)) == 3


def test_a_snapshot_of_the_future_makes_keep_within_forget_nothing_of_today() -> None:
    some = [*every(DAY, 5), candidate(NOON + 4000 * DAY)]
    assert len(kept(some, Rules(keep_within=3 * DAY))) == 4


def test_an_incomplete_snapshot_does_not_stand_for_a_period_that_has_a_complete_one() -> None:
    some = [
        candidate(NOON),
        candidate(NOON - DAY, complete=False),
        candidate(NOON - DAY - HOUR),
        candidate(NOON - DAY - 2 * HOUR),
        candidate(NOON - 2 * DAY, complete=False),
        candidate(NOON - 2 * DAY - HOUR, complete=False),
    ]
    assert set(kept(some, Rules(keep_daily=3))) == {NOON, NOON - DAY - HOUR, NOON - 2 * DAY}


def test_the_newest_complete_one_and_the_newest_stay_whatever_the_rules_say() -> None:
    some = [candidate(NOON - HOUR * age, complete=age == 7) for age in range(10)]
    found = kept(some, Rules(keep_last=1))
    assert found == {NOON: ["last 1", retention.NEWEST], NOON - 7 * HOUR: [retention.NEWEST_COMPLETE]}


def test_checkpoints_stand_for_nothing_and_go_once_something_newer_is_complete() -> None:
    some = [
        candidate(NOON - 4 * HOUR, checkpoint=True),
        candidate(NOON - 3 * HOUR),
        candidate(NOON - 2 * HOUR, checkpoint=True),
        candidate(NOON - HOUR, complete=False),
        candidate(NOON, checkpoint=True),
    ]
    found = kept(some, Rules(keep_last=9, keep_hourly=9, keep_within=DAY))
    assert NOON - 4 * HOUR not in found
    assert found[NOON - 2 * HOUR] == [retention.CHECKPOINT]
    assert found[NOON] == [retention.NEWEST, retention.CHECKPOINT]
    assert len(found) == 4


def test_what_cannot_be_read_stays_and_stands_for_nothing() -> None:
    some = [candidate(NOON - HOUR), candidate(NOON, readable=False)]
    assert kept(some, Rules(keep_last=1)) == {
        NOON: [retention.UNREADABLE],
        NOON - HOUR: ["last 1", retention.NEWEST, retention.NEWEST_COMPLETE],
    }


def test_what_is_held_stays_and_says_why() -> None:
    some = every(HOUR, 3)
    found = judge(some, Rules(keep_last=1), NOON, {some[2].id: ["hold 1a2b3c4d: a lawsuit"]})
    assert [each.reasons for each in found][:2] == [["hold 1a2b3c4d: a lawsuit"], []]


# -- against another way of saying it ----------------------------------------------------------------------------------

KINDS = st.sampled_from(["complete", "incomplete", "checkpoint", "unreadable"])
SNAPSHOTS = st.lists(st.tuples(st.integers(0, 60 * 24 * 400), KINDS), max_size=40, unique_by=lambda each: each[0])
NUMBERS = st.none() | st.integers(0, 5)
RULES = st.builds(
    Rules,
    keep_last=NUMBERS, keep_hourly=NUMBERS, keep_daily=NUMBERS, keep_weekly=NUMBERS, keep_monthly=NUMBERS,
    keep_yearly=NUMBERS, keep_within=st.none() | st.integers(1, 10_000).map(lambda minutes: timedelta(minutes=minutes)),
)  # fmt: skip
PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m", "yearly": "%Y"}


def build(drawn: list[tuple[int, str]]) -> list[Candidate]:
    return [
        candidate(
            NOON - timedelta(minutes=age),
            complete=kind == "complete",
            checkpoint=kind == "checkpoint",
            readable=kind != "unreadable",
        )
        for age, kind in drawn
    ]


@given(SNAPSHOTS, RULES)
def test_each_rule_keeps_what_it_promises_and_nothing_else_stays(drawn: list[tuple[int, str]], rules: Rules) -> None:
    some = build(drawn)
    found = kept(some, rules)
    stands = [each for each in some if each.readable and not each.checkpoint]
    if rules.are_none:
        assert len(found) == len(some)
        return
    wanted = {each.time for each in sorted(stands, key=lambda one: one.time)[-(rules.keep_last or 0) or len(some) :]}
    if not rules.keep_last:
        wanted = set()
    for name, pattern in PERIODS.items():
        periods: dict[str, list[Candidate]] = defaultdict(list)
        for each in stands:
            periods[each.time.strftime(pattern)].append(each)
        newest = sorted(periods, key=lambda key: max(each.time for each in periods[key]), reverse=True)
        for key in newest[: getattr(rules, f"keep_{name}") or 0]:
            best = [each for each in periods[key] if each.complete] or periods[key]
            wanted.add(max(each.time for each in best))
    if rules.keep_within and stands:
        wanted |= {each.time for each in stands if each.time > max(one.time for one in stands) - rules.keep_within}
    complete = [each.time for each in stands if each.complete]
    wanted |= {max(complete)} if complete else set()
    wanted |= {max(each.time for each in some if each.readable)} if any(each.readable for each in some) else set()
    wanted |= {each.time for each in some if not each.readable}
    wanted |= {each.time for each in some if each.checkpoint and not any(time > each.time for time in complete)}
    assert set(found) == wanted


@given(SNAPSHOTS, RULES)
def test_forgetting_twice_forgets_nothing_more(drawn: list[tuple[int, str]], rules: Rules) -> None:
    some = build(drawn)
    once = kept(some, rules)
    left = [each for each in some if each.time in once]
    assert set(kept(left, rules)) == set(once)


@given(SNAPSHOTS, RULES, st.data())
def test_what_comes_later_brings_back_nothing_that_was_forgotten(
    drawn: list[tuple[int, str]], rules: Rules, data: st.DataObject
) -> None:
    """As time goes by, what was forgotten once would not have been wanted again."""
    some = sorted(build(drawn), key=lambda each: each.time)
    if len(some) < 2 or any(not each.complete for each in some):
        return
    before = some[: data.draw(st.integers(1, len(some) - 1))]
    early = kept(before, rules, now=before[-1].time)
    late = kept(some, rules)
    gone = {each.time for each in before} - set(early)
    assert not gone & set(late)


@pytest.mark.parametrize("span", ["1m", "90m", "36h", "7d"])
def test_a_span_is_told_as_it_was_written(span: str) -> None:
    from backupd.config.times import duration

    found = kept([candidate(NOON)], Rules(keep_within=duration(span)))
    assert found[NOON][0] == f"within {span}"
