"""Servers that ask for a pause: what they say, and how long to wait (seconds)."""

from __future__ import annotations

import re
from collections.abc import Callable

from backupd.errors import ConnectionFailed
from backupd.wire.imap_parser import Status

_SUGGESTED = re.compile(rb"backoff time:? *(\d+) *milliseconds", re.IGNORECASE)
_THROTTLED = re.compile(rb"request is throttled", re.IGNORECASE)
FIRST_PAUSE = 1.0
LONGEST_GUESS = 64.0


def suggested_pause(status: Status) -> float | None:
    """Seconds the server asks to wait; 0 when it asks without saying how long; None when it does not ask.

    Exchange: "Request is throttled. Suggested Backoff Time: 299000 milliseconds". Gmail: [THROTTLED], even in an OK.
    """
    if found := _SUGGESTED.search(status.text):
        return int(found[1]) / 1000
    return 0.0 if status.code == b"THROTTLED" or _THROTTLED.search(status.text) else None


class Throttle:
    """Waits when the server asks; doubles its own guess as long as the server goes on asking."""

    def __init__(self, sleep: Callable[[float], object], patience: float, address: str) -> None:
        self._sleep, self._patience, self._address = sleep, patience, address
        self._waited = 0.0
        self._guess = FIRST_PAUSE

    def heed(self, status: Status) -> bool:
        """Wait if the status asks for it, and tell whether. Raises ConnectionFailed when it has asked for too much."""
        asked = suggested_pause(status)
        if asked is None:
            if status.kind == b"OK":
                self._waited, self._guess = 0.0, FIRST_PAUSE
            return False
        pause = asked or self._guess
        self._guess = min(self._guess * 2, LONGEST_GUESS)
        if self._waited + pause > self._patience:
            raise ConnectionFailed(
                f"the server is throttling this account and asks to wait {pause:.0f} s more",
                subject=self._address,
                remedy="try again later, or use fewer connections",
            )
        self._waited += pause
        self._sleep(pause)
        return True
