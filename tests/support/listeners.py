"""Servers on loopback to which notifications and pings are sent: HTTP and SMTP, well or badly behaved."""

from __future__ import annotations

import email
import email.policy
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

SECONDS = 20.0
"""Longer than anything here takes; whoever waits longer waits for nothing."""


class Request(NamedTuple):
    """What was asked for."""

    path: str
    body: str


class HttpListener:
    """Keeps what it is asked for. answers: status codes, in turn, of the next requests; then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.requests: queue.Queue[Request] = queue.Queue()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                listener.requests.put(Request(self.path, body.decode()))
                code = listener.answers.pop(0) if listener.answers else 200
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the base's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, scheme: str = "http", path: str = "") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def next(self) -> Request:
        """The next request; it must come."""
        return self.requests.get(timeout=SECONDS)

    def so_far(self) -> list[Request]:
        """Requests that nobody looked at yet."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self.requests.get_nowait())
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class SmtpListener:
    """Keeps the mail it is sent. refuse: it takes none."""

    def __init__(self) -> None:
        self.mails: queue.Queue[EmailMessage] = queue.Queue()
        self.refuse = False
        self._controller = Controller(self, hostname="127.0.0.1", port=_free_port(), ready_timeout=SECONDS)
        self._controller.start()
        self.port = int(self._controller.port)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return "554 5.7.1 no mail from you today"
        self.mails.put(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    def next(self) -> EmailMessage:
        """The next mail; it must come."""
        return self.mails.get(timeout=SECONDS)

    def close(self) -> None:
        self._controller.stop()


@contextmanager
def silent(say: bytes = b"", every: float = 0.0) -> Iterator[int]:
    """A port where connections are taken and nothing is ever answered; or an octet of `say` now and then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        end = threading.Event()
        taken: list[socket.socket] = []

        def drip(connection: socket.socket) -> None:
            with suppress(OSError):
                for octet in say:
                    connection.sendall(bytes([octet]))
                    end.wait(every)

        def serve() -> None:
            while not end.is_set():
                with suppress(TimeoutError):
                    taken.append(server.accept()[0])
                    if say:
                        threading.Thread(target=drip, args=(taken[-1],), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            end.set()
            thread.join()
            for connection in taken:
                connection.close()


def nobody() -> int:
    """A port where nobody listens."""
    return _free_port()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition: Any) -> None:
    """Wait until it holds; it must come to hold."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
