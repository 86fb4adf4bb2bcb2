"""The HTTP server against clients that know how to ask, and those that mean harm."""

from __future__ import annotations

import http.client
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.daemon.http_server import MOST_BODY, MOST_HEAD, App, HttpServer, Request, Response
from backupd.daemon.sockets import listen_tcp, listen_unix, reachable

Connect = Callable[[], socket.socket]


def echo(request: Request) -> Response:
    if request.path == "/broken":
        raise RuntimeError("no")
    if request.path == "/large":
        return Response(200, b"x" * 20_000_000)
    return Response.line(200, f"{request.method} {request.path} {request.query} {request.host} {len(request.body)}")


@contextmanager
def serving(app: App = echo, **options: float) -> Iterator[Connect]:
    """A server on a loopback port; what connects to it."""
    bound = listen_tcp("127.0.0.1", 0)
    server = HttpServer([(bound.socket, app)], **options)  # type: ignore[arg-type]
    server.start()
    try:
        yield lambda: socket.create_connection(bound.socket.getsockname(), timeout=20)
    finally:
        server.close()
        bound.close()


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    with serving(seconds=2.0, connections=16) as connect:
        yield connect


def said(connect: Connect, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that is answered to these octets, until the server ends the connection."""
    with connect() as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        return everything(client)


def everything(client: socket.socket) -> bytes:
    found = bytearray()
    while data := client.recv(65536):
        found += data
    return bytes(found)


def get(connect: Connect, path: str = "/") -> bytes:
    return said(connect, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def test_what_was_asked_for_arrives_whole(connect: Connect) -> None:
    body = b"b" * 1000
    head = b"POST /a%20b?x=1&x=%C3%A4&y= HTTP/1.1\r\nHost: here:1\r\nContent-Length: 1000\r\n\r\n"
    answer = said(connect, head, body[:10], body[10:], pause=0.05)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith("POST /a%20b {'x': ['1', 'ä'], 'y': ['']} here:1 1000\n".encode())


def test_pythons_own_client_understands_the_answer(connect: Connect) -> None:
    with connect() as client:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = client
        connection.request("GET", "/here")
        answer = connection.getresponse()
        assert (answer.status, answer.read().split()[1]) == (200, b"/here")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Server"] is None
        assert answer.headers["Connection"] == "close"


def test_head_gives_the_head_alone(connect: Connect) -> None:
    answer = said(connect, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_a_client_of_http_1_0_needs_no_host(connect: Connect) -> None:
    assert b"GET / {} None 0" in said(connect, b"GET / HTTP/1.0\r\n\r\n")


def test_a_large_answer_arrives_whole_also_where_it_is_read_slowly(connect: Connect) -> None:
    with connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        assert len(everything(client).partition(b"\r\n\r\n")[2]) == 20_000_000


def test_a_bug_in_what_answers_is_an_answer(connect: Connect) -> None:
    assert get(connect, "/broken").startswith(b"HTTP/1.1 500 ")
    assert get(connect).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2 * MOST_HEAD + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 2 * MOST_HEAD + b" HTTP/1.1\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n" + b"x" * (MOST_BODY + 1), b"413"),
        (b"GET /?" + b"&" * 10_001 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(connect: Connect, asked: bytes, status: bytes) -> None:
    assert said(connect, asked).split()[1] == status
    assert get(connect).startswith(b"HTTP/1.1 200 ")


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_no_octets_bring_it_down(connect: Connect, junk: bytes) -> None:
    with connect() as client:
        client.sendall(junk)
        client.shutdown(socket.SHUT_WR)
        answer = everything(client)
    assert not answer or answer.startswith(b"HTTP/1.1 ")


def test_whoever_sends_a_byte_now_and_then_is_cut_off_in_time() -> None:
    with serving(seconds=0.5) as connect, connect() as client:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012 - which of the bytes meets the closed connection is not said
            for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:
                client.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_whoever_does_not_take_the_answer_is_cut_off_in_time() -> None:
    with serving(seconds=0.5) as connect, connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(2)
        assert len(everything(client)) < 20_000_000, "the rest was dropped, and the connection ended"


def test_a_thousand_silent_connections_keep_nobody_from_an_answer() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        with serving(seconds=30.0, connections=32) as connect, ExitStack() as held:
            slowest = 0.0
            for number in range(1000):
                held.enter_context(connect()).sendall(b"GET / HTTP/1.1\r\n")
                if number % 50 == 0:
                    began = time.monotonic()
                    assert get(connect).startswith(b"HTTP/1.1 200 ")
                    slowest = max(slowest, time.monotonic() - began)
            assert slowest < 5, "the time-out of the others is 30 s"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_who_ask_at_once_all_get_an_answer() -> None:
    answers: list[bytes] = []
    with serving(connections=64) as connect:
        threads = [threading.Thread(target=lambda: answers.append(get(connect))) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 50


def test_its_threads_are_few_and_end_with_it() -> None:
    before = threading.active_count()
    with serving() as connect:
        for _ in range(20):
            get(connect)
        assert threading.active_count() - before <= 3
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_serves_with_more_files_open_than_select_can_take() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        with ExitStack() as held:
            for _ in range(1100):
                held.enter_context(Path("/dev/null").open())
            with serving() as connect:
                assert get(connect).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_unix_socket_is_served_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    bound = listen_unix(path, 0o600)
    server = HttpServer([(bound.socket, echo)])
    server.start()

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with reachable(path) as name:
            client.connect(name)
        return client

    assert get(connect, "/here").endswith(b"GET /here {} localhost 0\n")
    server.close()
    bound.close()
    assert not path.exists()
