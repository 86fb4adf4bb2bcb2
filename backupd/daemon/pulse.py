"""Does the work advance? What the watchdog is fed by, and what the health endpoints say.

A process that runs proves little: its threads may all wait for an answer that never comes. So the main loop and each
job say when they get on, and whoever has said nothing for longer than it may counts as hung. Whoever waits on purpose
(throttled, asleep until new mail comes) says so, and for how long: a wait without an end is a hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

MAIN_SECONDS = 120.0
"""The main loop turns every few seconds, on a busy machine too."""
JOB_SECONDS = 1800.0
"""One large message over a slow line, or a bucket that is asked again for minutes, is no hang. A false alarm costs good
work, and half an hour is little for what runs for years."""
MAIN = "main loop"


class Silent(NamedTuple):
    """A job that should have got on by now. seconds: since it last did."""

    name: str
    seconds: float


class Beat:
    """What a job says that it gets on with: `beat()`. Made by `Pulse.job`; safe to use from several threads."""

    def __init__(self, name: str, silence: float, clock: Callable[[], float]) -> None:
        self.name, self._silence, self._clock = name, silence, clock
        self._last = clock()
        self._lock = threading.Lock()
        self._waits: dict[object, float] = {}

    def __call__(self) -> None:
        """The work has advanced."""
        with self._lock:
            self._last = self._clock()

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Within the block the job waits on purpose, for at most so long; its own allowed silence comes on top of it.
        Waits of several threads of a job count side by side: the longest holds."""
        wait = object()
        with self._lock:
            self._waits[wait] = self._clock() + seconds
        try:
            yield
        finally:
            with self._lock:
                del self._waits[wait]
                self._last = self._clock()

    def silent(self, now: float) -> float | None:
        """Seconds since it last got on, if they are more than it may take; else None."""
        with self._lock:
            last = self._last
            until = max([last, *self._waits.values()]) + self._silence
        return now - last if now > until else None


class Pulse:
    """The main loop and all jobs. Safe to use from several threads.

    Args:
        main: seconds for which the main loop may be silent.
        job: the same for a job that does not say otherwise.
        clock: seconds that only go forward, and stand still while the machine is suspended.
    """

    def __init__(
        self, *, main: float = MAIN_SECONDS, job: float = JOB_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._silence, self._clock = job, clock
        self._lock = threading.Lock()
        self._main = Beat(MAIN, main, clock)
        self._jobs: set[Beat] = set()

    def beat(self) -> None:
        """The main loop has come round."""
        self._main()

    @contextmanager
    def job(self, name: str, silence: float | None = None) -> Iterator[Beat]:
        """A job under way, for as long as the block lasts. silence: seconds for which it may say nothing."""
        beat = Beat(name, self._silence if silence is None else silence, self._clock)
        with self._lock:
            self._jobs.add(beat)
        try:
            yield beat
        finally:
            with self._lock:
                self._jobs.discard(beat)

    def moved(self, name: str) -> None:
        """The work of this name has advanced: for observers who know the name alone. Other names do nothing."""
        for beat in self._all():
            if beat.name == name:
                beat()

    def silent(self, now: float | None = None) -> list[Silent]:
        """Whoever should have got on by now, the longest silence first. now: by the clock that was given."""
        at = self._clock() if now is None else now
        found = [Silent(beat.name, seconds) for beat in self._all() if (seconds := beat.silent(at)) is not None]
        return sorted(found, key=lambda each: -each.seconds)

    def healthy(self, now: float | None = None) -> bool:
        """Whether all get on. now: by the clock that was given."""
        return not self.silent(now)

    def _all(self) -> list[Beat]:
        with self._lock:
            return [self._main, *self._jobs]
