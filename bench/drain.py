"""The raw wire, one way: read all mail of an account and throw it away. No backup can beat it by much.

    python -m bench.drain HOST PORT USERNAME     (password in $BENCH_PASSWORD)

One connection, one FETCH for each mailbox, and of what arrives only the end is looked at: that is the floor. Standard
library only, so that starting costs next to nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator

ITEMS = b"(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"
_BUFFER_OCTETS = 1 << 20
_TAIL_OCTETS = 1 << 16
_LISTED = re.compile(rb'^\* LIST \(([^)]*)\) (?:"[^"]*"|NIL) (.+?)\r$', re.MULTILINE)
_NOTHING_THERE = re.compile(rb"^\* 0 EXISTS\r$", re.MULTILINE)


class Drain:
    """A connection that sends commands and reads until the tagged answer, without looking at what comes before it."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BUFFER_OCTETS))
        self.octets = 0
        self._socket.recv(4096)

    def command(self, words: bytes) -> bytes:
        """Send, read to the end, and return the last 64 KiB or less. RuntimeError when the answer is not OK."""
        tag = secrets.token_hex(8).encode()  # long enough to stand in no message by chance
        self._socket.sendall(b"%s %s\r\n" % (tag, words))
        tail = b""
        while True:
            received = self._socket.recv_into(self._buffer)
            if not received:
                raise ConnectionError("the server closed the connection")
            self.octets += received
            tail = (tail + bytes(self._buffer[max(0, received - _TAIL_OCTETS) : received]))[-_TAIL_OCTETS:]
            if tail.endswith(b"\r\n"):
                last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
                if last.startswith(tag + b" OK"):
                    return tail
                if last.startswith(tag + b" "):
                    raise RuntimeError(f"{words[:60]!r}: {last!r}")

    def mailboxes(self) -> Iterator[bytes]:
        """Names as the server wrote them, quoted where it quoted them, of those that can be opened."""
        for attributes, name in _LISTED.findall(self.command(b'LIST "" "*"')):
            if b"\\noselect" not in attributes.lower():
                yield name


def drain(host: str, port: int, username: str, password: str) -> int:
    """Read all mail of an account. Returns the octets that came."""
    connection = Drain(host, port)
    connection.command(b'LOGIN "%s" "%s"' % (username.encode(), password.encode()))
    for name in list(connection.mailboxes()):
        if not _NOTHING_THERE.search(connection.command(b"EXAMINE " + name)):
            connection.command(b"UID FETCH 1:* " + ITEMS)
    return connection.octets


if __name__ == "__main__":
    host, port, username = sys.argv[1:]
    print(drain(host, int(port), username, os.environ["BENCH_PASSWORD"]))
