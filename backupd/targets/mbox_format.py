r"""The mbox files we write: the "mboxrd" kind, from which every octet of every message can be had back.

    From MAILER-DAEMON Wed Jul 17 09:44:25 1996\n     the arrival, in UTC (RFC 4155)
    ...the message's octets, line ends as they are...
    \n                                                the line that closes it

- Within a message, and at its very beginning, a line that begins with ">"s or none and then "From " gets one ">" more.
  Lines begin after a LF, whether a CR is before it or not. To read, take one ">" off each line of ">"s and "From ".
- A message that does not end with LF gets one more before the line that closes it. That its "From " line then names
  the sender `no-final-newline` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from backupd.mail.dates import mbox_date

SENDER, SENDER_NO_NEWLINE = b"MAILER-DAEMON", b"no-final-newline"

_FROM_LINE = re.compile(rb"(?m)^(>*)From ")
_QUOTED = re.compile(rb">+From ")
_MAYBE_FROM = re.compile(rb">*(F|Fr|Fro|From)?\Z")
_READ_OCTETS = 1 << 16


def around(internaldate: bytes, *, final_newline: bool) -> tuple[bytes, bytes]:
    """The line before a message, and what comes after it."""
    sender = SENDER if final_newline else SENDER_NO_NEWLINE
    return b"From %s %s\n" % (sender, mbox_date(internaldate)), b"\n" if final_newline else b"\n\n"


def quoted(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The octets of a message as they stand in the file, however they are cut into chunks."""
    held, at_start = b"", True
    for chunk in chunks:
        data = held + chunk
        last = data.rfind(b"\n")
        open_start = last >= 0 or at_start
        maybe = _MAYBE_FROM.match(data, last + 1) if open_start else None
        held = (maybe[1] or b"") if maybe else b""
        body = data[: len(data) - len(held)]
        if b"From " not in body:
            yield body
        elif at_start:
            yield _FROM_LINE.sub(rb"\1>From ", body)
        else:  # what stands in for a line's beginning keeps "^" from matching in its middle
            yield _FROM_LINE.sub(rb"\1>From ", b"x" + body)[1:]
        at_start = maybe is not None
    if held:
        yield held


class Region(NamedTuple):
    """A message in a file. start, end: from its "From " line to behind the line that closes it.

    size and header are those of the message itself.
    """

    start: int
    end: int
    header: bytes
    size: int


def regions(file: BinaryIO) -> Iterator[Region]:
    """The messages of an mbox file, from where it stands; any program's, though sizes are exact for ours only."""
    scanner: _Scanner | None = None
    position = file.tell()
    fresh = True
    while line := file.readline(_READ_OCTETS):
        if fresh and line.startswith(b"From "):
            if scanner:
                yield scanner.finish(position)
            scanner = _Scanner(position, line)
        elif scanner:
            scanner.take(line, fresh=fresh)
        fresh = line.endswith(b"\n")
        position += len(line)
    if scanner:
        yield scanner.finish(position)


class _Scanner:
    """Reads one message."""

    def __init__(self, start: int, line: bytes) -> None:
        self._start = start
        self._extra = 2 if line.startswith(b"From %s " % SENDER_NO_NEWLINE) else 1
        self._in_from_line = not line.endswith(b"\n")
        self._header: list[bytes] = []
        self._in_header = True
        self._size = 0
        self._last = b""

    def take(self, line: bytes, *, fresh: bool) -> None:
        """The next line, or the next piece of a long one."""
        if self._in_from_line:
            self._in_from_line = not line.endswith(b"\n")
            return
        if fresh and line.startswith(b">") and _QUOTED.match(line):
            line = line[1:]
        if self._in_header:
            self._header.append(line)
            self._in_header = not (fresh and line in (b"\n", b"\r\n"))
        self._size += len(line)
        self._last = line

    def finish(self, end: int) -> Region:
        """The message, without what closes it."""
        extra = min(self._extra if self._last == b"\n" else 0, self._size)
        size = self._size - extra
        return Region(self._start, end, b"".join(self._header)[:size], size)
