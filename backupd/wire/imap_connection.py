"""One IMAP connection: commands go out (pipelined if wished), answers come in, errors are ours.

It knows how to reach a server and how to speak; which commands are sent is for sources and targets to decide. Not
thread-safe. After ConnectionLost or ProtocolError a connection is closed for good: open another.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple

from backupd import __version__
from backupd.errors import (
    CertificateRefused,
    ConnectionFailed,
    ProtocolError,
    ServerError,
    ServerRefused,
)
from backupd.wire import imap_login, throttling, tls
from backupd.wire.imap_commands import Literal, Part, string
from backupd.wire.imap_fetch import Fetch, FetchReader, from_untagged
from backupd.wire.imap_parser import Continuation, Response, Status, Tagged, Untagged, Value
from backupd.wire.imap_settings import ImapSettings
from backupd.wire.imap_stream import ImapStream
from backupd.wire.stream import BUFFER_OCTETS, show
from backupd.wire.stream import connect as connected

__all__ = ["Answer", "Fetch", "ImapConnection", "ImapSettings", "Literal", "connect", "string"]

LITERAL_MINUS_OCTETS = 4096
"""RFC 7888, 5: with LITERAL-, a literal up to this size needs no leave of the server."""


class Answer(NamedTuple):
    """What came before a command's end, and how it ended."""

    untagged: list[Untagged]
    status: Status

    def of(self, kind: bytes) -> Iterator[Untagged]:
        """The untagged answers of one kind, such as b"LIST"."""
        return (one for one in self.untagged if one.kind == kind)

    def code(self, code: bytes) -> list[Value] | None:
        """Arguments of a response code in any of the answers' OK, NO or tagged lines; None where it did not come."""
        states = [self.status, *(one.status for one in self.untagged if one.status)]
        return next((state.arguments for state in states if state.code == code), None)


