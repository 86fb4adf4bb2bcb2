"""When to try again after a failure: what failed decides, and how often it has failed in a row.

A line that was cut may be there again in half a minute. A password that was refused will be refused again, and asking
for hours locks people out of their own mail. The schedule waits as long: nothing is asked of a server that is down, or
has had enough of us, only because a quarter of an hour has passed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from backupd.errors import (
    BackupdError,
    Busy,
    CertificateRefused,
    ConfigError,
    ConnectionFailed,
    LoginRefused,
    ServerError,
    StorageError,
    StorageUnavailable,
    Throttled,
    Transient,
    WrongKey,
)

JITTER = 0.2
"""Share by which a pause is longer or shorter, so that accounts that failed together do not come back together."""


class Cause(StrEnum):
    """What failed, as far as it matters for what to do next."""

    NETWORK = "network"
    THROTTLED = "throttled"
    LOGIN = "login"
    CERTIFICATE = "certificate"
    SERVER = "server"
    STORAGE = "storage"
    CONFIGURATION = "configuration"
    BUSY = "busy"
    BUG = "bug"


WAITING = frozenset({Cause.THROTTLED, Cause.BUSY})
"""Causes that are no failure."""


class _Manner(NamedTuple):
    first: float
    longest: float


_MANNERS = {
    Cause.NETWORK: _Manner(30, 900),
    Cause.THROTTLED: _Manner(60, 3600),
    Cause.LOGIN: _Manner(300, 6 * 3600),
    Cause.CERTIFICATE: _Manner(900, 6 * 3600),
    Cause.SERVER: _Manner(300, 3600),
    Cause.STORAGE: _Manner(30, 900),
    Cause.CONFIGURATION: _Manner(300, 3600),
    Cause.BUSY: _Manner(60, 60),
    Cause.BUG: _Manner(900, 6 * 3600),
}
"""Seconds before the first new try, and most seconds: each failure in a row doubles them."""


class Pause(NamedTuple):
    """cause: see Cause. seconds: before the next try."""

    cause: Cause
    seconds: float


def cause_of(error: Exception) -> Cause:
    """What kind of failure it is."""
    if isinstance(error, Throttled) or (isinstance(error, ConnectionFailed) and error.pause is not None):
        return Cause.THROTTLED
    kinds: tuple[tuple[type, Cause], ...] = (
        (LoginRefused, Cause.LOGIN),
        (CertificateRefused, Cause.CERTIFICATE),
        (StorageUnavailable, Cause.STORAGE),
        (Transient, Cause.NETWORK),
        (ServerError, Cause.SERVER),
        (StorageError, Cause.STORAGE),
        (ConfigError, Cause.CONFIGURATION),
        (WrongKey, Cause.CONFIGURATION),
        (Busy, Cause.BUSY),
        (BackupdError, Cause.STORAGE),
    )
    return next((cause for kind, cause in kinds if isinstance(error, kind)), Cause.BUG)


def plan(error: Exception, failures: int, chance: Callable[[], float] = random.random) -> Pause:
    """What to do after a failure. failures: how many in a row, this one included. chance: a number from 0 to 1."""
    cause = cause_of(error)
    manner = _MANNERS[cause]
    seconds = min(manner.longest, manner.first * 2.0 ** min(max(failures - 1, 0), 30))
    # A server that says how long it wants to be left alone is obeyed, and never asked earlier.
    asked = getattr(error, "pause", None) or 0.0
    return Pause(cause, max(asked, seconds * (1 - JITTER + 2 * JITTER * chance())))
