"""An HTTP proxy before a real S3 server, which spoils chosen requests and answers, and counts them all.

Clients sign the host they talk to, and the request goes on as it came, so the server accepts what passes through.
A fault is a function of the request and of what hands it on; it may do either, both or neither, and change what passes.
"""

from __future__ import annotations

import http.client
import random
import re
import socketserver
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple


class Request(NamedTuple):
    """What came: the path with its query, and the headers by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What goes back. status: 0 sends the body alone, as it is. cut: octets of the body after which the connection
    ends, though more were announced.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut: int | None = None


Forward = Callable[[Request], Answer]
Fault = Callable[[Request, Forward], Answer | None]
"""Gives the answer, or None to end the connection without one."""


@dataclass
class _Plan:
    fault: Fault
    method: re.Pattern[str]
    path: re.Pattern[str]
    times: float
    after: int


class FaultyProxy:
    """Listens on a free loopback port, and hands everything on to `port` as long as no fault is planned.

    requests: all that came, without their bodies. released: set when those that hang are let go.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._port = port
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    self.raw_requestline = self.rfile.readline(65537)
                    if not self.raw_requestline or not self.parse_request():
                        self.close_connection = True
                        return
                    proxy._serve(self)
                except (OSError, http.client.HTTPException):  # either side has gone
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)
                self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, fault: Fault, *, method: str = "", path: str = "", times: float = 1, after: int = 0) -> None:
        """Spoil the next so many requests in whose method and path these patterns are found.

        after: how many of them pass before. The plan that was made first goes first.
        """
        with self._lock:
            self._plans.append(_Plan(fault, re.compile(method), re.compile(path), times, after))

    def mend(self) -> None:
        """Spoil nothing any more, and count from nought."""
        with self._lock:
            self._plans.clear()
            self.requests.clear()

    def count(self, method: str, path: str = "") -> int:
        """How many requests of this method came, with the pattern in their path."""
        with self._lock:
            return sum(each.method == method and re.search(path, each.path) is not None for each in self.requests)

    def close(self) -> None:
        """Let go of whoever hangs, and end."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", "0")))
        request = Request(handler.command, handler.path, headers, body)
        with self._lock:
            self.requests.append(request._replace(body=b""))
            fault = self._fault_for(request)
        answer = fault(request, self._forward) if fault else self._forward(request)
        if answer is None:
            handler.close_connection = True
            return
        if not answer.status:
            handler.wfile.write(answer.body)
            handler.close_connection = True
            return
        names = {name.lower() for name, _ in answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if "content-length" not in names and answer.status not in (204, 304):
            lines.append(f"Content-Length: {len(answer.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        handler.wfile.write(head + answer.body[: answer.cut])  # at once: a second write waits for the other side
        if answer.cut is not None:
            handler.close_connection = True

    def _fault_for(self, request: Request) -> Fault | None:
        for plan in self._plans:
            if plan.times and plan.method.search(request.method) and plan.path.search(request.path):
                if plan.after:
                    plan.after -= 1
                    continue
                plan.times -= 1
                return plan.fault
        return None

    def _forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            body = answer.read()
            passed = [
                (name, value) for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "keep-alive")
            ]  # fmt: skip
            return Answer(answer.status, passed, body)
        finally:
            connection.close()


# -- faults ------------------------------------------------------------------------------------------------------------


def refuse(status: int, code: str = "", message: str = "", **more: str) -> Fault:
    """Answer with an error, and ask the server nothing. more: further elements of the error."""
    elements = {"Code": code, "Message": message, **more}
    text = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items() if value)
    body = f"<Error>{text}</Error>".encode() if text else b""

    def fault(request: Request, _: Forward) -> Answer:
        return Answer(status, [("Content-Type", "application/xml")], b"" if request.method == "HEAD" else body)

    return fault


def reply(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer so, and ask the server nothing."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return lambda request, _: Answer(status, named, b"" if request.method == "HEAD" else body)


def pass_on(request: Request, forward: Forward) -> Answer:
    """No fault at all."""
    return forward(request)


def drop(_: Request, __: Forward) -> None:
    """End the connection without an answer; the server hears nothing."""


def lose_the_answer(request: Request, forward: Forward) -> None:
    """The server does what it is asked to, and nobody hears of it."""
    forward(request)


def cut(octets: int) -> Fault:
    """End the connection after so many octets of the answer's body."""
    return lambda request, forward: forward(request)._replace(cut=octets)


def change_the_answer(request: Request, forward: Forward) -> Answer:
    """One octet of the body arrives as another one."""
    answer = forward(request)
    return answer._replace(body=_changed(answer.body))


def change_the_request(request: Request, forward: Forward) -> Answer:
    """One octet of what is sent arrives as another one."""
    return forward(request._replace(body=_changed(request.body)))


def without(header: str, *, access_key: str, secret_key: str) -> Fault:
    """The server does not see this header of the request, such as one that it would not know.

    What is left is signed again with these keys: headers are part of what is signed.
    """
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(access_key, secret_key)

    def fault(request: Request, forward: Forward) -> Answer:
        left = {name: value for name, value in request.headers.items() if name not in (header, "authorization")}
        url = f"http://{left['host']}{request.path}"
        signed = AWSRequest(request.method, url, headers=left, data=request.body)
        S3SigV4Auth(keys, "s3", "us-east-1").add_auth(signed)
        return forward(request._replace(headers={name.lower(): str(value) for name, value in signed.headers.items()}))

    return fault


def hang(proxy: FaultyProxy) -> Fault:
    """Say nothing until the proxy is closed."""

    def fault(_: Request, __: Forward) -> None:
        proxy.released.wait()

    return fault


def sometimes(share: float, faults: Sequence[Fault], seed: int) -> Fault:
    """One of the faults by chance, in a `share` (0 to 1) of the requests; the others pass."""
    chance = random.Random(seed)
    drawing = threading.Lock()

    def fault(request: Request, forward: Forward) -> Answer | None:
        with drawing:
            chosen = chance.choice(faults) if chance.random() < share else pass_on
        return chosen(request, forward)

    return fault


def _changed(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body
