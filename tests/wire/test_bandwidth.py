"""All connections together keep to a rate, and every octet still arrives."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.wire.bandwidth import Bandwidth
from backupd.wire.imap_connection import ImapSettings, Literal, connect
from backupd.wire.stream import Stream
from tests.support.dovecot_account import Account
from tests.support.mail import large_message


class Clock:
    """Time that goes by only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(
    st.floats(4096, 1e9),
    st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 5)), min_size=1, max_size=100),
)
def test_no_stretch_of_time_brings_more_than_the_rate(rate: float, works: list[tuple[int, float]]) -> None:
    clock = Clock()
    flow = Bandwidth(rate, clock=clock.time, sleep=clock.sleep)
    moments = []
    for octets, idle in works:
        clock.sleep(idle)
        begins = clock.now
        flow.received(octets)
        moments.append((begins, clock.now, octets))
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            took = moments[last][1] - moments[first][0]
            came = sum(octets for _, _, octets in moments[first : last + 1])
            assert came <= rate * (took + 0.25) * 1.000001 + 1


def test_each_direction_has_its_own_bound() -> None:
    clock = Clock()
    flow = Bandwidth(1e6, clock=clock.time, sleep=clock.sleep)
    flow.received(500_000)
    assert clock.now == pytest.approx(1000.5)
    flow.sent(100_000)
    assert clock.now == pytest.approx(1000.5, abs=0.11)


def test_a_stream_takes_little_at_once_and_counts_all() -> None:
    clock = Clock()
    flow = Bandwidth(1e6, clock=clock.time, sleep=clock.sleep)
    ours, theirs = socket.socketpair()
    line = bytes(range(11, 256)) * 2000
    sending = threading.Thread(target=theirs.sendall, args=(line + b"\r\n",))
    sending.start()
    stream = Stream(ours, "test:1", flow=flow)
    assert stream.line() == line
    sending.join()
    assert clock.now - 1000 == pytest.approx((len(line) + 2) / 1e6, abs=0.01)
    stream.close()
    theirs.close()


def test_mail_goes_both_ways_unharmed(account: Account) -> None:
    clock = Clock()
    flow = Bandwidth(2e6, clock=clock.time, sleep=clock.sleep)
    raw = large_message(3 << 20)
    settings = ImapSettings(
        account.host, account.username, account.password, port=account.tls_port, ca_file=account.ca_file, flow=flow
    )
    with connect(settings) as connection:
        connection.command(b"APPEND INBOX", Literal(raw))
        connection.command(b"EXAMINE INBOX")
        tag = connection.send(b"UID FETCH 1:* (UID BODY.PEEK[])")
        (found,) = [one for one in connection.fetches(tag) if getattr(one, "has_body", False)]
    assert found.body == raw  # type: ignore[union-attr]
    assert clock.now - 1000 >= 2 * len(raw) / 2e6 - 0.5
