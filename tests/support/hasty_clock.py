"""A clock for code that tries again: pauses take no time, and yet go by."""

from __future__ import annotations

import threading
import time


class HastyClock:
    """Time as it is, and on top of it all that was slept. Thread-safe."""

    def __init__(self) -> None:
        self.slept = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds; only differences count."""
        return time.monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        """Be so much later at once."""
        with self._lock:
            self.slept += seconds
