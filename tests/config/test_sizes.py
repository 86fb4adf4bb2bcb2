"""Numbers of octets, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.config.servers import ImapConfig, Pop3Config
from backupd.config.sizes import limit, rate, size

SERVER = {"username": "alice", "password": "secret"}


@pytest.mark.parametrize(
    ("text", "octets"),
    [("500B", 500), ("1 kB", 1000), ("1.5MB", 1_500_000), ("2GB", 2 * 10**9), ("1KiB", 1024), (" 3 MiB ", 3 << 20)],
)
def test_sizes(text: str, octets: int) -> None:
    assert size(text) == limit(text) == octets


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("10MB", 10**7), ("10 MB/s", 10**7), ("80Mbit", 10**7), ("80 Mbit/s", 10**7), ("64kbit", 8000),
        ("1Gbit", 125 * 10**6),
    ],
)
def test_rates(text: str, octets: int) -> None:
    assert rate(text) == octets


@pytest.mark.parametrize(
    "value", ["10", "10mb", "10Mb", "-1MB", "1e3MB", "MB", "", 10, None, True, "1MB/m", "٣MB", ["1MB"]]
)
def test_what_can_be_meant_otherwise_is_refused(value: object) -> None:
    for read in (size, rate, limit):
        with pytest.raises(ValueError, match="write"):
            read(value)


@given(st.text(max_size=12))
def test_nothing_is_read_by_accident(text: str) -> None:
    try:
        octets = size(text)
    except ValueError:
        return
    assert octets > 0
    assert text.strip()[0] in "0123456789"


def test_no_limit_is_none() -> None:
    assert limit("none") == 0


@pytest.mark.parametrize(
    ("host", "written", "expected"),
    [
        ("imap.gmail.com", None, 2 * 10**9),
        ("IMAP.Gmail.com.", None, 2 * 10**9),
        ("imap.gmail.com", "none", None),
        ("imap.gmail.com", "500MB", 5 * 10**8),
        ("mail.example.com", None, None),
        ("mail.example.com", "5MB", 5 * 10**6),
    ],
)
def test_gmail_has_a_daily_limit_and_others_have_none(host: str, written: str | None, expected: int | None) -> None:
    more = {} if written is None else {"daily_limit": written}
    assert ImapConfig.model_validate({"host": host, **SERVER, **more}).octets_a_day == expected


def test_pop3_is_allowed_half_as_much_there() -> None:
    assert Pop3Config.model_validate({"host": "pop.gmail.com", **SERVER}).octets_a_day == 10**9
