"""When a watched connection that broke, or could not be made, is tried again. Pure.

A server that was restarted is there again in seconds, so the first try comes soon; a password that was refused is not
tried often enough to lock anybody out of their own mail. Meanwhile the account is polled, so nothing is lost but speed.
"""

from __future__ import annotations

from typing import NamedTuple

from backupd.daemon.retrying import Cause, cause_of

JITTER = 0.5
"""Share by which a pause is longer or shorter: a thousand connections that broke together do not come back together."""
STABLE_SECONDS = 300.0
"""A connection that lasted so long was no failure, whatever it ended of."""
UNABLE_SECONDS = 86_400.0
"""Until a server that tells of nothing is asked whether it has learnt it."""
CROWDED = (30.0, 900.0)
"""Where no more connections to the host are allowed: first and longest pause, in seconds."""


class _Manner(NamedTuple):
    first: float
    longest: float


_PASSING = _Manner(2.0, 900.0)
_LASTING = _Manner(900.0, 6 * 3600.0)
_MANNERS = {Cause.NETWORK: _PASSING, Cause.THROTTLED: _Manner(60.0, 3600.0)}


def pause(error: Exception, failures: int, chance: float) -> float:
    """Seconds until the next try. failures: in a row, this one included. chance: from 0 to 1."""
    # That there is no such mailbox is a lasting failure as well: it may be made yet, but not for our sake.
    manner = _MANNERS.get(cause_of(error), _LASTING)
    asked = getattr(error, "pause", None) or 0.0
    return max(asked, grown(manner, failures, chance))


def grown(manner: tuple[float, float], failures: int, chance: float) -> float:
    """The pause after so many failures, from the first and the longest one."""
    first, longest = manner
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * (1 - JITTER + 2 * JITTER * chance)