class ImapConnection:
    """A connection, logged in when it comes from `connect`.

    capabilities: as the server announced after login, upper case. enabled: what ENABLE gave. server: what ID said, such
    as {b"name": b"Dovecot"}.
    """

    def __init__(self, stream: ImapStream, address: str) -> None:
        self.stream = stream
        self.address = address
        self.capabilities: frozenset[bytes] = frozenset()
        self.enabled: frozenset[bytes] = frozenset()
        self.server: dict[bytes, bytes] = {}
        self._tags = 0
        self._waiting: set[bytes] = set()
        self._early: deque[Response] = deque()
        self._done: dict[bytes, Tagged] = {}
        self._leaving = False

    def __enter__(self) -> ImapConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.logout() if error is None else self.close()

    @property
    def closed(self) -> bool:
        """Whether it is of no more use."""
        return self.stream.closed

    def has(self, *capabilities: bytes) -> bool:
        """Whether the server announced all of these."""
        return all(one.upper() in self.capabilities for one in capabilities)

    # -- commands ------------------------------------------------------------------------------------------------------

    def send(self, *parts: Part) -> bytes:
        """Send a command, its parts joined by spaces, and return its tag at once; `wait` or `fetches` take the answer.

        Commands may be pipelined as long as their answers are short, or are read. A literal that needs the server's
        leave (no LITERAL+) is waited for here; when the server refuses, the rest is not sent.
        """
        self._tags += 1
        tag = b"b%d" % self._tags
        self._waiting.add(tag)
        out = bytearray(tag)
        for part in parts:
            out += b" "
            if not isinstance(part, Literal):
                out += part
                continue
            free = self.has(b"LITERAL+") or (part.size <= LITERAL_MINUS_OCTETS and self.has(b"LITERAL-"))
            out += b"%s{%d%s}\r\n" % (b"~" if part.binary else b"", part.size, b"+" if free else b"")
            if not free:
                self.stream.send(out)
                out.clear()
                if not self._may_go_on(tag):
                    return tag
            for chunk in part.chunks():
                if len(out) + len(chunk) > 1 << 16:
                    self.stream.send(out)
                    out.clear()
                    self.stream.send(chunk)
                else:
                    out += chunk
        self.stream.send(out + b"\r\n")
        return tag

    def _may_go_on(self, tag: bytes) -> bool:
        while True:
            response = self._checked(self.stream.response())
            if isinstance(response, Continuation):
                return True
            if isinstance(response, Tagged) and response.tag == tag:
                self._done[tag] = response
                return False
            self._early.append(response)

    def wait(self, tag: bytes) -> Answer:
        """Everything up to the end of a command. Large literals are refused; use `fetches` for those.

        Untagged answers of commands pipelined before it that were not waited for come along.
        """
        untagged: list[Untagged] = []
        while True:
            response = self._done.pop(tag, None) or self._next()
            if isinstance(response, Untagged):
                untagged.append(response)
            elif isinstance(response, Tagged):
                if response.tag == tag:
                    self._waiting.discard(tag)
                    return Answer(untagged, response.status)
                self._done[response.tag] = response

    def command(self, *parts: Part) -> Answer:
        """Send a command and wait for its end. Raises ServerRefused when it is NO or BAD."""
        answer = self.wait(self.send(*parts))
        self.check(answer.status, parts)
        return answer

    def check(self, status: Status, parts: Iterable[Part]) -> None:
        """Raise ServerRefused unless the status is OK."""
        if status.kind != b"OK":
            words = b" ".join(part for part in parts if isinstance(part, bytes))
            raise ServerRefused(
                f"the server refused {show(words, 80)}: {show(status.text) or show(status.code)}",
                code=status.code,
                subject=self.address,
            )

    def fetches(self, tag: bytes) -> Iterator[Fetch | Untagged | Tagged]:
        """The answers to a FETCH command as they come, lazily; the last is the Tagged one. This is the hot path."""
        reader = FetchReader(self.stream)
        while True:
            if tag in self._done:
                self._waiting.discard(tag)
                yield self._done.pop(tag)
                return
            if not self._early:
                yield from reader.run()
            response = self._next()
            if isinstance(response, Tagged):
                self._done[response.tag] = response
            elif isinstance(response, Untagged):
                if response.kind == b"FETCH":
                    reader.learn(response)
                    yield self._fetch(response)
                else:
                    yield response

    def _fetch(self, response: Untagged) -> Fetch:
        try:
            return from_untagged(response)
        except ProtocolError as error:
            raise self.stream.broken(error) from None

    def continuation(self) -> bytes | None:
        """Wait for the server's `+`, and return its text; None when the command ended instead (`wait` tells how)."""
        while True:
            response = self._checked(self.stream.response())
            if isinstance(response, Continuation):
                return response.text
            if isinstance(response, Tagged):
                self._done[response.tag] = response
                return None
            self._early.append(response)

    def _next(self) -> Response:
        return self._early.popleft() if self._early else self._checked(self.stream.response())

    def _checked(self, response: Response) -> Response:
        if isinstance(response, Untagged) and response.kind == b"BYE" and not self._leaving:
            status = response.status or Status(b"BYE", b"", [], b"")
            if found := throttling.wish(status.code, status.text):
                self.close()
                raise throttling.throttled(found, show(status.text), subject=self.address)
            raise self.stream.lost(f"the server ended the session: {show(status.text)}")
        if isinstance(response, Tagged) and response.tag not in self._waiting:
            raise self.stream.broken(ProtocolError(f"an answer to a command never sent: {show(response.tag)}"))
        return response

    # -- the session ---------------------------------------------------------------------------------------------------

    def learn_capabilities(self, answer: Answer | None = None) -> None:
        """Take capabilities from an answer that brings them along, else ask for them."""
        found = _capabilities(answer) if answer else None
        self.capabilities = found or _capabilities(self.command(b"CAPABILITY")) or frozenset()

    def introduce(self) -> None:
        """Say who we are (RFC 2971; some providers insist), and enable QRESYNC (RFC 7162) where it is; one round trip.

        UTF8=ACCEPT is left alone: it would change how names are written.
        """
        identify = self.send(b'ID ("name" "backupd" "version" "%s")' % __version__.encode()) if self.has(b"ID") else b""
        wanted = b"QRESYNC" if self.has(b"QRESYNC") else b"CONDSTORE"
        enable = self.send(b"ENABLE " + wanted) if self.has(b"ENABLE", wanted) else b""
        untagged: list[Untagged] = []
        for tag in filter(None, (identify, enable)):
            untagged += self.wait(tag).untagged
        for one in untagged:
            if one.kind == b"ENABLED":
                self.enabled |= {value.upper() for value in one.values if isinstance(value, bytes)}
            elif one.kind == b"ID" and one.values and isinstance(one.values[0], list):
                said = one.values[0]
                self.server = {
                    key.lower(): value
                    for key, value in zip(said[::2], said[1::2], strict=False)
                    if isinstance(key, bytes) and isinstance(value, bytes)
                }

    def logout(self) -> None:
        """Say goodbye and close; never raises."""
        with contextlib.suppress(ServerError):
            if not self.closed and not self._waiting:
                self._leaving = True
                self.stream.hurry()
                self.wait(self.send(b"LOGOUT"))
        self.close()

    def close(self) -> None:
        """Cut the connection; never raises."""
        self.stream.close()


