"""Messages whose line ends IMAP does not foresee: which they are, and what servers make of them.

IMAP carries CRLF (RFC 3501, 4.3.1). Mail that was imported from files often has LF alone, some has a CR alone. Servers
keep it (rarely), change it when they store it (Dovecot), or refuse it (Cyrus). So such messages are sent as they are;
what the server made of them is reported, and found again by its changed form when a restore runs twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.targets.base import Outgoing
from backupd.targets.content import chunks_of, header_by

_CRS_AT_END = re.compile(rb"\r{1,2}\Z")


class Octets(NamedTuple):
    """What there is among the octets of a message. odd: line ends other than CRLF, or NUL."""

    nul: bool
    odd: bool


def examine(chunks: Iterable[bytes]) -> Octets:
    """Look through a message."""
    nul = False
    line_feeds = returns = pairs = 0
    last = b""
    for chunk in chunks:
        nul = nul or b"\0" in chunk
        line_feeds += chunk.count(b"\n")
        returns += chunk.count(b"\r")
        pairs += chunk.count(b"\r\n") + (last == b"\r" and chunk.startswith(b"\n"))
        last = chunk[-1:] or last
    return Octets(nul, nul or not line_feeds == returns == pairs)


def stored(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The message as Dovecot stores it: lines end in CRLF, of CRs before that and at the very end there is one less.

    0x80 stands for NUL.
    """
    held = b""
    for chunk in chunks:
        data = held + chunk
        crs = _CRS_AT_END.search(data)
        held = crs[0] if crs else b""
        lines = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        yield lines.replace(b"\r\r\n", b"\r\n").replace(b"\0", b"\x80")
    yield held[:-1]


class Stored:
    """The body of a message as servers store it that change it; a `backupd.model.Body`."""

    def __init__(self, message: Outgoing) -> None:
        self._message = message
        self._size = sum(map(len, self.chunks()))

    @property
    def size(self) -> int:
        """Octets."""
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """The octets in order."""
        return stored(chunks_of(self._message))

    def header(self) -> bytes:
        """The octets up to the first empty line and with it."""
        rest = bytearray()
        chunks = self.chunks()

        def read(octets: int) -> bytes:
            while len(rest) < octets and (chunk := next(chunks, None)) is not None:
                rest.extend(chunk)
            taken = bytes(rest[:octets])
            del rest[:octets]
            return taken

        return header_by(read)
