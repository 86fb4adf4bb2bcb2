"""Dates of arrival: kept where they make sense, made acceptable where they do not."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.dates import for_append, mbox_date, parse, timestamp

_VALID = re.compile(
    rb"(?: \d|\d\d)-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-(\d{4}) \d\d:\d\d:\d\d [+-]\d{4}"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31, 23, 59, 59), timezones=zones).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
absurd = [
    b"",
    b"NIL",
    b"30-Dec-1899 00:00:00 +0000",
    b"00-Jan-0000 00:00:00 +0000",
    b"01-Jan-0001 00:00:00 +1400",
    b"17-Jul-2100 02:44:25 +0000",
    b"17-Jul-9999 02:44:25 +0000",
    b"17-Jul-12345 02:44:25 +0000",
    b"31-Feb-2020 00:00:00 +0000",
    b"17-Foo-1996 02:44:25 +0000",
    b"17-Jul-1996 25:44:25 +0000",
    b"17-Jul-1996 02:44:25",
    b"17-Jul-1996 02:44:25 GMT",
    b"17-Jul-1996 02:44:25 +2400",
    b"17-Jul-1996 02:44:25 +05-30",
    b"\xff\x00\r\n",
]


def _spelled(moment: datetime, day: str) -> bytes:
    return f"{day}-{_MONTHS[moment.month - 1]}-{moment:%Y %H:%M:%S %z}".encode()


@given(moments, st.sampled_from(["{:2}", "{:02}", "{}"]))
def test_a_date_is_read_however_its_day_is_padded(moment: datetime, day: str) -> None:
    raw = _spelled(moment, day.format(moment.day))

    read = parse(raw)

    assert read == moment
    assert read.utcoffset() == moment.utcoffset()
    assert timestamp(raw) == moment.timestamp()


@given(moments, st.sampled_from(["{:2}", "{:02}"]))
def test_a_valid_date_is_given_back_octet_for_octet(moment: datetime, day: str) -> None:
    raw = _spelled(moment, day.format(moment.day))

    assert for_append(raw) == (raw, False)


@pytest.mark.parametrize(
    "raw", [b"7-Jul-1996 02:44:25 -0700", b"07-JUL-1996 2:44:25 -0700", b" 7-Jul-1996 02:44:25 -0700 "]
)
def test_another_spelling_is_made_valid_and_stays_the_same_moment(raw: bytes) -> None:
    assert for_append(raw) == (b" 7-Jul-1996 02:44:25 -0700", False)


@pytest.mark.parametrize("raw", absurd)
def test_an_absurd_date_is_none(raw: bytes) -> None:
    assert parse(raw) is None
    assert timestamp(raw) is None
    assert for_append(raw)[1]


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (b"", b" 1-Jan-1970 00:00:00 +0000"),
        (b"30-Dec-1899 00:00:00 +0000", b" 1-Jan-1970 00:00:00 +0000"),
        (b"17-Jul-9999 02:44:25 +0000", b"31-Dec-2099 23:59:59 +0000"),
        (b"17-Jul-1996 02:44:25", b"17-Jul-1996 02:44:25 +0000"),
        (b"17-Jul-1996 02:44:25 +05-30", b"17-Jul-1996 02:44:25 +0000"),
    ],
)
def test_an_absurd_date_becomes_the_nearest_that_servers_take(raw: bytes, sent: bytes) -> None:
    assert for_append(raw) == (sent, True)


@given(st.binary() | st.sampled_from(absurd) | st.text("0123456789-+: JanulJ", max_size=30).map(str.encode))
def test_whatever_a_server_sent_another_server_gets_a_valid_date(raw: bytes) -> None:
    sent, changed = for_append(raw)

    valid = _VALID.fullmatch(sent)
    assert valid is not None
    assert 1970 <= int(valid[1]) <= 2099
    assert parse(sent) is not None
    assert changed == (parse(raw) is None)


@given(moments)
def test_the_date_of_an_mbox_is_asctime_of_utc(moment: datetime) -> None:
    written = mbox_date(_spelled(moment, f"{moment.day:02}")).decode()

    assert datetime.strptime(written, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC) == moment
    assert len(written) == 24


def test_a_message_without_a_date_has_one_in_an_mbox_all_the_same() -> None:
    assert mbox_date(b"7-Jul-1996 02:44:25 -0700") == b"Sun Jul  7 09:44:25 1996"
    assert mbox_date(b"") == b"Thu Jan  1 00:00:00 1970"
