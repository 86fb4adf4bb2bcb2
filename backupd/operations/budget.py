"""How much an account may download in a day, and when it may go on. Pure: what was downloaded comes in by the hour.

The day is the last 24 hours and not the calendar's: what was read before midnight still counts after it, as it does for
servers that close an account for a day when it has had too much. Hours are the grain: one counts as long as any of it
may lie within the day, so never too little is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

DAY = timedelta(hours=24)
HOUR = timedelta(hours=1)
WORTH_IT = 0.1
"""Share of the limit that must be free again before a run goes on: not one message an hour."""

ByHour = Mapping[datetime, int]
"""Octets downloaded, by the beginning of the hour in UTC."""


def hour_of(now: datetime) -> datetime:
    """The beginning of the hour."""
    return now.replace(minute=0, second=0, microsecond=0)


def used(by_hour: ByHour, now: datetime) -> int:
    """Octets of the last 24 hours. What lies ahead counts too, for clocks are put back; what lies more than a day ahead
    was written by a clock that was wrong, and does not.
    """
    return sum(octets for hour, octets in by_hour.items() if now - DAY - HOUR < hour < now + DAY)


def goes_on(by_hour: ByHour, now: datetime, limit: int) -> datetime:
    """When a share of the limit is free again that is worth a run; now, if it is."""
    enough = limit * (1 - WORTH_IT)
    moments = sorted({now, *(hour + DAY + HOUR for hour in by_hour if hour + DAY + HOUR > now)})
    return next(moment for moment in moments if used(by_hour, moment) <= enough or moment == moments[-1])
