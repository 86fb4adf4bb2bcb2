"""Stopping: the user's wish, which concerns everything under way, and a run's own end, which concerns its threads."""

from __future__ import annotations

import threading
import time

from backupd.errors import BackupdError

_GLANCE_SECONDS = 0.1


class Stop:
    """Set for one run, or for all by the event given. Safe to use from several threads."""

    def __init__(self, for_all: threading.Event | None = None) -> None:
        self._for_all = for_all or threading.Event()
        self._here = threading.Event()
        self._reason: BackupdError | None = None

    @property
    def wished(self) -> bool:
        """Whether the user wants everything to stop."""
        return self._for_all.is_set()

    def is_set(self) -> bool:
        """Whether this run should stop, for whatever reason."""
        return self._here.is_set() or self._for_all.is_set()

    @property
    def reason(self) -> BackupdError | None:
        """Why this run ends in order before it is done, where that is nobody's wish; the first reason counts."""
        return None if self.wished else self._reason

    def set(self, reason: BackupdError | None = None) -> None:
        """Stop this run's threads."""
        self._reason = self._reason or reason
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
