"""Line ends: mail has CRLF (RFC 5322, 2.1), and programs that keep it in files mostly have LF.

A message in which no line ends with CRLF was turned around when it was filed, and every server that serves such a file
turns it back. So does backupd when it takes in local mail, and thus finds that it is the same message as the one on the
server. What has any CRLF is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def canonical(message: bytes) -> bytes:
    """The message with CRLF at the ends of its lines if none of them had it; else the same octets."""
    if b"\r\n" in message or b"\n" not in message:
        return message
    return message.replace(b"\n", b"\r\n")


def with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same for a message in pieces of which is known that no line of it ends with CRLF."""
    for chunk in chunks:
        yield chunk.replace(b"\n", b"\r\n")
