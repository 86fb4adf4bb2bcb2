"""Splitting a message into bytes as they are and decoded base64 parts, so that the same attachment is the same blob.

No MIME is parsed: where "base64" is announced, the next lines are tried, and only what gives the same characters again
counts (base64lines.py). So a malformed message can at worst be stored as it is. Everything works on a window of the
message, so memory does not depend on the size of the message.
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

_WINDOW = 1024 * 1024
"""Bytes looked at at once: enough to be quick, and they stay in the processor's cache."""

_WORDS = (b"ase64", b"ASE64")
"""In "base64", "Base64" and "BASE64", which are how it is written: two searches cost less than three."""


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
    return _WORDS[0] in raw or _WORDS[1] in raw


def split(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The message, given in chunks of any size, as literals and parts in order. Joined again (`base64lines.encode` of a
    part's pieces), they are the message. Holds a chunk, a window and a piece, however large the message is."""
    return _Splitter(chunks).events()


class _Splitter:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._at = 0  # what is before has been dealt with
        self._ended = False
        self._plain = _Gathered()
        self._octets = _Gathered()

    def events(self) -> Iterator[Event]:
        while True:
            self._fill(2 * _LONGEST_GAP)
            start = self._next_body()
            if start is not None:
                yield from self._keep(start)
                yield from self._part()
                continue
            window_end = min(len(self._buffer), self._at + _WINDOW)
            if self._ended and window_end == len(self._buffer):
                break
            yield from self._keep(window_end - _LONGEST_GAP)  # a header may go on in the next window
        yield from self._keep(len(self._buffer))
        yield from map(Literal, self._plain.rest())

    def _fill(self, size: int) -> None:
        """Have at least so many bytes ahead, or all that are left."""
        have = len(self._buffer) - self._at
        if have >= size or self._ended:
            return
        pieces = [self._buffer[self._at :]] if have else []
        while have < max(size, _WINDOW):
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            pieces.append(chunk)
            have += len(chunk)
        self._buffer, self._at = b"".join(pieces), 0

    def _keep(self, until: int) -> Iterator[Literal]:
        """Everything up to there stays as it is."""
        data = self._buffer[self._at : until]
        self._at += len(data)
        yield from map(Literal, self._plain.add(data))

    def _next_body(self) -> int | None:
        """Where the body begins that the next "base64" in this window announces."""
        buffer, searched = self._buffer, self._at
        while (word := self._next_word(searched)) is not None:
            start, end = None, word + _LONGEST_GAP
            for gap in (b"\r\n\r\n", b"\n\n"):
                if (at := buffer.find(gap, word, end)) >= 0:
                    start, end = at + len(gap), at
            if start is not None:
                while buffer[start : start + 1] in (b"\r", b"\n"):
                    start += 1
                return start
            searched = word + 1
        return None

    def _next_word(self, start: int) -> int | None:
        end = window_end = self._at + _WINDOW
        for word in _WORDS:  # a later spelling only counts before an earlier one, so most searches are short
            if (at := self._buffer.find(word, start, end)) >= 0:
                end = at
        return None if end == window_end else end

    def _part(self) -> Iterator[Event]:
        """The part that comes next, if one does."""
        self._fill(_LONGEST_LINE + 2)
        end = self._buffer.find(b"\n", self._at, self._at + _LONGEST_LINE + 2)
        if end < 0:
            yield from self._single_line()
            return
        line_end = b"\r\n" if self._buffer[self._at : end].endswith(b"\r") else b"\n"
        length = end + 1 - len(line_end) - self._at
        if length and not length % 4:
            yield from self._lines(length, line_end)

    def _single_line(self) -> Iterator[Event]:
        """A part in one line that is longer than any that is wrapped; what goes beyond one piece stays as it is."""
        longest = PIECE // 3 * 4
        self._fill(longest)
        found = last_line(self._buffer[self._at : self._at + longest], longest)
        if found and len(found[0]) >= SMALLEST:
            octets, padding, used = found
            self._at += used
            yield from self._start(Wrapping(0, b""))
            yield Piece(octets)
            yield PartEnd(padding)

    def _lines(self, length: int, line_end: bytes) -> Iterator[Event]:
        """A part in lines. The end of its last line is not part of it, so the last line end is always left ahead."""
        stride = length + len(line_end)
        ahead = 0  # octets of the line end that was left
        while True:
            self._fill(_WINDOW)
            start, end = self._at + ahead, min(len(self._buffer), self._at + _WINDOW)
            last_window = self._ended and end == len(self._buffer)
            boundary = self._buffer.find(b"-", start, end)  # no base64: what is behind it need not be looked at
            if boundary >= 0:
                end, last_window = boundary, True
            lines = whole_lines(self._buffer, length, line_end, start, end)
            if not ahead:
                if len(lines.octets) < SMALLEST:
                    return
                yield from self._start(Wrapping(length, line_end))
                self._at -= len(line_end)
                ahead = len(line_end)
            self._at += lines.size
            yield from map(Piece, self._octets.add(lines.octets))
            if last_window or end - start - lines.size >= stride:
                break
        yield from self._finish(length, line_end)

    def _start(self, wrapping: Wrapping) -> Iterator[Event]:
        yield from map(Literal, self._plain.rest())
        yield PartStart(wrapping)

    def _finish(self, length: int, line_end: bytes) -> Iterator[Event]:
        """The last line, which is shorter or padded, if there is such a line."""
        start = self._at + len(line_end)
        padding = 0
        if tail := last_line(self._buffer[start : start + length + 1], length):
            octets, padding, used = tail
            self._at = start + used
            yield from map(Piece, self._octets.add(octets))
        yield from map(Piece, self._octets.rest())
        yield PartEnd(padding)


class _Gathered:
    """Bytes that are put together to pieces of PIECE octets."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        """The pieces that are full now."""
        if data:
            self._waiting.append(data)
            self._size += len(data)
        while self._size >= PIECE:
            over = self._size - PIECE
            last = self._waiting.pop()
            self._waiting.append(last[: len(last) - over])
            piece = b"".join(self._waiting)
            # Let go of what it was made of before somebody works on it.
            self._waiting, self._size = [last[len(last) - over :]] if over else [], over
            yield piece

    def rest(self) -> Iterator[bytes]:
        """What is left, if anything."""
        if self._size:
            yield b"".join(self._waiting)
        self._waiting, self._size = [], 0
