"""When a message arrived, where no server says so: POP3 has no INTERNALDATE, and most local stores have none either.

The order, from the best source to the worst:

1. what a store recorded as INTERNALDATE itself;
2. a store's own date (a file's time, the date of a "From " line), unless it is more than a day later than what the
   message says of itself: then it tells when the message was downloaded or the file was copied;
3. the date at the end of the topmost Received field: the last server on the way (RFC 5321, 4.4);
4. the Date field: for mail that was sent from here;
5. the store's own date, however late;
6. none of them: the moment of the run.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from backupd.mail.dates import FIRST_YEAR, LAST_YEAR, spelled

_FIELD = re.compile(rb"^(received|date)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)
_LATER = timedelta(days=1)
_LONGEST = 4096
"""Octets of a field; a Received field that is longer has its date nowhere useful."""


def of_header(header: bytes) -> datetime | None:
    """The date of the topmost Received field that has one, else of the Date field; in UTC where no zone is given."""
    date: datetime | None = None
    for field in _FIELD.finditer(header):
        value = field[2][-_LONGEST:]
        if field[1].lower() == b"received":
            if moment := _moment(value.rpartition(b";")[2]):
                return moment
        elif date is None:
            date = _moment(value)
    return date


def internaldate(header: bytes, *, stored: datetime | None = None, otherwise: datetime) -> bytes:
    """The INTERNALDATE for a message that has none (see the module), as a server would write it.

    Args:
        stored: what the store says, if anything.
        otherwise: the moment of the run.
    """
    own = of_header(header)
    if stored is not None and not FIRST_YEAR <= stored.year <= LAST_YEAR:
        stored = None
    if stored is not None and own is not None and stored == own:
        return spelled(own)  # the same moment, and this one knows the zone
    if stored is not None and (own is None or stored <= own + _LATER):
        return spelled(stored)
    return spelled(own or otherwise)


def _moment(value: bytes) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value.decode("ascii", "replace").strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
