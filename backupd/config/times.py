"""Lengths of time and schedules, as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,9})\s*(s|min|m|h|d|w)\Z", re.ASCII)
_EVERY = re.compile(r"every ([1-9]\d{0,4} )?(second|minute|hour|day|week)s?\Z", re.ASCII)
_UNITS_OF_SCHEDULES = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_STEP = re.compile(r"(\*|\w+(?:-\w+)?)(?:/([1-9]\d{0,2}))?\Z", re.ASCII)
_LONGEST = timedelta(days=36_500)  # "now" minus this is still a date
_DAY = timedelta(days=1)

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)


def duration(value: object) -> timedelta:
    """15m, 1h or 2d. Raises ValueError for anything else, for nothing at all, and for more than a hundred years."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a length of time; write a number and s, m, h, d or w, such as 15m or 2d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError("not a useful length of time; write more than nothing and at most 36500d")
    return timedelta(seconds=seconds)


def objective(value: object) -> timedelta | Literal["none"]:
    """1h, or none. Raises ValueError for anything else."""
    return "none" if value == "none" else duration(value)


def interval(schedule: str) -> timedelta | None:
    """The length of an "every ..." schedule; None for any other."""
    match = _EVERY.match(schedule)
    return timedelta(seconds=int(match[1] or 1) * _UNITS_OF_SCHEDULES[match[2]]) if match else None


def usual_objective(schedule: str) -> timedelta:
    """How old a backup may be that is taken on this schedule, where nobody says: a day more than the schedule may leave
    between two runs, and two days at the least; so that a night without a server alarms nobody, and a second one does.
    """
    if (every := interval(schedule)) is not None:
        return max(every, _DAY) + _DAY
    if schedule == "continuous":
        return 2 * _DAY
    _, _, day, month, weekday = schedule.split()
    if not month.startswith("*"):
        return timedelta(days=367) + _DAY
    # A day of the month and a day of the week: cron is content with either.
    gaps = [timedelta(days=7)] if not weekday.startswith("*") else []
    gaps += [timedelta(days=31)] if not day.startswith("*") else []
    if "*/" in day or "*/" in weekday:
        gaps = [timedelta(days=31)]
    return min(gaps, default=_DAY) + _DAY


def schedule(value: str) -> str:
    """ "every 15 minutes", a cron line, or "continuous". Raises ValueError for anything else."""
    fields = value.split()
    if value == "continuous" or _EVERY.match(value):
        return value
    if len(fields) != len(_FIELDS):
        raise ValueError('not a schedule; write "every 15 minutes", a cron line of five fields, or "continuous"')
    for text, (name, lowest, highest, words) in zip(fields, _FIELDS, strict=True):
        if not all(_is_cron(each.lower(), lowest, highest, words) for each in text.split(",")):
            raise ValueError(
                f"not a cron line, for its {name} is wrong; write *, {lowest} to {highest}, or {lowest}-{highest}/2"
            )
    return value


def _is_cron(text: str, lowest: int, highest: int, words: dict[str, int]) -> bool:
    match = _STEP.match(text)
    if match is None:
        return False
    if match[1] == "*":
        return True
    numbers = [words.get(each, int(each) if each.isdecimal() and len(each) < 3 else -1) for each in match[1].split("-")]
    return all(lowest <= number <= highest for number in numbers) and numbers == sorted(numbers)


Duration = Annotated[
    timedelta,
    BeforeValidator(duration, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+ *(s|min|m|h|d|w)$")]),
]
Schedule = Annotated[str, AfterValidator(schedule)]
Objective = Annotated[
    timedelta | Literal["none"],
    BeforeValidator(objective, json_schema_input_type=Annotated[str, Field(pattern=r"^(\d+ *(s|min|m|h|d|w)|none)$")]),
]
