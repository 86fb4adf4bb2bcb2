r"""Mbox files of any program and any size, message by message.

A message begins at a "From " line: at the start of the file, or after an empty line, and only if the line looks like
one, for "From now on" begins a line in many a letter. The empty line before the next one is not the message's.

Of the dialects, three can be told: where a Content-Length leads exactly to the next "From " line or to the end of the
file, it counts, and nothing is quoted (mboxcl2). Else each ">From ", ">>From " ... has one ">" too many (mboxrd).
Programs that quote "From " alone (mboxo) differ from that in ">>From " only, which cannot be seen: `unquote_o` is for
files that are known to be theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from backupd.sources.local.base import IN_MEMORY
from backupd.sources.local.files import OpenFile

Unquote = Callable[[bytes], bytes]

_WINDOW = 1 << 20
_LONGEST_FROM = 2048
_LONGEST_HEADER = 1 << 20
_QUOTED = re.compile(rb"(?m)^>(>*From )")
_QUOTED_ONCE = re.compile(rb"(?m)^>(From )")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"\n\r?\n")
_OURS_WITHOUT_NEWLINE = b"From no-final-newline "
"""What a restore of ours writes where it had to add a line end (see targets/mbox_format.py)."""
_MONTHS = {name: number for number, name in enumerate(
    (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1)}  # fmt: skip
_DATE = re.compile(
    rb"(?:(\w{3})[ ]+(\d{1,2})|(\d{1,2})[ ]+(\w{3})[ ]+(\d{4}))[ ]+(\d{1,2}):(\d\d)(?::(\d\d))?"
    rb"(?:[ ]+(?:[A-Z]{1,5}|([+-]\d{4})))?(?:[ ]+(\d{4}))?(?:[ ]+([+-]\d{4}))?"
)


def unquote_rd(text: bytes) -> bytes:
    """Takes one ">" off each line of ">"s and "From "."""
    return _QUOTED.sub(rb"\1", text) if b">From " in text else text


def unquote_o(text: bytes) -> bytes:
    """Takes the ">" off each line that begins with ">From "."""
    return _QUOTED_ONCE.sub(rb"\1", text) if b">From " in text else text


class NotAnMbox(Exception):
    """The file does not begin with a "From " line."""


class Growing(Exception):
    """The file has grown since it was opened, so its last message, at this octet, may have been cut."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Piece(NamedTuple):
    """One message of an mbox file.

    from_line: without its line end. offset: of that line in the file. header: up to and with the empty line; small: the
    rest, or None where that is larger than memory shall hold; rest: gives it in pieces, each time it is called. All are
    as in the file, but for its quoting.
    """

    from_line: bytes
    offset: int
    header: bytes
    small: bytes | None
    rest: Callable[[], Iterator[bytes]]


def begins(octets: bytes) -> bool:
    """Whether a file that begins so can be an mbox."""
    return octets.startswith(b"From ")


def date_of(from_line: bytes) -> datetime | None:
    """The date of a "From " line, in UTC where it names no zone; None where it has none."""
    found = _DATE.search(from_line)
    if not found:
        return None
    month, day, day2, month2, year2, hour, minute, second, zone, year, zone2 = found.groups()
    offset = zone or zone2
    try:
        return datetime(
            int(year or year2), _MONTHS[(month or month2).lower()], int(day or day2), int(hour), int(minute),
            int(second or 0), tzinfo=_zone(offset) if offset else UTC,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError):
        return None


def _zone(offset: bytes) -> timezone:
    sign = -1 if offset.startswith(b"-") else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))


def _is_from(line: bytes) -> bool:
    return line.startswith((b"From - ", b"From ???@???")) or _DATE.search(line) is not None


def read(file: OpenFile, *, unquote: Unquote = unquote_rd) -> Iterator[Piece]:
    """The messages of a file, in order. Raises NotAnMbox, Growing in the place of the last message, OSError."""
    return _Reader(file, unquote).pieces()


class _Reader:
    """One pass over a file."""

    def __init__(self, file: OpenFile, unquote: Unquote) -> None:
        self._file, self._unquote = file, unquote
        self._base, self._window = 0, file.read(_WINDOW)

    def pieces(self) -> Iterator[Piece]:
        if not begins(self._window):
            raise NotAnMbox
        start: int | None = 0
        while start is not None:
            line = self._line(start)
            content = start + len(line)
            header = self._header(content)
            end, start_of_next = self._framed(content + len(header), header) or self._next(content)
            framed = end < 0
            end = abs(end)
            if line.startswith(_OURS_WITHOUT_NEWLINE):
                end = max(content, end - 1)
            if start_of_next is None and self._file.has_grown:
                raise Growing(start)
            yield self._piece(start, line.rstrip(b"\r\n"), content, end, header[: end - content], framed=framed)
            start = start_of_next

    # The file

    def _at(self, offset: int, octets: int) -> bytes:
        """Octets of the file; from the window where they are in it."""
        begin = offset - self._base
        if begin >= 0 and begin + octets <= len(self._window):
            return self._window[begin : begin + octets]
        return self._file.read(octets, offset)

    def _load(self, offset: int) -> None:
        """Have the octets from there on in the window."""
        begin = offset - self._base
        if not 0 <= begin <= len(self._window) - _LONGEST_FROM:
            self._base, self._window = offset, self._file.read(_WINDOW, offset)

    def _line(self, offset: int) -> bytes:
        """The line that begins there, with its end; one that is longer is no "From " line, and is cut."""
        self._load(offset)
        begin = offset - self._base
        end = self._window.find(b"\n", begin, begin + _LONGEST_FROM)
        return self._window[begin : begin + _LONGEST_FROM if end < 0 else end + 1]

    def _header(self, content: int) -> bytes:
        """The header of a message up to and with the empty line; all that there is of one without an end."""
        self._load(content)
        begin = content - self._base
        if self._window.startswith((b"\n", b"\r\n"), begin):
            return self._window[begin : self._window.index(b"\n", begin) + 1]
        found = _HEADER_END.search(self._window, begin)
        if found:
            return self._window[begin : found.end()]
        some = self._file.read(_LONGEST_HEADER, content)
        found = _HEADER_END.search(some)
        return some[: found.end()] if found else some

    # Where messages end

    def _framed(self, body: int, header: bytes) -> tuple[int, int | None] | None:
        """As `_next`, where Content-Length tells; the end is negative then. None where it does not."""
        found = _LENGTH.search(header)
        if not found:
            return None
        end = body + int(found[1])
        if end > self._file.size:
            return None
        after = self._at(end, _LONGEST_FROM)
        blank = len(after) - len(after.lstrip(b"\r\n"))
        if blank == len(after) and end + blank == self._file.size:
            return -end, None
        following = after[blank:]
        if 0 < blank <= 4 and begins(following) and _is_from(following.partition(b"\n")[0]):
            return -end, end + blank
        return None

    def _next(self, content: int) -> tuple[int, int | None]:
        """(where the message ends, where the next "From " line begins or None)."""
        position = content - 1  # the end of the "From " line, before an empty line
        while True:
            self._load(position)
            found = self._window.find(b"\nFrom ", position - self._base)
            if found < 0:
                reached = self._base + len(self._window)
                if reached >= self._file.size:
                    return self._last(content), None
                position = reached - 5
                self._base, self._window = position, self._file.read(_WINDOW, position)
                continue
            position = self._base + found
            before = self._at(position - 2, 2)
            blank = 1 if before.endswith(b"\n") else 2 if before == b"\n\r" else 0
            if blank and position >= content and _is_from(self._line(position + 1)):
                return position + 1 - blank, position + 1
            position += 1

    def _last(self, content: int) -> int:
        """Where the last message ends: the empty line that closes it is not its own, unless it ends the header."""
        size = self._file.size
        tail = self._at(max(content, size - 4), min(4, size - content))
        blank = 2 if tail.endswith(b"\n\r\n") else 1 if tail.endswith(b"\n\n") else 0
        header = self._header(content)
        return size - blank if blank and content + len(header) < size else size

    # Messages

    def _piece(self, start: int, line: bytes, content: int, end: int, header: bytes, *, framed: bool) -> Piece:
        unquote = _as_it_is if framed else self._unquote
        body = content + len(header)
        if end - content > IN_MEMORY:
            return Piece(line, start, unquote(header), None, lambda: _streamed(self._file, body, end, unquote))
        rest = unquote(self._at(body, end - body))
        return Piece(line, start, unquote(header), rest, lambda: iter([rest]))


def _as_it_is(text: bytes) -> bytes:
    return text


def _streamed(file: OpenFile, start: int, end: int, unquote: Unquote) -> Iterator[bytes]:
    """A stretch of the file without its quoting. A line that may be quoted is never cut at its beginning."""
    held, at_line = b"", True
    for chunk in file.chunks(start, end):
        data = held + chunk
        cut = data.rfind(b"\n") + 1
        last_begins_here = cut > 0 or at_line
        hold = last_begins_here and data.startswith(b">", cut) and len(data) - cut < _LONGEST_FROM
        held = data[cut:] if hold else b""
        ready = data[:cut] if hold else data
        if ready:
            # What stands in for a line's beginning keeps "^" from matching in its middle.
            yield unquote(ready) if at_line else unquote(b"x" + ready)[1:]
            at_line = ready.endswith(b"\n")
    if held:
        yield unquote(held)
