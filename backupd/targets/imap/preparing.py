"""A message as one server will take it: its flags, its date and its octets, and what had to be left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from backupd.mail import dates, flags
from backupd.model import Flags
from backupd.targets.base import Outcome, Outgoing
from backupd.targets.content import UNREADABLE, chunks_of, unreadable
from backupd.targets.imap.line_ends import Octets, Stored, examine
from backupd.wire.imap_commands import Literal, Part

_FLAG = re.compile(rb"\\?[^\x00-\x20\x7f-\xff(){%*\"\\\]]+\Z")
"""An atom, or a backslash and an atom (RFC 3501, 9: flag); everything else would break the command."""


@dataclass(slots=True)
class Ready:
    """A message to be sent. remarks: what is not as it was; again: whether it was refused for a while before.

    changed: what is sent instead, when the server refused the line ends.
    """

    message: Outgoing
    flags: Flags
    date: bytes
    octets: Octets
    remarks: list[str] = field(default_factory=list)
    again: bool = False
    changed: Stored | None = None

    @property
    def keywords(self) -> Flags:
        """The flags that are not of the system."""
        return tuple(flag for flag in self.flags if not flag.startswith(b"\\"))

    def parts(self) -> list[Part]:
        """What stands for it in an APPEND command (RFC 3501, 6.3.11; RFC 3502)."""
        return [
            b"(%s)" % b" ".join(self.flags),
            b'"%s"' % self.date,
            Literal(self.changed or self.message.body, binary=self.octets.nul and not self.changed),
        ]

    def outcome(self) -> Outcome:
        """The outcome, now that the server has it."""
        return Outcome(self.message, "altered" if self.remarks else "written", "; ".join(self.remarks))


@dataclass(frozen=True, slots=True)
class Rules:
    """What a mailbox takes.

    permanent: PERMANENTFLAGS, None if it did not say; limit: octets of a message (RFC 7889).
    binary: whether it may hold NUL.
    """

    permanent: frozenset[bytes] | None
    limit: int | None
    binary: bool


def prepare(message: Outgoing, rules: Rules, refused_keywords: Iterable[bytes] = ()) -> Ready | Outcome:
    """The message as it can be sent, or why it cannot be.

    Args:
        refused_keywords: keywords the server has refused before, in lower case.
    """
    if rules.limit is not None and message.size > rules.limit:
        what = f"{message.size} octets are more than the {rules.limit} that the server takes (APPENDLIMIT)"
        return Outcome(message, "refused", what)
    try:
        octets = examine(chunks_of(message))  # all of them, so that what cannot be read is known before sending
    except UNREADABLE as error:
        return unreadable(message, error)
    if octets.nul and not rules.binary:
        return Outcome(message, "refused", "it holds NUL octets, which this server cannot take (no BINARY)")
    date, moved = dates.for_append(message.internaldate)
    ready = Ready(message, _acceptable(message.flags, rules, refused_keywords), date, octets)
    left = [flag for flag in flags.normalise(message.flags) if flag not in ready.flags]
    if left:
        ready.remarks.append(without(left))
    if moved:
        ready.remarks.append(f"the date {_shown(message.internaldate)!r} became {_shown(date)!r}")
    return ready


def _acceptable(wanted: Flags, rules: Rules, refused_keywords: Iterable[bytes]) -> Flags:
    kept, _ = flags.allowed(wanted, rules.permanent)
    return tuple(flag for flag in kept if _FLAG.match(flag) and flag.lower() not in refused_keywords)


def without(left: Iterable[bytes]) -> str:
    """Says which flags the server did not take."""
    return f"the server does not take {', '.join(_shown(flag) for flag in left)}"


def _shown(octets: bytes) -> str:
    return octets.decode("ascii", "backslashreplace")
