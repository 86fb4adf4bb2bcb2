"""Schedules as APScheduler's triggers, and the hours in which nothing is begun.

What people write in cron lines means here what cron does with it, which is not what APScheduler would: there Monday is
0, and a day of the month and a day of the week must both fit where cron is content with either (crontab(5)).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta, tzinfo
from typing import NamedTuple

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from backupd.config.times import interval

CONTINUOUS = "continuous"
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_JITTER = 60.0
"""Seconds by which a run may be late or early, so that not all accounts of a server begin in the same second."""


def trigger(schedule: str, zone: tzinfo, *, last: datetime | None, now: datetime, place: float = 0.0) -> BaseTrigger:
    """The trigger of a schedule that `config.times.schedule` has accepted, other than "continuous".

    Args:
        last: when it was done last, so that a restart neither repeats what is not due nor puts off what is.
        place: from 0 to 1, where among all accounts this one stands: those that are due at once begin spread over a
            tenth of their interval, a minute at most.
    """
    every = interval(schedule)
    if every is None:
        return _cron(schedule, zone)
    spread = min(every.total_seconds() / 10, MOST_JITTER)
    # An interval longer than what has passed since the last run begins where that run left it; a time that lies ahead
    # of the clock's, which went back, counts for nothing.
    begin = last + every if last and now - every < last <= now else now + timedelta(seconds=spread * place)
    return IntervalTrigger(
        seconds=int(every.total_seconds()), start_date=begin, timezone=zone, jitter=int(spread / 2) or None
    )


def _cron(line: str, zone: tzinfo) -> BaseTrigger:
    minute, hour, day, month, weekday = line.lower().split()
    weekday = ",".join(_weekday(each) for each in weekday.split(","))

    def fires(day: str, weekday: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=zone)

    if day.startswith("*") or weekday.startswith("*"):
        return fires(day, weekday)
    return OrTrigger([fires(day, "*"), fires("*", weekday)])


def _weekday(field: str) -> str:
    """One element of cron's days of the week, by names: APScheduler counts them from Monday."""
    days, slash, step = field.partition("/")
    if days == "*":
        return field
    first, dash, last = days.partition("-")
    names = [_DAYS[int(each)] if each.isdecimal() else each for each in (first, last) if each]
    if not dash:
        return f"{names[0]}{slash}{step}"
    # APScheduler's weeks begin on Monday, so a stretch from Sunday is named day by day; steps count from its start.
    numbers = [int(each) if each.isdecimal() else _DAYS.index(each) for each in (first, last)]
    return ",".join(_DAYS[number] for number in range(numbers[0], numbers[1] + 1, int(step or 1)))


class Span(NamedTuple):
    """A part of each day, local time; past midnight where it ends before it begins."""

    begins: time
    ends: time


def quiet_until(spans: Sequence[Span], now: datetime) -> datetime | None:
    """When the quiet hours that it is now end; None outside of them. now: aware, in the zone that is meant."""
    until = None
    for _ in range(len(spans) + 1):  # spans may follow one another, and overlap
        at = until or now
        ends = [end for span in spans if (end := _end(span, at)) is not None and end > at]
        if not ends:
            break
        until = max(ends)
    return until


def _end(span: Span, now: datetime) -> datetime | None:
    for day in (now.date() - timedelta(days=1), now.date()):
        begins = datetime.combine(day, span.begins, now.tzinfo)
        ends = datetime.combine(day + timedelta(days=span.ends <= span.begins), span.ends, now.tzinfo)
        if begins <= now < ends:
            return ends
    return None
