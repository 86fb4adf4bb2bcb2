"""A connection to a POP3 server: greeted, made safe, logged in (RFC 1939, RFC 2449, RFC 2595)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator

from backupd.errors import CertificateRefused, ConnectionFailed, ServerError, ServerRefused, Throttled
from backupd.wire import pop3_login, throttling, tls
from backupd.wire.pop3_settings import Pop3Settings
from backupd.wire.pop3_stream import MOST_OCTETS, Pop3Stream, Reply
from backupd.wire.spool import SpooledBody
from backupd.wire.stream import connect as connected

_TIMESTAMP = re.compile(rb"<[!-;=?-~]+>")
_LATER_CODES = frozenset({"IN-USE", "LOGIN-DELAY", "SYS/TEMP"})
_LATER_WORDS = re.compile(
    r"in use|is locked|lock on|already locked|\block (?:the )?mail|maildrop lock|mailbox lock|busy|"
    r"try (?:it )?(?:again|later)|too many|"
    r"temporar|too frequent|minimum interval|exceeded the login limit",
    re.IGNORECASE,
)
_LONGEST_ANSWER = 1 << 20
_LONGEST_LISTING = 256 << 20
"""Octets: three million messages with the longest names that RFC 1939, 7 allows."""


class Pop3Connection:
    """Commands and their answers. Not thread-safe.

    capabilities: of CAPA, by name in upper case, each with its arguments; empty where the server has no CAPA.
    timestamp: of the greeting, for APOP; empty where there is none.
    """

    def __init__(self, stream: Pop3Stream, address: str, greeting: Reply) -> None:
        self.stream, self.address = stream, address
        self.greeting = greeting.text
        found = _TIMESTAMP.search(greeting.raw)
        self.timestamp = found[0] if found else b""
        self.capabilities: dict[str, tuple[str, ...]] = {}

    def send(self, *commands: bytes) -> None:
        """Send commands, without waiting for answers."""
        self.stream.send(b"".join(command + b"\r\n" for command in commands))

    def reply(self) -> Reply:
        """The next status line."""
        return self.stream.reply()

    def text(self, most: int = MOST_OCTETS) -> bytes | SpooledBody:
        """The lines after a status line. Raises ProtocolError when they are more than so many octets."""
        return self.stream.text(most)

    def command(self, command: bytes) -> Reply:
        """Send a command, and wait for its status line."""
        self.send(command)
        return self.reply()

    def lines(self, command: bytes) -> list[bytes] | None:
        """The lines that a command brings, which are few; None where the server refuses it."""
        return list(self.text_lines(_LONGEST_ANSWER)) if self.command(command).ok else None

    def text_lines(self, most: int = _LONGEST_LISTING) -> Iterator[bytes]:
        """The lines after a status line, one by one; to be read to their end. most: as of `text`."""
        text = self.text(most)
        held = b""
        for chunk in [text] if isinstance(text, bytes) else text.chunks():
            *lines, held = (held + chunk).split(b"\n")
            yield from (line.rstrip(b"\r") for line in lines)
        if held:
            yield held

    def learn_capabilities(self) -> None:
        """CAPA (RFC 2449, 5)."""
        lines = self.lines(b"CAPA")
        if lines is None:  # some refuse it after login: what they said before still holds
            return
        words = [line.decode("ascii", "replace").split() for line in lines]
        self.capabilities = {each[0].upper(): tuple(each[1:]) for each in words if each}

    def has(self, name: str) -> bool:
        """Whether CAPA named it."""
        return name in self.capabilities

    def refusal(self, what: str, reply: Reply) -> ServerError:
        """The error that an answer stands for (RFC 2449, 8; RFC 3206): one that may pass, or not."""
        return refusal(what, reply, self.address, self.capabilities)

    def close(self) -> None:
        """Cut the connection, so that the server deletes nothing; never raises."""
        self.stream.close()


def may_pass(reply: Reply) -> bool:
    """Whether what was refused may be granted later."""
    return reply.code in _LATER_CODES or (not reply.code and bool(_LATER_WORDS.search(reply.text)))


def refusal(what: str, reply: Reply, address: str, capabilities: dict[str, tuple[str, ...]]) -> ServerError:
    """See Pop3Connection.refusal. what: such as "the server refused the login"."""
    if found := throttling.wish(reply.code.encode(), reply.text.encode()):
        return throttling.throttled(found, reply.text, subject=address)
    said = f"{what}: {reply.text or 'it gives no reason'}"
    if may_pass(reply):
        delay = next(iter(capabilities.get("LOGIN-DELAY", ())), "")
        pause = float(delay) if reply.code == "LOGIN-DELAY" and delay.isdigit() else None
        return ConnectionFailed(
            said, subject=address, remedy="it may pass by itself; another try comes later", pause=pause
        )
    return ServerRefused(said, code=reply.code.encode(), subject=address)


def _socket(settings: Pop3Settings) -> socket.socket:
    return connected(settings.host, settings.port, settings.timeout, settings.address)


def _open(settings: Pop3Settings) -> Pop3Connection:
    """Connected and greeted, and for starttls at the point where the handshake begins."""
    sock = _socket(settings)
    if settings.tls == "implicit":
        sock = tls.wrap(sock, settings.host, settings.address, settings.trust, lambda: _socket(settings))
    stream = Pop3Stream(
        sock, settings.address, spool_folder=settings.spool_folder, timeout=settings.timeout, flow=settings.flow
    )
    try:
        greeting = stream.reply()
    except ServerError as error:
        stream.close()
        raise ConnectionFailed(
            f"no greeting of a POP3 server: {error.what}",
            subject=settings.address,
            remedy="check port and tls: implicit is for 995, starttls for 110",
        ) from None
    connection = Pop3Connection(stream, settings.address, greeting)
    if not greeting.ok:
        stream.close()
        refused = connection.refusal("the server does not want us now", greeting)
        if isinstance(refused, Throttled) or greeting.code == "SYS/PERM":
            raise refused
        raise ConnectionFailed(refused.what, subject=settings.address, remedy="another try comes later")
    if settings.tls == "starttls":
        reply = connection.command(b"STLS")
        if not reply.ok:
            stream.close()
            raise CertificateRefused(
                f"the server does not offer STLS: {reply.text}",
                subject=settings.address,
                remedy="use tls: implicit, usually on port 995; nothing was sent without TLS",
            )
    return connection


def connect(settings: Pop3Settings) -> Pop3Connection:
    """Connect, make sure that it is the server, and log in.

    Raises ConnectionFailed, CertificateRefused, LoginRefused, Throttled (or ConnectionLost, ProtocolError on the way).
    """
    connection = _open(settings)
    try:
        if settings.tls == "starttls":
            connection.stream.switch(
                lambda sock: tls.wrap(
                    sock, settings.host, settings.address, settings.trust, lambda: _open(settings).stream.sock
                )
            )
        # What was announced before a handshake counts for nothing, and so it is not even asked for (RFC 2595, 4).
        connection.learn_capabilities()
        pop3_login.log_in(connection, settings)
        connection.stream.logged_in()
        if connection.capabilities:
            connection.learn_capabilities()  # servers announce more to those they know
    except BaseException:
        connection.close()
        raise
    return connection


def names_of(capabilities: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Capabilities as they stand in a snapshot."""
    return tuple(sorted(" ".join((name, *arguments)) for name, arguments in capabilities))
