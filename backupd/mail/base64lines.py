"""Base64 as mail wraps it (RFC 2045, 6.8), to octets and back, exactly.

What is decoded here is encoded again and compared, so a part is only ever taken for base64 if the same characters, in
lines of the same length with the same ends, come out again.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


class Wrapping(NamedTuple):
    """How base64 stands in a message: characters in a line (0: one line, not cut), and what ends a line."""

    line_length: int
    line_end: bytes


class Lines(NamedTuple):
    """Whole lines of base64 at the start of a buffer: `octets` they hold, `size` of the buffer they take up."""

    octets: bytes
    size: int


def whole_lines(buffer: bytes | memoryview, line_length: int, line_end: bytes) -> Lines:
    """As many whole lines of exactly this form as the buffer begins with; a multiple of 4 characters in each."""
    stride = line_length + len(line_end)
    view = memoryview(buffer)
    # Line ends stand at every stride-th place: as long as that holds, lines are regular, and nothing need be searched.
    count = len(view) // stride
    for place, octet in enumerate(line_end, start=line_length):
        column = bytes(view[place : count * stride : stride])
        count = min(count, len(column) - len(column.lstrip(bytes((octet,)))))
    text = bytes(view[: count * stride]).translate(None, line_end)
    if len(text) != count * line_length:
        # A line end too many, within a line: only the lines before it are regular.
        lines = (view[at * stride : at * stride + line_length] for at in range(count))
        count = next(at for at, line in enumerate(lines) if _NOT_BASE64.search(line))
        text = bytes(view[: count * stride]).translate(None, line_end)
    if not text.endswith(b"="):  # padding is the business of last_line
        try:
            return Lines(binascii.a2b_base64(text, strict_mode=True), count * stride)
        except binascii.Error:
            pass  # something else stands in between; where, is searched only now, for that is slower
    if odd := _NOT_BASE64.search(text):
        count = odd.start() // line_length
        text = text[: count * line_length]
    return Lines(binascii.a2b_base64(text), count * stride)


def last_line(line: bytes, longest: int) -> tuple[bytes, int, int] | None:
    """(octets, "=" characters kept, characters used) of the last line of a part, or None where it is no base64.

    What follows the padding is not used. longest: characters the line may have.
    """
    match = _NOT_BASE64.search(line)
    text = line[: match.start()] if match else line
    used = len(text)
    missing = -used % 4
    if missing == 3 or used > longest or not text:
        return None
    kept = 0
    while kept < missing and line[used + kept : used + kept + 1] == b"=":
        kept += 1
    octets = binascii.a2b_base64(text + b"=" * missing)
    # Bits that belong to no octet must be 0, or encoding would not give them back (RFC 4648, 3.5).
    if binascii.b2a_base64(octets, newline=False)[:used] != text or used + kept > longest:
        return None
    return octets, kept, used + kept


class Encoder:
    """Turns octets, given piece by piece, into wrapped base64. Call `end` after the last piece."""

    def __init__(self, wrapping: Wrapping) -> None:
        self._wrapping = wrapping
        self._octets = b""
        self._column = 0

    def encode(self, piece: bytes | memoryview) -> bytes:
        """The characters that are certain so far."""
        octets = self._octets + bytes(piece) if self._octets else piece
        certain = len(octets) - len(octets) % 3
        self._octets = bytes(octets[certain:])
        return self._wrap(binascii.b2a_base64(memoryview(octets)[:certain], newline=False))

    def end(self, padding: int) -> bytes:
        """The characters that are left, with so many "=" after them."""
        if not self._octets:
            return b""
        text = binascii.b2a_base64(self._octets, newline=False).rstrip(b"=")
        return self._wrap(text + b"=" * padding)

    def _wrap(self, text: bytes) -> bytes:
        length = self._wrapping.line_length
        if not length or not text:
            return text
        room = length - self._column
        lines = [text[:room], *(text[at : at + length] for at in range(room, len(text), length))]
        # A full line is only ended when another follows.
        self._column = len(lines[-1]) if len(lines) > 1 else self._column + len(text)
        return self._wrapping.line_end.join(lines)


def encode(pieces: Iterable[bytes | memoryview], wrapping: Wrapping, padding: int) -> Iterator[bytes]:
    """All pieces in wrapped base64, with so many "=" at the end."""
    encoder = Encoder(wrapping)
    for piece in pieces:
        yield encoder.encode(piece)
    yield encoder.end(padding)