def _capabilities(answer: Answer) -> frozenset[bytes] | None:
    listed = [one.values for one in answer.of(b"CAPABILITY")]
    listed += [values] if (values := answer.code(b"CAPABILITY")) else []
    return frozenset(word.upper() for word in listed[-1] if isinstance(word, bytes)) if listed else None


def _socket(settings: ImapSettings) -> socket.socket:
    return connected(settings.host, settings.port, settings.timeout, settings.address)


def _open(settings: ImapSettings, buffer_octets: int = BUFFER_OCTETS) -> ImapConnection:
    """Connected and greeted, and for starttls at the point where the handshake begins."""
    sock = _socket(settings)
    if settings.tls == "implicit":
        sock = tls.wrap(sock, settings.host, settings.address, settings.trust, lambda: _socket(settings))
    stream = ImapStream(
        sock,
        settings.address,
        spool_folder=settings.spool_folder,
        timeout=settings.timeout,
        flow=settings.flow,
        buffer_octets=buffer_octets,
    )
    connection = ImapConnection(stream, settings.address)
    try:
        greeting = stream.response()
    except ServerError as error:
        stream.close()
        raise ConnectionFailed(
            f"no greeting of an IMAP server: {error.what}",
            subject=settings.address,
            remedy="check port and tls: implicit is for 993, starttls for 143",
        ) from None
    status = greeting.status if isinstance(greeting, Untagged) else None
    if status is None or status.kind not in (b"OK", b"PREAUTH"):
        stream.close()
        if status and (found := throttling.wish(status.code, status.text)):
            raise throttling.throttled(found, show(status.text), subject=settings.address)
        text = show(status.text) if status else "not an IMAP server"
        raise ConnectionFailed(f"the server does not want us now: {text}", subject=settings.address)
    if settings.tls != "starttls":
        connection.learn_capabilities(Answer([], status))
        return connection
    if status.kind == b"PREAUTH":  # STARTTLS is not allowed then: a way to strip TLS (RFC 3501, 7.1.4)
        stream.close()
        raise CertificateRefused("the server wants to begin without TLS", subject=settings.address)
    answer = connection.wait(connection.send(b"STARTTLS"))
    if answer.status.kind != b"OK":
        stream.close()
        raise CertificateRefused(
            f"the server does not offer STARTTLS: {show(answer.status.text)}",
            subject=settings.address,
            remedy="use tls: implicit, usually on port 993; nothing was sent without TLS",
        )
    return connection


def connect(settings: ImapSettings, *, buffer_octets: int = BUFFER_OCTETS) -> ImapConnection:
    """Connect, make sure that it is the server, and log in.

    buffer_octets: how much is read at once; little for a connection that mostly waits.

    Raises ConnectionFailed, CertificateRefused, LoginRefused, Throttled (or ConnectionLost, ProtocolError on the way).
    """
    connection = _open(settings, buffer_octets)
    try:
        if settings.tls == "starttls":
            connection.stream.switch(
                lambda sock: tls.wrap(
                    sock, settings.host, settings.address, settings.trust, lambda: _open(settings).stream.sock
                )
            )
            connection.learn_capabilities()  # what was announced before the handshake counts for nothing
        imap_login.log_in(connection, settings)
        connection.stream.logged_in()
        connection.introduce()
    except BaseException:
        connection.close()
        raise
    return connection
