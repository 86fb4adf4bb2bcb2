"""A server that drips cannot hold us for hours; one that is only slow, or far away, is waited for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import ConnectionFailed, ConnectionLost, ServerError
from backupd.turns import TURN
from backupd.wire.imap_connection import ImapSettings, connect
from backupd.wire.patience import GREETING_OCTETS, OCTETS_A_SECOND, TIMEOUTS, Patience
from backupd.wire.pop3_connection import connect as connect_pop3
from backupd.wire.pop3_settings import Pop3Settings
from backupd.wire.stream import Stream
from backupd.wire.tls import Trust, wrap
from tests.support.scripted_imap import PASSWORD, USER, ScriptedImap
from tests.support.tls import Authority

TIMEOUT = 60.0


def known() -> Patience:
    patience = Patience(TIMEOUT)
    patience.logged_in()
    return patience


@given(st.lists(st.tuples(st.floats(0, TIMEOUT), st.integers(1, 3000)), max_size=300))
def test_waiting_ends_in_time_whatever_is_dripped(waits: list[tuple[float, int]]) -> None:
    patience, waited, octets = known(), 0.0, 0
    for seconds, got in waits:
        waited, octets = waited + seconds, octets + got
        if not patience.waited(seconds, got):
            break
        assert waited <= TIMEOUTS * TIMEOUT + octets / OCTETS_A_SECOND + 1e-6


@given(st.lists(st.floats(0.001, TIMEOUT), max_size=300))
def test_a_slow_line_is_no_dripping_server(waits: list[float]) -> None:
    patience = known()
    assert all(patience.waited(seconds, int(seconds * OCTETS_A_SECOND) + 1) for seconds in waits)


@given(st.lists(st.floats(0, TIMEOUT), max_size=300))
def test_short_answers_to_many_commands_are_no_dripping(waits: list[float]) -> None:
    patience = known()
    for seconds in waits:
        patience.asked()
        assert patience.waited(seconds, 12)


def test_a_login_earns_nothing() -> None:
    patience = Patience(TIMEOUT)
    for _ in range(TIMEOUTS * 2 - 1):
        patience.asked()
        assert patience.waited(TIMEOUT / 2, 1000)
    patience.asked()
    assert not patience.waited(TIMEOUT / 2, 1000)


def test_a_greeting_without_end_is_none() -> None:
    patience = Patience(TIMEOUT)
    assert patience.waited(0, GREETING_OCTETS)
    assert not patience.waited(0, 1)


# -- on sockets --------------------------------------------------------------------------------------------------------


@contextmanager
def dripping(first: bytes, drip: bytes = b"x", every: float = 0.02) -> Iterator[int]:
    """The port of a server that says this, and then one drip after the other for ever."""
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        try:
            sock.sendall(first)
            while not over.wait(every):
                sock.sendall(drip)
        except OSError:
            pass
        finally:
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        over.set()
        thread.join(10)


def reach_imap(port: int) -> None:
    connect(ImapSettings("127.0.0.1", USER, PASSWORD, port=port, tls="none", timeout=0.1)).close()


def reach_pop3(port: int) -> None:
    connect_pop3(Pop3Settings("127.0.0.1", USER, PASSWORD, port=port, tls="none", timeout=0.1)).close()


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b"*"),  # never a line
        (b"", b"* OK [x\r\n"),  # never a greeting of use
        (b"* OK ready\r\n", b"* OK still here\r\n"),  # never an answer
        (b"* OK ready\r\n", b"x" * 20_000),  # no line ever ends, however fast
    ],
)
def test_a_dripping_imap_server_gets_no_login(first: bytes, drip: bytes) -> None:
    with dripping(first, drip) as port:
        began = time.monotonic()
        with pytest.raises(ServerError):
            reach_imap(port)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("first", "drip"), [(b"", b"+"), (b"+OK ready\r\n", b"+"), (b"+OK ready\r\n+OK\r\n", b"A\r\n")]
)
def test_a_dripping_pop3_server_gets_no_login(first: bytes, drip: bytes) -> None:
    with dripping(first, drip) as port, pytest.raises(ServerError):
        reach_pop3(port)


def test_an_answer_that_drips_for_ever_is_a_lost_connection() -> None:
    with ScriptedImap() as server:
        settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=0.1)
        with connect(settings) as connection:
            over = threading.Event()

            def drip() -> None:
                with contextlib.suppress(OSError):  # we close the connection
                    while not over.wait(0.02):
                        server.say(b".")

            server.on(rb"NOOP", b"* OK wait")
            tag = connection.send(b"NOOP")
            thread = threading.Thread(target=drip)
            thread.start()
            with pytest.raises(ConnectionLost, match="so little"):
                connection.wait(tag)
            over.set()
            thread.join()


def test_a_goodbye_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backupd.wire.stream._GOODBYE_SECONDS", 0.3)
    over = threading.Event()
    with ScriptedImap() as server:
        settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=60)
        connection = connect(settings)

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    server.say(b"* OK wait\r\n")

        server.on(rb"LOGOUT", b"* OK wait\r\n")
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        connection.logout()
        assert connection.closed
        assert time.monotonic() - began < 10
        over.set()


def test_who_drips_a_tls_record_keeps_nobody_from_working(authority: Authority, tmp_path: Path) -> None:
    """A part of a record makes the socket readable, and still nothing can be read: others have their turn meanwhile."""
    authority.write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)

    def shake() -> None:
        while True:
            try:
                server.do_handshake()
            except ssl.SSLWantReadError:
                theirs.sendall(outgoing.read())
                incoming.write(theirs.recv(65536))
            else:
                theirs.sendall(outgoing.read())
                return

    shaking = threading.Thread(target=shake)
    shaking.start()
    stream = Stream(wrap(ours, "127.0.0.1", "test:1", Trust(tmp_path / "ca.pem")), "test:1", timeout=5)
    shaking.join()
    server.write(b"* OK a whole line\r\n")
    record = outgoing.read()
    theirs.sendall(record[:-1])
    worked, lines = threading.Event(), list[bytes]()

    def work() -> None:
        with TURN:
            worked.set()

    def read() -> None:
        with TURN:
            threading.Thread(target=work).start()
            lines.append(stream.line())

    reading = threading.Thread(target=read)
    reading.start()
    assert worked.wait(3)
    assert lines == []
    theirs.sendall(record[-1:])
    reading.join()
    assert lines == [b"* OK a whole line"]
    stream.close()
    theirs.close()


def test_a_handshake_that_never_ends_is_given_up(authority: Authority, tmp_path: Path) -> None:
    authority.write(tmp_path)
    settings = {"tls": "implicit", "timeout": 0.3, "ca_file": tmp_path / "ca.pem"}
    # The head of a record of 16 KiB, and then an octet of it now and then.
    with dripping(b"\x16\x03\x03\x40\x00", b"\0") as port, pytest.raises(ConnectionFailed, match="handshake"):
        connect(ImapSettings("127.0.0.1", USER, PASSWORD, port=port, **settings))  # type: ignore[arg-type]


Reach = Callable[[int], None]


@pytest.mark.parametrize("reach", [reach_imap, reach_pop3])
def test_a_server_that_says_nothing_at_all_is_given_up(reach: Reach) -> None:
    with dripping(b"", b"") as port, pytest.raises(ConnectionFailed, match="sent nothing"):
        reach(port)
