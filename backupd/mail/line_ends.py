"""Line ends: mail has CRLF (RFC 5322, 2.1), and programs that keep it in files mostly have LF.

A message whose first line ends with LF alone was turned around when it was filed, and every server that serves such a
file turns it back: each LF that has no CR before it gets one. So does backupd when it takes in local mail, and thus
finds that it is the same message as the one on the server. A message that begins with CRLF is left as it is.

One thing is lost in such files, before backupd sees them: of CR CR LF the program has left CR LF.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def is_turned(beginning: bytes) -> bool:
    """Whether a message that begins so has LF where CRLF was. beginning: as much of it as has its first line."""
    first = beginning.find(b"\n")
    return first == 0 or (first > 0 and beginning[first - 1 : first] != b"\r")


def canonical(message: bytes) -> bytes:
    """The message with CRLF at the ends of its lines if it was turned around; else the same octets."""
    return turned_back(message) if is_turned(message) else message


def turned_back(octets: bytes) -> bytes:
    """CRLF in the place of LF; CRLF stays."""
    if b"\r\n" in octets:
        octets = octets.replace(b"\r\n", b"\n")
    return octets.replace(b"\n", b"\r\n")


def with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same for a message in pieces."""
    held = b""
    for chunk in chunks:
        octets = held + chunk
        held = b"\r" if octets.endswith(b"\r") else b""  # it may belong to a LF that is still to come
        yield turned_back(octets[: len(octets) - len(held)])
    if held:
        yield held
