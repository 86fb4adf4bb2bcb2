"""A bound on the octets a second that all connections of the process take together, in each direction.

Who has received something waits until the line would have brought it at that rate; meanwhile the connection's buffers
fill up, and TCP tells the server to send more slowly. So nothing is sent in vain, and no clock has to be right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from backupd.turns import TURN

_BURST_SECONDS = 0.25
"""What may come at once after a pause."""
_FEWEST_OCTETS = 4096


class Flow(Protocol):
    """What is told of the octets of a connection, and may hold it up. Called from the threads of all connections."""

    @property
    def most(self) -> int:
        """Octets to be received or sent at once."""
        ...

    def received(self, octets: int) -> None:
        """So many have come."""
        ...

    def sent(self, octets: int) -> None:
        """So many have gone out."""
        ...


class Bandwidth:
    """A `Flow` that keeps to a rate. Thread-safe.

    Args:
        rate: octets a second.
        clock: seconds that only go forward.
        sleep: waits so many.
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._paid = [clock(), clock()]
        """Until when what has come, and what has gone, pays for itself."""

    @property
    def most(self) -> int:
        """Octets to be received or sent at once: so few that several connections get their share."""
        return max(_FEWEST_OCTETS, int(self.rate * _BURST_SECONDS / 4))

    def received(self, octets: int) -> None:
        """Wait as long as these take."""
        self._pace(0, octets)

    def sent(self, octets: int) -> None:
        """Wait as long as these take."""
        self._pace(1, octets)

    def _pace(self, direction: int, octets: int) -> None:
        with self._lock:
            now = self._clock()
            begins = max(self._paid[direction], now - _BURST_SECONDS)
            self._paid[direction] = begins + octets / self.rate
            wait = self._paid[direction] - now
        if wait > 0:
            with TURN.given_up():
                self._sleep(wait)
