"""INTERNALDATE: when a message arrived, as servers write it and as others need it.

The archive keeps the server's string. Servers also send dates that no other takes back (30-Dec-1899, 00-Jan-0000, no
zone), so a date is read here without ever raising, and made acceptable only on its way into another server.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta, timezone

FIRST_YEAR, LAST_YEAR = 1970, 2099
"""Years in which mail is believed to have arrived. Others are mistakes, and many servers refuse or wrap them."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_LOCAL = re.compile(rb"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) +(\d{1,2}):(\d\d):(\d\d)(?:\.\d+)?\s*")
_ZONE = re.compile(rb"([+-])(\d\d)(\d\d)\s*\Z")
_DATE_TIME = re.compile(rb"(?: \d|\d\d)-(?:%s)-\d{4} \d\d:\d\d:\d\d [+-]\d{4}" % b"|".join(_MONTHS))
"""Exactly what APPEND takes (RFC 3501, 9: date-time), but for the quotes."""

_YEAR = re.compile(rb"-(\d{4,})\b")
_EARLIEST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
_LATEST = datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC)


def parse(internaldate: bytes) -> datetime | None:
    """The moment, in the zone of the server's string; None if it is missing, malformed, or not of 1970 to 2099.

    A day of one digit may be padded with a space or a zero, or not at all.
    """
    local = _LOCAL.match(internaldate)
    zone = None if local is None else _zone(internaldate[local.end() :])
    moment = None if local is None or zone is None else _moment(local, zone)
    return moment if moment is not None and FIRST_YEAR <= moment.year <= LAST_YEAR else None


def _moment(local: re.Match[bytes], zone: timezone) -> datetime | None:
    day, month, year, hour, minute, second = local.groups()
    try:
        return datetime(
            int(year), _MONTH_NUMBERS[month.lower()], int(day), int(hour), int(minute), int(second), tzinfo=zone
        )
    except (KeyError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _zone(text: bytes) -> timezone | None:
    zone = _ZONE.match(text)
    if zone is None or int(zone[2]) > 23 or int(zone[3]) > 59:
        return None
    offset = timedelta(hours=int(zone[2]), minutes=int(zone[3]))
    return timezone(-offset if zone[1] == b"-" else offset)


def timestamp(internaldate: bytes) -> float | None:
    """Seconds since 1970 in UTC; None where `parse` gives none."""
    moment = parse(internaldate)
    return None if moment is None else moment.timestamp()


def for_append(internaldate: bytes) -> tuple[bytes, bool]:
    """A date that any server takes with APPEND (RFC 3501, 6.3.11), unquoted, and whether the moment had to change.

    A valid date of 1970 to 2099 is kept as it is, octet for octet. One that is only spelled otherwise is spelled by the
    RFC. Without a usable zone it is taken for UTC; years too early or too late become the first or last moment
    of that time, and so a message without a date is never shown as new.
    """
    moment = parse(internaldate)
    if moment is not None:
        return (internaldate if _DATE_TIME.fullmatch(internaldate) else spelled(moment)), False
    return spelled(_guess(internaldate)), True


def nearest(internaldate: bytes) -> datetime:
    """The moment that `for_append` would choose."""
    return parse(internaldate) or _guess(internaldate)


def _guess(internaldate: bytes) -> datetime:
    """The best guess at a date that `parse` refuses."""
    local = _LOCAL.match(internaldate)
    moment = None if local is None else _moment(local, UTC)
    if moment is not None and FIRST_YEAR <= moment.year <= LAST_YEAR:
        return moment
    year = _YEAR.search(internaldate)
    too_late = year is not None and (len(year[1]) > 4 or int(year[1]) > LAST_YEAR)
    return _LATEST if too_late else _EARLIEST


def spelled(moment: datetime) -> bytes:
    """The moment as APPEND takes it (RFC 3501, 9: date-time), unquoted, in its own zone."""
    return b"%2d-%s-%04d %s" % (
        moment.day, _MONTHS[moment.month - 1], moment.year, f"{moment:%H:%M:%S %z}".encode("ascii"),
    )  # fmt: skip


def mbox_date(internaldate: bytes) -> bytes:
    """The date of a "From " line (RFC 4155): asctime of UTC, in English, as "Wed Jul 17 09:44:25 1996".

    The nearest moment that `for_append` would choose where there is no usable date.
    """
    return nearest(internaldate).astimezone(UTC).ctime().encode("ascii")
