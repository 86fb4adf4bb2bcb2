"""When what is due: APScheduler's scheduler, with a job for each account and each piece of maintenance.

Its jobs only ask: the desk and the maintenance do the work on threads of their own. So nothing here takes time, missed
runs become one, and a run that takes longer than its interval is followed by one more and not by ten.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from backupd.daemon.timetable import trigger


class Due(NamedTuple):
    """What is done on a schedule. last: when it was done last, if that is known."""

    schedule: str
    call: Callable[[], object]
    last: datetime | None = None


class Schedules:
    """All schedules. zone: in which cron lines are meant; None for the system's."""

    def __init__(
        self, zone: tzinfo | None = None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._clock = clock
        self._due: dict[str, Due] = {}
        self._scheduler = BackgroundScheduler(
            **({"timezone": zone} if zone else {}),
            executors={"default": DebugExecutor()},  # jobs take no time: the scheduler's own thread does them
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    @property
    def zone(self) -> tzinfo:
        """In which cron lines are meant."""
        zone: tzinfo = self._scheduler.timezone
        return zone

    def start(self) -> None:
        """From now on what is due is done."""
        self._scheduler.start()

    def close(self) -> None:
        """Nothing is done any more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def set(self, due: Mapping[str, Due]) -> None:
        """These are the schedules from now on; those that are as before go on undisturbed."""
        for key in self._due.keys() - due.keys():
            self._scheduler.remove_job(key)
        for key, wanted in due.items():
            known = self._due.get(key)
            if known is None or known.schedule != wanted.schedule:
                self._add(key, wanted)
        self._due = dict(due)

    def put(self, key: str, due: Due) -> None:
        """This one from now on, if it is among them; where the schedule is another, it is planned anew."""
        if (known := self._due.get(key)) is not None:
            self._due[key] = due
            if known.schedule != due.schedule:
                self._add(key, due)

    def restart(self) -> None:
        """The clock was set: what was planned by the old one is planned anew."""
        for key, wanted in self._due.items():
            self._add(key, wanted)

    def next(self, key: str) -> datetime | None:
        """When this is due next, in UTC."""
        job = self._scheduler.get_job(key)
        found = getattr(job, "next_run_time", None)
        return found.astimezone(UTC) if found else None

    def _add(self, key: str, due: Due) -> None:
        # The same account stands at the same place after each restart, and accounts do not gather at any.
        place = zlib.crc32(key.encode()) / 2**32
        self._scheduler.add_job(
            due.call,
            trigger(due.schedule, self.zone, last=due.last, now=self._clock(), place=place),
            id=key,
            replace_existing=True,
        )

