"""What a POP3 session offers. It is not an IMAP session with less: the numbers of messages hold for one session only,
and one client at a time has the mailbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from backupd.model import Body
from backupd.sources.base import Identity

_GMAIL = re.compile(r"(?:\A|\.)(?:gmail|googlemail)\.com\.?\Z", re.IGNORECASE)


class Listed(NamedTuple):
    """A message on the server. number: valid in this session. uidl: empty where the server has none for it.
    size: octets as LIST says, which may be wrong; -1 where it says nothing that makes sense."""

    number: int
    uidl: bytes
    size: int


def server_id(listed: Listed) -> bytes:
    """What the server calls a message, as rows of mailboxes keep it: UIDL and size. One of both that changed means that
    it may be another message: servers give the UIDLs of deleted messages to new ones."""
    return b"UIDL:%b %d" % (listed.uidl, listed.size)


def hides(host: str) -> bool:
    """Whether the server of this name lists a part of the mailbox only, and each message in one session: Gmail."""
    return bool(_GMAIL.search(host))


class Header(NamedTuple):
    """The header of a message up to and with its empty line; None where the server does not give it."""

    number: int
    octets: bytes | None


class Retrieved(NamedTuple):
    """A message whole, without dot-stuffing. note: what was odd about it though it could be read."""

    number: int
    body: bytes | Body
    note: str = ""


class Refused(NamedTuple):
    """A message that the server would not give, and what it said."""

    number: int
    what: str


class Pop3Session(Protocol):
    """One login. Not thread-safe; an iterator must be read to its end, or the session closed.

    Raises ConnectionLost, ProtocolError; ConnectionFailed with `pause` where the server says to come back later.
    """

    @property
    def identity(self) -> Identity:
        """Which server this is: kind "pop3"."""
        ...

    def listing(self) -> list[Listed]:
        """All messages, by number: UIDL and LIST in one go. Duplicate UIDLs are given as they are."""
        ...

    def headers(self, numbers: Iterable[int]) -> Iterator[Header]:
        """TOP n 0 of each, in this order, pipelined where the server can."""
        ...

    def retrieve(self, some: Iterable[Listed]) -> Iterator[Retrieved | Refused]:
        """RETR of each, in this order, pipelined where the server can. Never deletes."""
        ...

    def delete(self, number: int) -> bool:
        """DELE: marks the message; it goes with `quit`. False when the server refused this one."""
        ...

    def quit(self) -> None:
        """QUIT. What was marked has gone when this returns: only after +OK. Raises ConnectionLost, ServerRefused."""
        ...

    def close(self) -> None:
        """Close without QUIT, so that the server deletes nothing; never raises. Does nothing after `quit`."""
        ...


class Pop3Source(Protocol):
    """A POP3 account."""

    @property
    def address(self) -> str:
        """host:port, for messages."""
        ...

    def open(self) -> Pop3Session:
        """Connect and log in. Raises ConnectionFailed, LoginRefused, CertificateRefused."""
        ...
