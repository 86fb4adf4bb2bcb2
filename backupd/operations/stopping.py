"""Stopping: the user's wish, which concerns everything under way, and a run's own end, which concerns its threads."""

from __future__ import annotations

import threading
import time

_GLANCE_SECONDS = 0.1


class Stop:
    """Set for one run, or for all by the event given. Safe to use from several threads."""

    def __init__(self, for_all: threading.Event | None = None) -> None:
        self._for_all = for_all or threading.Event()
        self._here = threading.Event()

    @property
    def wished(self) -> bool:
        """Whether the user wants everything to stop."""
        return self._for_all.is_set()

    def is_set(self) -> bool:
        """Whether this run should stop, for whatever reason."""
        return self._here.is_set() or self._for_all.is_set()

    def set(self) -> None:
        """Stop this run's threads."""
        self._here.set()

    def wait(self, seconds: float) -> bool:
        """Pause for so long, or until stopped; whether stopped."""
        until = time.monotonic() + seconds
        while not self.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._here.wait(min(left, _GLANCE_SECONDS))
        return True
