"""Sections about the daemon: what it does when, and how much at once."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from backupd.config.sections import Section
from backupd.config.times import schedule

_SPAN = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)")
_SHARE = re.compile(r"(\d{1,3})\s*%")


def _span(value: object) -> tuple[time, time]:
    """A part of the day such as 08:00-18:30. Raises ValueError."""
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or (match[3] == "24" and match[4] != "00"):
        raise ValueError("not hours of the day; write them as 08:00-18:00")
    begins, ends = time(int(match[1]), int(match[2])), time(int(match[3]) % 24, int(match[4]))
    if begins == ends:
        raise ValueError("hours that begin when they end; write them as 08:00-18:00")
    return begins, ends


def _job_schedule(value: str) -> str:
    if value == "continuous":
        raise ValueError('only accounts are backed up so; write "every day", or a cron line of five fields')
    return value if value == "never" else schedule(value)


def _share(value: object) -> int:
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 100:
        raise ValueError("not a share; write 1% to 100%")
    return int(match[1])


Hours = Annotated[tuple[time, time], BeforeValidator(_span, json_schema_input_type=str)]
JobSchedule = Annotated[str, AfterValidator(_job_schedule)]
Share = Annotated[int, BeforeValidator(_share, json_schema_input_type=Annotated[str, Field(pattern=r"^\d{1,3} *%$")])]


class AuditJob(Section):
    """An audit that the daemon makes."""

    level: Literal["freshness", "metadata", "storage", "content", "source", "drill"]
    """How much is proved; see `backupd audit`."""
    schedule: JobSchedule = "every day"
    """When: "every day", a cron line of five fields, or "never"."""
    budget: Share | None = None
    """The share of the repository that is read each time, such as 5%; by default all."""


class Maintenance(Section):
    """What the daemon does with the repository beside backups: each "every 6 hours", a cron line, or "never"."""

    forget: JobSchedule = "every hour"
    """When snapshots are forgotten that retention does not keep; without retention, nothing is."""
    prune: JobSchedule = "23 3 * * *"
    """When what no snapshot needs is removed, and small packs are merged."""
    copies: JobSchedule = "every hour"
    """When the copies are brought up to date."""
    audits: tuple[AuditJob, ...] = Field(default=(AuditJob(level="metadata", schedule="53 4 * * *"),), strict=False)
    """Audits, each with a schedule of its own."""
