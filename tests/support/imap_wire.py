"""A minimal IMAP client for tests: bytes in, bytes out, written apart from the package so that it can judge it.

It knows just enough of RFC 3501 to drive Dovecot: literals, tagged answers, and FETCH answers in the order asked for.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple

from imapclient.imap_utf7 import encode as to_modified_utf7

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_FETCHED = re.compile(
    rb'\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\) INTERNALDATE "([^"]*)" BODY\[\] (?:\{\d+\}\r\n|(NIL|""))', re.DOTALL
)
_BATCH_OCTETS = 4 << 20


class Stored(NamedTuple):
    """One message as the server holds it. flags: sorted, without \\Recent; internaldate: the server's own string."""

    uid: int
    flags: tuple[bytes, ...]
    internaldate: bytes
    raw: bytes


class Delivery(NamedTuple):
    """One message to be appended. date: an INTERNALDATE such as b"17-Jul-1996 02:44:25 -0700", or None for now."""

    raw: bytes
    flags: tuple[bytes, ...] = ()
    date: bytes | None = None


class Refused(AssertionError):
    """The server answered NO or BAD: the test's set-up is wrong, or the server dislikes the message."""


Name = str | bytes


def encode_name(name: Name) -> bytes:
    """A mailbox name for the wire: text becomes modified UTF-7, bytes stay as they are."""
    return name if isinstance(name, bytes) else bytes(to_modified_utf7(name))


def quote(name: Name) -> bytes:
    """A mailbox name as an IMAP literal (non-synchronising), which can hold any byte but NUL."""
    raw = encode_name(name)
    return b"{%d+}\r\n%s" % (len(raw), raw)


class Wire:
    """One logged-in plain connection."""

    def __init__(self, host: str, port: int, username: str, password: str, *, timeout: float = 60) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 18)
        self._tags = 0
        greeting = self._file.readline()
        if not greeting.startswith(b"* OK"):
            raise Refused(f"greeting: {greeting!r}")
        self.command(b"LOGIN %s %s" % (quote(username.encode()), quote(password.encode())))

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut the connection; the server needs no goodbye."""
        self._file.close()
        self._socket.close()

    def command(self, *parts: bytes) -> list[bytes]:
        """Send one command and return its untagged answers, literals inlined. Raises Refused on NO and BAD.

        The tagged line's text comes last, so that a response code such as [APPENDUID ...] can be read.
        """
        return list(self.stream(*parts))

    def stream(self, *parts: bytes) -> Iterator[bytes]:
        """Like command, one answer at a time."""
        self._tags += 1
        tag = b"T%d" % self._tags
        self._socket.sendall(b" ".join((tag, *parts)) + b"\r\n")
        while True:
            answer = self._answer()
            if answer.startswith(b"* "):
                yield answer
            elif answer.startswith(tag + b" "):
                if not answer.startswith(tag + b" OK"):
                    raise Refused(f"{parts[0][:80]!r}: {answer!r}")
                yield answer
                return
            else:
                raise Refused(f"{parts[0][:80]!r}: unexpected {answer!r}")

    def _answer(self) -> bytes:
        pieces = []
        while True:
            line = self._file.readline()
            if not line:
                raise ConnectionError("the server closed the connection")
            pieces.append(line)
            literal = _LITERAL.search(line)
            if not literal:
                return b"".join(pieces)
            pieces.append(self._file.read(int(literal[1])))

    def append(self, mailbox: Name, messages: Iterable[Delivery]) -> None:
        """APPEND by MULTIAPPEND and LITERAL+ (RFC 3502, RFC 7888), in batches of about 4 MiB."""
        batch: list[bytes] = []
        octets = 0
        for message in messages:
            date = b' "%s"' % message.date if message.date else b""
            batch.append(b"(%s)%s {%d+}\r\n%s" % (b" ".join(message.flags), date, len(message.raw), message.raw))
            octets += len(message.raw)
            if octets >= _BATCH_OCTETS:
                self.command(b"APPEND", quote(mailbox), *batch)
                batch, octets = [], 0
        if batch:
            self.command(b"APPEND", quote(mailbox), *batch)

    def fetch(self, mailbox: Name, uids: bytes = b"1:*") -> Iterator[Stored]:
        """Every message of a mailbox, in UID order."""
        examined = self.command(b"EXAMINE", quote(mailbox))
        if any(answer.split() == [b"*", b"0", b"EXISTS"] for answer in examined):
            return
        for answer in self.stream(b"UID FETCH %s (UID FLAGS INTERNALDATE BODY.PEEK[])" % uids):
            if b" FETCH " not in answer[:32]:
                continue
            found = _FETCHED.match(answer)
            if not found:
                raise Refused(f"cannot read {answer[:200]!r}")
            raw = b"" if found[4] else answer[found.end() : -len(b")\r\n")]
            flags = tuple(sorted(flag for flag in found[2].split() if flag != b"\\Recent"))
            yield Stored(int(found[1]), flags, found[3], raw)
