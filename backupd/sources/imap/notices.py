"""What a server says on a connection that only waits: "something changed", "nothing", "I am gone". No I/O.

Nothing is kept of what it says but the head of the answer under way, so a thousand of these cost little, and no server
can make one grow: names of mailboxes may be literals, and are skipped; answers of more than a MiB are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from backupd.errors import ProtocolError
from backupd.wire.imap_parser import Status, is_status, parse_status

MOST_OCTETS = 1 << 20
"""Of one answer, with its literals."""
_HEAD_OCTETS = 512
_TAIL_OCTETS = 32

_UNTAGGED = re.compile(rb"\* (?:\d{1,20} )?([A-Za-z]+)")
_LITERAL = re.compile(rb"\{(-?\d{1,20})\+?\}\r?\n\Z")
_CHANGES = frozenset({b"EXISTS", b"EXPUNGE", b"FETCH", b"VANISHED", b"STATUS", b"LIST", b"LSUB", b"METADATA"})
"""RFC 3501, 7.2 to 7.4; RFC 7162, 3.2.10; of NOTIFY: STATUS and LIST (RFC 5465, 5)."""


class Kind(Enum):
    """What an answer means to somebody who waits."""

    CHANGE = "a mailbox or its list is not what it was"
    NOTHING = "a sign of life, or what concerns nobody here"
    GO_ON = "+"
    DONE = "the end of a command"
    GONE = "the server leaves, or no longer tells of changes"


class Said(NamedTuple):
    """One answer. tag and status: of an end of a command; status: of GONE, too."""

    kind: Kind
    tag: bytes = b""
    status: Status = Status(b"", b"", [], b"")


class Notices:
    """Takes the octets as they come, and tells of each answer when it is whole."""

    __slots__ = ("_head", "_octets", "_plain", "_skip", "_tail")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._head = self._tail = b""
        self._octets = self._skip = 0
        self._plain: bool | None = None
        """Whether braces at the end of a line mean nothing in this answer; None before its first line has ended."""

    def feed(self, octets: bytes) -> Iterator[Said]:
        """The answers that these octets complete. Raises ProtocolError when one is too large to be meant."""
        place = 0
        while place < len(octets):
            if self._skip:
                skipped = min(self._skip, len(octets) - place)
                self._skip -= skipped
                place += skipped
                continue
            end = octets.find(b"\n", place)
            piece = octets[place : end + 1] if end >= 0 else octets[place:]
            place += len(piece)
            self._take(piece)
            if end >= 0 and not self._goes_on():
                said = _meaning(self._head)
                self._begin()
                yield said

    def _take(self, piece: bytes) -> None:
        self._octets += len(piece)
        if self._octets > MOST_OCTETS:
            raise ProtocolError("an answer without end, on a connection on which there is little to say")
        if self._plain is None and len(self._head) < _HEAD_OCTETS:
            self._head += piece[: _HEAD_OCTETS - len(self._head)]
        self._tail = (self._tail + piece[-_TAIL_OCTETS:])[-_TAIL_OCTETS:]

    def _goes_on(self) -> bool:
        """Whether a literal follows the line that has ended now."""
        if self._plain is None:
            self._plain = is_status(self._head)
        found = None if self._plain else _LITERAL.search(self._tail)
        self._tail = b""
        if not found:
            return False
        size = int(found[1])
        self._octets += size
        if size < 0 or self._octets > MOST_OCTETS:
            raise ProtocolError(f"a literal of {size} octets was announced, and that cannot be meant")
        self._skip = size
        return True


def _meaning(head: bytes) -> Said:
    if head.startswith(b"+"):
        return Said(Kind.GO_ON)
    if not head.startswith(b"*"):
        tag, _, rest = head.strip().partition(b" ")
        kind, _, text = rest.partition(b" ")
        return Said(Kind.DONE, tag, parse_status(kind.upper(), text))
    found = _UNTAGGED.match(head)
    kind = found[1].upper() if found else b""
    if kind in _CHANGES:
        return Said(Kind.CHANGE)
    if kind in (b"OK", b"NO", b"BYE"):
        status = parse_status(kind, head[len(b"* ") + len(kind) :].strip())
        # RFC 5465, 5.8: the server has dropped what it was told to watch.
        if kind == b"BYE" or status.code == b"NOTIFICATIONOVERFLOW":
            return Said(Kind.GONE, status=status)
    return Said(Kind.NOTHING)
