"""A small HTTP/1.1 server for health and control: one request a connection, on sockets that are bound already.

h11 reads the protocol; asyncio waits for the clients, however many there are and however slow, on one thread. What is
asked for is made on few others. Whoever is not done asking in time is cut off, and when there are too many at once the
one who has waited longest without asking goes: a client that means harm takes no other one's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Self
from urllib.parse import parse_qs

import h11
import structlog

MOST_HEAD = 16 << 10
"""Octets of a request line and its header fields."""
MOST_BODY = 256 << 10
"""Octets of a request's body: the names of all accounts of a large installation."""
MOST_CONNECTIONS = 64
"""Of each socket at once."""
SECONDS = 10.0
"""For a client to ask, and again to take the answer."""
_LINGER_SECONDS = 1.0
_THREADS = 2

log = structlog.get_logger("backupd.web")


class Request(NamedTuple):
    """method: upper case. path: without the query, which is decoded. host: of the Host field, None without one."""

    method: str
    path: str
    query: dict[str, list[str]]
    host: str | None
    body: bytes


class Response(NamedTuple):
    """status: of HTTP. body: what `kind` says, a media type. allow: methods, with a 405."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    allow: str = ""

    @classmethod
    def line(cls, status: int, text: str) -> Self:
        """One line of text."""
        return cls(status, f"{text}\n".encode())


App = Callable[[Request], Response]
"""Makes the answer to a request, on a thread of the server's."""


class HttpServer:
    """Serves each socket with its app, from threads of its own, from `start` to `close`, which closes the sockets.

    Args:
        seconds: for a client to ask, and again to take the answer.
        connections: most at once of each socket.
    """

    def __init__(
        self,
        places: Sequence[tuple[socket.socket, App]],
        *,
        seconds: float = SECONDS,
        connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._places = [_Place(listening, app, seconds, connections) for listening, app in places]
        self._running = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="web", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()
        self._running.wait()

    def close(self) -> None:
        """Serve no longer. What is being asked for is cut off."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(SECONDS)
        for place in self._places:
            place.socket.close()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_unexpected)
        try:
            async with contextlib.AsyncExitStack() as open_places:
                for place in self._places:
                    await open_places.enter_async_context(place.serving())
                self._running.set()
                await self._ended.wait()
        finally:
            self._running.set()


class _Place:
    """One socket, who is connected to it, and the threads that make its answers."""

    def __init__(self, listening: socket.socket, app: App, seconds: float, connections: int) -> None:
        self.socket, self._app, self._seconds, self._most = listening, app, seconds, connections
        self._asking: dict[asyncio.Task[None], None] = {}
        self._served: dict[asyncio.Task[None], None] = {}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """As long as this lasts, whoever connects is served."""
        start = asyncio.start_unix_server if self.socket.family == socket.AF_UNIX else asyncio.start_server
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="web")
        server = await start(self._connected, sock=self.socket, limit=MOST_HEAD, backlog=128)
        try:
            yield
        finally:
            server.close()
            for task in [*self._asking, *self._served]:
                task.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._asking) + len(self._served) >= self._most:
            next(iter([*self._asking, *self._served])).cancel()
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._asking[task] = None
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._asking.pop(task, None)
        self._served.pop(task, None)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        writer.transport.set_write_buffer_limits(0)  # drain() waits until everything is sent
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    request = await _receive(connection, reader)
            except h11.RemoteProtocolError as error:
                answer, whole = Response.line(error.error_status_hint, HTTPStatus(error.error_status_hint).phrase), True
            else:
                if request is None:
                    return
                self._has_asked()
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, request)
                whole = request.method != "HEAD"
            async with asyncio.timeout(self._seconds):
                await _send(connection, writer, answer, whole=whole)
                await _linger(reader, writer)
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # too slow, gone, or talking nonsense: there is nobody to tell
        finally:
            writer.transport.abort()

    def _has_asked(self) -> None:
        task = asyncio.current_task()
        if task in self._asking:
            del self._asking[task]
            self._served[task] = None

    def _answer(self, request: Request) -> Response:
        try:
            return self._app(request)
        except Exception:  # whoever asks must not bring the server down
            log.exception("a request could not be answered", path=request.path)
            return Response.line(500, "an error in backupd itself; its log has more")


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The request, with its body; None of a client that leaves. Raises h11.RemoteProtocolError."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MOST_HEAD))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MOST_BODY:
                raise h11.RemoteProtocolError("too much", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body))
        else:
            return None


def _request(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("ascii", "replace").partition("?")
    host = next((value.decode("ascii", "replace") for name, value in head.headers if name == b"host"), None)
    try:
        wanted = parse_qs(query, keep_blank_values=True, max_num_fields=10_000)
    except ValueError as error:
        raise h11.RemoteProtocolError("too many fields in the query", error_status_hint=400) from error
    return Request(head.method.decode("ascii"), path, wanted, host, body)


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Response, *, whole: bool) -> None:
    """Send the answer; not whole: its header fields alone, as HEAD wants it."""
    fields = [
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.body))),
        ("Date", formatdate(usegmt=True)),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
    ]
    if answer.allow:
        fields.append(("Allow", answer.allow))
    reason = HTTPStatus(answer.status).phrase.encode("ascii")
    out = connection.send(h11.Response(status_code=answer.status, headers=fields, reason=reason)) or b""
    if whole:
        out += connection.send(h11.Data(data=answer.body)) or b""
    out += connection.send(h11.EndOfMessage()) or b""
    writer.write(out)
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client take what was sent: the system drops it when what the client sent is not read (RFC 9112, 9.6)."""
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            for _ in range(64):
                if not await reader.read(MOST_HEAD):
                    break


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    log.error("the web server met an error", why=context.get("message"), error=repr(context.get("exception")))
