"""Pauses within a session, when the server asks for them: short ones are waited out, long ones end the run."""

from __future__ import annotations

from collections.abc import Callable

from backupd.errors import Interrupted
from backupd.wire import throttling
from backupd.wire.imap_parser import Status
from backupd.wire.stream import show

FIRST_PAUSE = 1.0
LONGEST_GUESS = 64.0


def wish(status: Status) -> throttling.Wish | None:
    """What the status asks for; None if for nothing of the kind."""
    return throttling.wish(status.code, status.text, refused=status.kind != b"OK")


class Throttle:
    """Waits when the server asks; doubles its own guess as long as the server goes on asking.

    Args:
        sleep: waits some seconds; whether we were told to stop meanwhile.
        patience: seconds of pauses in a row after which the session is given up.
        address: of the server, for messages.
    """

    def __init__(self, sleep: Callable[[float], object], patience: float, address: str) -> None:
        self._sleep, self._patience, self._address = sleep, patience, address
        self._waited = 0.0
        self._guess = FIRST_PAUSE

    def heed(self, status: Status) -> bool:
        """Wait if the status asks for it, and tell whether.

        Raises Throttled when it asks for too much, Interrupted when we were told to stop.
        """
        asked = wish(status)
        if asked is None:
            if status.kind == b"OK":
                self._waited, self._guess = 0.0, FIRST_PAUSE
            return False
        pause = self._guess if asked.seconds is None else asked.seconds
        self._guess = min(self._guess * 2, LONGEST_GUESS)
        if asked.exhausted or self._waited + pause > self._patience:
            raise throttling.throttled(asked, show(status.text), subject=self._address)
        self._waited += pause
        if self._sleep(pause) is True:
            raise Interrupted("stopped while the server wanted a pause", subject=self._address)
        return True

    def refuse(self, status: Status) -> None:
        """Raise Throttled if the status asks for a pause, however short: what was under way must begin anew."""
        if asked := wish(status):
            raise throttling.throttled(asked, show(status.text), subject=self._address)
