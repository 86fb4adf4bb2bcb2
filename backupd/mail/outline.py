"""The outline of a message: its header, and which parts of which type and size it has. For people who look at one.

It is read line by line, so memory does not depend on the message's size, and whatever is malformed gives some outline,
never an error. Nothing that is stored or restored depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.mail.headers import attachment_names, readable

LONGEST_HEADER = 1024 * 1024
"""Octets of one header that are kept; what is beyond is counted and not shown."""

_MOST_PARTS = 1000
_DEEPEST = 50
_LONGEST_LINE = 64 * 1024
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)
_BOUNDARY = re.compile(rb';\s*boundary\s*=\s*(?:"([^"]*)"|([^\s;]+))', re.IGNORECASE)


class Part(NamedTuple):
    """A part of a message. depth: 0 is the message itself. octets: of its body as it stands in the message, encoded."""

    depth: int
    content_type: str
    encoding: str
    filename: str
    octets: int


class Outline(NamedTuple):
    """header: fields in order, undecoded. parts: the message and what is in it, in order."""

    header: list[tuple[bytes, bytes]]
    parts: list[Part]


def outline(chunks: Iterable[bytes]) -> Outline:
    """The outline of a message that comes in chunks of any size."""
    reader = _Reader()
    for line in lines(chunks):
        reader.line(line)
    return reader.finish()


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a header in order, their values unfolded (RFC 5322, 2.2.3) and otherwise as they stand."""
    unix = header.replace(b"\r\n", b"\n")
    return [(match[1], match[2].replace(b"\n", b"").strip()) for match in _FIELD.finditer(unix)]


class _Open:
    """A part whose end has not been seen."""

    def __init__(self, depth: int, default_type: str) -> None:
        self.depth, self.default_type = depth, default_type
        self.header = bytearray()
        self.in_header = True
        self.octets = 0
        self.boundary: bytes | None = None
        self.number = -1


class _Reader:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.open: list[_Open] = []
        self.first: list[tuple[bytes, bytes]] = []
        self._begin("text/plain")

    def _begin(self, default_type: str) -> None:
        self.open.append(_Open(len(self.open), default_type))

    def line(self, line: bytes) -> None:
        if line.startswith(b"--") and self._is_boundary(line.rstrip()):
            return
        part = self.open[-1]
        if not part.in_header:
            part.octets += len(line)
        elif line in (b"\n", b"\r\n"):
            self._end_header(part)
        elif len(part.header) < LONGEST_HEADER:
            part.header += line

    def _is_boundary(self, line: bytes) -> bool:
        for depth in range(len(self.open) - 1, -1, -1):
            boundary = self.open[depth].boundary
            if boundary is None or line not in (b"--" + boundary, b"--" + boundary + b"--"):
                continue
            while len(self.open) > depth + 1:
                self._close()
            outer = self.open[depth]
            if line.endswith(b"--") and line != b"--" + boundary:
                outer.boundary = None
            elif len(self.parts) < _MOST_PARTS:
                digest = self.parts[outer.number].content_type == "multipart/digest"
                self._begin("message/rfc822" if digest else "text/plain")
            return True
        return False

    def _end_header(self, part: _Open, *, holds_more: bool = True) -> None:
        part.in_header = False
        found = fields(bytes(part.header))
        if part.number < 0 and not self.parts:
            self.first = found
        values = {name.lower(): value for name, value in reversed(found)}
        content = values.get(b"content-type", b"")
        content_type = readable(content.partition(b";")[0]).lower() or part.default_type
        names = attachment_names(bytes(part.header))
        part.number = len(self.parts)
        self.parts.append(
            Part(
                part.depth,
                content_type,
                readable(values.get(b"content-transfer-encoding", b"")).lower(),
                readable(names[0]) if names else "",
                0,
            )
        )
        if not holds_more:
            return
        if content_type.startswith("multipart/") and (match := _BOUNDARY.search(b";" + content.partition(b";")[2])):
            part.boundary = match[1] or match[2] or None
        elif content_type == "message/rfc822" and len(self.open) < _DEEPEST and len(self.parts) < _MOST_PARTS:
            self._begin("text/plain")

    def _close(self) -> None:
        part = self.open.pop()
        if part.in_header and part.header:
            self._end_header(part, holds_more=False)
        if part.number >= 0:
            self.parts[part.number] = self.parts[part.number]._replace(octets=part.octets)
        if self.open:
            self.open[-1].octets += part.octets + len(part.header)

    def finish(self) -> Outline:
        while self.open:
            self._close()
        return Outline(self.first, self.parts)


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends; one that is very long comes in pieces."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if len(rest) > _LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest
