"""How hard to compress: as the reading allows. docs/decisions/0006 has what was measured.

Where mail comes as fast as one processor takes it (a server nearby, a first snapshot), compressing must not slow it
down. Where the network is what it waits for, which is the usual case, the processors have nothing else to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable

QUICK, THOROUGH = 3, 9
"""zstd levels of text. The one costs less than reading and splitting; the other takes 8 percent less space."""

_QUICK_DENSE, _THOROUGH_DENSE = 1, 5
"""Levels of what is compressed already, of which a few percent can be had at the most."""

_SMALL = 128 * 1024
"""Octets of a block for which no level takes time."""

_MOMENT = 0.5
"""Seconds over which is measured how busy we are."""

_BUSY = 0.5
"""Seconds of processor time in a second."""

Clock = Callable[[], float]


class Effort:
    """Chooses the level of each block. Not thread-safe."""

    def __init__(
        self, level: int | None, *, clock: Clock = time.monotonic, processor: Clock = time.process_time
    ) -> None:
        """level: of all text, if the user wants it so; None to choose. processor: seconds this process has computed."""
        self._level, self._clock, self._processor = level, clock, processor
        self._at, self._spent = clock(), processor()
        self._busy = True

    def level(self, size: int, *, dense: bool) -> int:
        """The zstd level for a block of so many octets. dense: whether they look compressed already."""
        now = self._clock()
        if now - self._at >= _MOMENT:
            spent = self._processor()
            self._busy = spent - self._spent > _BUSY * (now - self._at)
            self._at, self._spent = now, spent
        quick = self._busy and size > _SMALL
        if dense:
            return _QUICK_DENSE if quick else _THOROUGH_DENSE
        if self._level is not None:
            return self._level
        return QUICK if quick else THOROUGH
