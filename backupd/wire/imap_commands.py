"""What goes into a command: names, strings and literals (RFC 3501, 4; RFC 7888)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backupd.model import Body

_QUOTABLE = re.compile(rb"[\x20-\x7e]*\Z")
QUOTED_OCTETS = 500
"""Longer strings go as literals; servers limit the length of a line."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string of any octets but NUL, in a command; a message, a strange name or a password with umlauts.

    binary: a literal8, which may hold NUL too, for servers with BINARY (RFC 3516, 4.4).
    """

    octets: bytes | Body
    binary: bool = False

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.octets) if isinstance(self.octets, bytes) else self.octets.size

    def chunks(self) -> Iterator[bytes]:
        """The octets in order."""
        if isinstance(self.octets, bytes):
            yield self.octets
        else:
            yield from self.octets.chunks()


Part = bytes | Literal


def string(octets: bytes) -> Part:
    """A string as a quoted one where that can hold it, else as a literal. For mailbox names use the raw name."""
    if len(octets) <= QUOTED_OCTETS and _QUOTABLE.match(octets):
        return b'"%s"' % octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return Literal(octets)
