"""Splitting a message into bytes as they are and decoded base64 parts, so that the same attachment is the same blob.

No MIME is parsed: where "base64" is announced, the next lines are tried, and only what gives the same characters again
counts (base64lines.py). So a malformed message can at worst be stored as it is. Everything works on a window of the
message, whose size is that of one piece, so memory does not depend on the size of the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.mail.base64lines import Wrapping, last_line, whole_lines

PIECE = 12 * 1024 * 1024
"""Octets in a piece of a part; a multiple of 3. The last one of a part is smaller."""

SMALLEST = 1024
"""Octets a part must have: below, a blob of its own costs more than it saves."""

_LONGEST_LINE = 4096
_LONGEST_GAP = 8192
"""Characters between the word "base64" and the empty line that ends the header it stands in."""

_WINDOW = 4 * 1024 * 1024
_WORDS = (b"base64", b"BASE64", b"Base64")


class Literal(NamedTuple):
    """Bytes of the message as they are."""

    data: bytes


class PartStart(NamedTuple):
    """A part begins, which stands in the message like this."""

    wrapping: Wrapping


class Piece(NamedTuple):
    """Some decoded octets of the part, at most PIECE of them."""

    octets: bytes


class PartEnd(NamedTuple):
    """The part ends; so many "=" follow its last character."""

    padding: int


Event = Literal | PartStart | Piece | PartEnd


def has_base64(raw: bytes) -> bool:
    """Whether splitting can find anything; most messages end here."""
    return any(word in raw for word in _WORDS)


def split(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The message, given in chunks of any size, as literals and parts in order. Joined again (`base64lines.encode` of a
    part's pieces), they are the message."""
    return _Splitter(chunks).events()


class _Splitter:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._ended = False
        self._ready: list[bytes] = []  # decoded octets that are no piece yet
        self._ready_size = 0

    def _fill(self, size: int) -> None:
        """Have at least so many bytes in the buffer, or all that are left."""
        if len(self._buffer) >= size or self._ended:
            return
        pieces, have = [self._buffer], len(self._buffer)
        while have < max(size, _WINDOW):
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            pieces.append(chunk)
            have += len(chunk)
        self._buffer = b"".join(pieces)

    def _drop(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def events(self) -> Iterator[Event]:
        searched = 0
        while True:
            self._fill(2 * _LONGEST_GAP)
            start = self._next_body(searched)
            if start is None:
                if self._ended:
                    break
                # A header may go on in the next window.
                yield from _literal(self._drop(max(0, len(self._buffer) - _LONGEST_GAP)))
                searched = 0
                self._fill(len(self._buffer) + 1)
                continue
            yield from _literal(self._drop(start))
            searched = 0
            found = False
            for event in self._part():
                found = True
                yield event
            if not found and not self._buffer and self._ended:
                break
        yield from _literal(self._buffer)

    def _next_body(self, searched: int) -> int | None:
        """Where the body begins that the next "base64" in the buffer announces."""
        while True:
            found = [at for word in _WORDS if (at := self._buffer.find(word, searched)) >= 0]
            if not found:
                return None
            word = min(found)
            ends = [
                at + len(gap)
                for gap in (b"\r\n\r\n", b"\n\n")
                if (at := self._buffer.find(gap, word, word + _LONGEST_GAP)) >= 0
            ]
            if ends:
                start = min(ends)
                while self._buffer[start : start + 1] in (b"\r", b"\n"):
                    start += 1
                return start
            if len(self._buffer) - word < _LONGEST_GAP and not self._ended:
                return None
            searched = word + 1

    def _part(self) -> Iterator[Event]:
        """The part that the buffer begins with, if it does. What is taken is gone from the buffer."""
        self._fill(_LONGEST_LINE + 2)
        end = self._buffer.find(b"\n", 0, _LONGEST_LINE + 2)
        line_end = b"\r\n" if self._buffer[max(0, end - 1) : end + 1] == b"\r\n" else b"\n"
        length = end + 1 - len(line_end)
        if end < 0:
            # One line without an end: worth it only if it is all there is.
            yield from self._single_line()
            return
        if length % 4 or not length:
            return
        first = True
        while True:
            self._fill(_WINDOW)
            lines = whole_lines(self._buffer, length, line_end)
            if first and len(lines.octets) < SMALLEST:
                # Too little: it stays as it is, together with what comes before the next part.
                return
            if first:
                yield PartStart(Wrapping(length, line_end))
            first = False
            self._drop(lines.size)
            yield from self._collect(lines.octets)
            if self._ended or len(self._buffer) >= length + 2:
                break
        yield from self._finish(length, line_end)

    def _single_line(self) -> Iterator[Event]:
        self._fill(PIECE * 4 // 3 + 4)
        found = last_line(self._buffer, len(self._buffer))
        if found and len(found[0]) >= SMALLEST:
            octets, padding, used = found
            self._drop(used)
            yield PartStart(Wrapping(0, b""))
            yield from self._collect(octets)
            yield from self._end(padding)

    def _finish(self, length: int, line_end: bytes) -> Iterator[Event]:
        """The last line, and the end of the part. Without such a line, the line end before is not the part's."""
        tail = last_line(self._buffer[: length + 1], length)
        padding = 0
        if tail:
            octets, padding, used = tail
            self._drop(used)
            yield from self._collect(octets)
        else:
            # The last whole line has a line end that joining would not give.
            self._buffer = line_end + self._buffer
        yield from self._end(padding)

    def _collect(self, octets: bytes) -> Iterator[Event]:
        self._ready.append(octets)
        self._ready_size += len(octets)
        while self._ready_size >= PIECE:
            together = b"".join(self._ready)
            yield Piece(together[:PIECE])
            self._ready = [together[PIECE:]]
            self._ready_size -= PIECE

    def _end(self, padding: int) -> Iterator[Event]:
        if self._ready_size:
            yield Piece(b"".join(self._ready))
        self._ready, self._ready_size = [], 0
        yield PartEnd(padding)


def _literal(data: bytes) -> Iterator[Event]:
    for start in range(0, len(data), PIECE):
        yield Literal(data[start : start + PIECE])
