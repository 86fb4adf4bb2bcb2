"""What every store of local mail offers: a stream of messages, each with the mailboxes it is in.

A store reads files and changes none. It follows no symbolic link that leads out of the folder it was given. One
message that cannot be read comes as `LocalProblem`, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from backupd.model import Body, Flags, Mailbox

IN_MEMORY = 4 << 20
"""Octets: larger messages are read in pieces, as a Body."""


class LocalMessage(msgspec.Struct, frozen=True):
    """A message in a local store.

    mailboxes: where it is, mostly one. body: with CRLF at line ends if the file has no CRLF in it (mail.line_ends),
    and without what the mail program wrote into it for itself (mbox quoting, Thunderbird's X-Mozilla fields).
    flags: system flags and keywords. internaldate: the server's own string, where the store recorded it.
    stored: what else the store says about when it arrived (a file's time, the date of a "From " line).
    place: file, and where in it, for people.
    """

    mailboxes: tuple[Mailbox, ...]
    body: bytes | Body
    place: str
    flags: Flags = ()
    internaldate: bytes = b""
    stored: datetime | None = None


class LocalProblem(msgspec.Struct, frozen=True):
    """A message or file that could not be read. place: as in LocalMessage."""

    mailbox: Mailbox | None
    place: str
    what: str


class LocalStore(Protocol):
    """A store of local mail at one path."""

    @property
    def kind(self) -> str:
        """What it is, for people: "Maildir", "Thunderbird profile"."""
        ...

    @property
    def octets(self) -> int:
        """About how much there is to read, for progress."""
        ...

    def mailboxes(self) -> list[Mailbox]:
        """Mailboxes that are known before reading, empty ones among them. Others may come with the messages."""
        ...

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, in the order of the store, each file read once. Memory is bounded whatever there is."""
        ...


class Format(Protocol):
    """A kind of store that can be recognised."""

    name: str
    """What --format takes, such as "maildir"."""

    def recognises(self, path: Path) -> bool:
        """Whether the path looks like such a store. Reads little; never raises."""
        ...

    def open(self, path: Path, *, exact: bool) -> LocalStore:
        """exact: take every octet as it is in the file, line ends too; only what the format itself added is undone."""
        ...
