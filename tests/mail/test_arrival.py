"""When a message arrived is told by the best source there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from backupd.mail.arrival import internaldate, of_header

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
HEADER = (
    b"Received: from a by b\r\n\tfor <c>;\r\n Wed, 17 Jul 1996 02:44:25 -0700\r\n"
    b"Received: by a; Tue, 16 Jul 1996 00:00:00 +0000\r\nDate: Mon, 15 Jul 1996 00:00:00 +0000\r\n\r\n"
)
ARRIVED = datetime(1996, 7, 17, 2, 44, 25, tzinfo=timezone(timedelta(hours=-7)))


def test_the_topmost_received_field_comes_first() -> None:
    assert of_header(HEADER) == ARRIVED
    assert internaldate(HEADER, otherwise=NOW) == b"17-Jul-1996 02:44:25 -0700"


def test_a_received_field_without_a_date_is_passed_over() -> None:
    assert of_header(b"Received: by nobody\r\n" + HEADER) == ARRIVED


def test_sent_mail_has_its_own_date() -> None:
    header = b"Date: Mon, 15 Jul 1996 10:00:00 +0200\r\n\r\n"
    assert internaldate(header, otherwise=NOW) == b"15-Jul-1996 10:00:00 +0200"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (ARRIVED + timedelta(hours=1), b"17-Jul-1996 03:44:25 -0700"),  # it waited in the spool
        (ARRIVED.astimezone(UTC), b"17-Jul-1996 02:44:25 -0700"),  # the same moment, and a zone
        (ARRIVED + timedelta(days=2), b"17-Jul-1996 02:44:25 -0700"),  # the file was copied
        (datetime(2150, 1, 1, tzinfo=UTC), b"17-Jul-1996 02:44:25 -0700"),
    ],
)
def test_the_store_is_believed_unless_it_tells_when_the_file_was_copied(stored: datetime, expected: bytes) -> None:
    assert internaldate(HEADER, stored=stored, otherwise=NOW) == expected


def test_without_any_other_date_the_store_s_or_the_run_s_is_taken() -> None:
    assert internaldate(b"Subject: x\r\n\r\n", stored=ARRIVED, otherwise=NOW) == b"17-Jul-1996 02:44:25 -0700"
    assert internaldate(b"Subject: x\r\n\r\n", otherwise=NOW) == b" 1-Nov-2026 12:00:00 +0000"


@pytest.mark.parametrize(
    "value",
    [b"", b"nonsense", b"Mon, 99 Jul 1996 10:00:00 +0200", b"Mon, 15 Jul 3001 00:00:00 -2359", b"\xff" * 90],
)
def test_dates_that_make_no_sense_are_none(value: bytes) -> None:
    assert of_header(b"Date: " + value + b"\r\nReceived: by a; " + value + b"\r\n\r\n") is None
