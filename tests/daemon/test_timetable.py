"""Schedules mean what people write, and quiet hours end when they say."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.daemon.timetable import Span, interval, quiet_until, trigger

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 28, 12, 7, tzinfo=UTC)  # a Saturday


def fires(schedule: str, count: int = 4, *, now: datetime = NOW, last: datetime | None = None) -> list[str]:
    wanted = trigger(schedule, UTC, last=last, now=now)
    found: list[datetime] = []
    before: datetime | None = None
    for _ in range(count):
        before = wanted.get_next_fire_time(before, before or now)
        assert before is not None
        found.append(before)
    return [f"{each:%a %d %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("*/15 * * * *", ["Sat 28 12:15", "Sat 28 12:30", "Sat 28 12:45", "Sat 28 13:00"]),
        ("0 9 * * 1-5", ["Mon 30 09:00", "Tue 01 09:00", "Wed 02 09:00", "Thu 03 09:00"]),
        ("0 9 * * mon-fri/2", ["Mon 30 09:00", "Wed 02 09:00", "Fri 04 09:00", "Mon 07 09:00"]),
        ("0 3 * * 0", ["Sun 29 03:00", "Sun 06 03:00", "Sun 13 03:00", "Sun 20 03:00"]),
        ("0 3 * * 5-7", ["Sun 29 03:00", "Fri 04 03:00", "Sat 05 03:00", "Sun 06 03:00"]),
        ("0 3 * * sun,tue", ["Sun 29 03:00", "Tue 01 03:00", "Sun 06 03:00", "Tue 08 03:00"]),
        # A day of the month and one of the week: cron is content with either.
        ("0 9 1 * 0", ["Sun 29 09:00", "Tue 01 09:00", "Sun 06 09:00", "Sun 13 09:00"]),
        ("0 9 */10 * 1", ["Mon 21 09:00", "Mon 11 09:00", "Mon 01 09:00", "Mon 01 09:00"]),
    ],
)
def test_a_cron_line_means_what_cron_makes_of_it(line: str, times: list[str]) -> None:
    assert fires(line) == times


def test_every_fifteen_minutes_goes_on_where_the_last_run_left_it() -> None:
    wanted = trigger("every 15 minutes", UTC, last=NOW - timedelta(minutes=10), now=NOW)
    first = wanted.get_next_fire_time(None, NOW)
    assert first is not None
    assert abs(first - NOW - timedelta(minutes=5)) <= timedelta(seconds=45)


@pytest.mark.parametrize("last", [None, NOW - timedelta(days=3), NOW + timedelta(days=3)])
def test_what_is_due_or_was_done_in_the_future_begins_soon(last: datetime | None) -> None:
    first = trigger("every 15 minutes", UTC, last=last, now=NOW, place=0.5).get_next_fire_time(None, NOW)
    assert first is not None
    assert NOW <= first <= NOW + timedelta(minutes=2)


@given(st.integers(1, 1000), st.sampled_from(["second", "minute", "hour", "day", "week"]), st.floats(0, 1))
def test_an_interval_fires_about_so_often(count: int, unit: str, place: float) -> None:
    schedule = f"every {count} {unit}s"
    length = interval(schedule)
    assert length is not None
    wanted = trigger(schedule, UTC, last=None, now=NOW, place=place)
    first = wanted.get_next_fire_time(None, NOW)
    assert first is not None
    second = wanted.get_next_fire_time(first, first)
    assert second is not None
    assert first - NOW <= min(length / 5, timedelta(seconds=120)) + timedelta(seconds=1)
    assert length * 0.8 <= second - first <= length * 1.2


def test_an_hour_that_summer_time_skips_and_one_that_it_repeats() -> None:
    def next_after(line: str, now: datetime) -> datetime:
        found = trigger(line, BERLIN, last=None, now=now).get_next_fire_time(None, now)
        assert found is not None
        return found.astimezone(UTC)

    # 02:30 does not exist on 29 March 2026, and exists twice on 25 October: once a day is what was asked for.
    spring = next_after("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN))
    assert spring - datetime(2026, 3, 29, 1, tzinfo=UTC) < timedelta(days=1)
    autumn = next_after("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=BERLIN))
    after = next_after("30 2 * * *", (autumn + timedelta(minutes=1)).astimezone(BERLIN))
    assert after - autumn >= timedelta(hours=1)


OFFICE, NIGHT = Span(time(8), time(18, 30)), Span(time(22), time(6))


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-06-01 07:59", None),
        ("2026-06-01 08:00", "2026-06-01 18:30"),
        ("2026-06-01 18:30", None),
        ("2026-06-01 23:00", "2026-06-02 06:00"),
        ("2026-06-02 05:59", "2026-06-02 06:00"),
        ("2026-06-02 06:00", None),
    ],
)
def test_quiet_hours_also_past_midnight(now: str, until: str | None) -> None:
    found = quiet_until([OFFICE, NIGHT], datetime.fromisoformat(now).replace(tzinfo=BERLIN))
    assert found == (datetime.fromisoformat(until).replace(tzinfo=BERLIN) if until else None)


def test_quiet_hours_that_follow_one_another_are_one() -> None:
    spans = [Span(time(8), time(12)), Span(time(12), time(14)), Span(time(13), time(20))]
    now = datetime(2026, 6, 1, 9, tzinfo=BERLIN)
    assert quiet_until(spans, now) == datetime(2026, 6, 1, 20, tzinfo=BERLIN)
