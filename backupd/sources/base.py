"""What every source of mail offers. POP3 and local files fit the same shape as IMAP.

A source is a factory of sessions; a session is one connection, used by one thread. Sessions raise errors of
`backupd.errors.ServerError`; of these, Transient ones mean: open another session and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from backupd.mail.uidset import UidSet
from backupd.model import Body, Mailbox, MailboxStatus, MessageFacts, MessageState


class Identity(msgspec.Struct, frozen=True):
    """Which server this is: kind ("imap"), its address, what it says of itself (RFC 2971) and what it can do."""

    kind: str
    host: str
    port: int
    server: str = ""
    capabilities: tuple[str, ...] = ()


class Discovered(msgspec.Struct, frozen=True):
    """A mailbox found by discovery; fields of status are None where the server did not say. size: octets (RFC 8438)."""

    mailbox: Mailbox
    status: MailboxStatus
    size: int | None = None


class Known(msgspec.Struct, frozen=True):
    """What the last snapshot knows of a mailbox. states is called only when flags must be compared one by one."""

    status: MailboxStatus
    uids: UidSet
    states: Callable[[], Iterable[MessageState]]


class Scan(msgspec.Struct, frozen=True):
    """What a mailbox is now, compared with what was known.

    status: positions as of this scan (from EXAMINE, so that what changes later is seen by the next run).
    uids: every UID the server holds now. vanished: known, and gone. changed: known, and with other flags, labels or
    MODSEQ. reset: UIDVALIDITY is another one (or was never known), so nothing of what was known applies: vanished and
    changed are empty, and every UID counts as new.
    """

    status: MailboxStatus
    uids: UidSet
    vanished: UidSet
    changed: tuple[MessageState, ...]
    reset: bool = False


class Described(msgspec.Struct, frozen=True):
    """A message without its bytes."""

    facts: MessageFacts
    state: MessageState


class Fetched(msgspec.Struct, frozen=True):
    """A message whole. note says what was odd about it though it could be read (a size that never matched ...)."""

    facts: MessageFacts
    state: MessageState
    body: bytes | Body
    note: str = ""


class Unreadable(msgspec.Struct, frozen=True):
    """A message the server could not or would not give."""

    uid: int
    what: str


class Session(Protocol):
    """One connection to a source. Not thread-safe; close it when done."""

    @property
    def identity(self) -> Identity: ...

    def discover(self) -> list[Discovered]:
        """All mailboxes the account has, with their positions where the server gives them in the same round trip."""
        ...

    def scan(self, mailbox: Mailbox, known: Known | None) -> Scan:
        """Compare a mailbox with what is known of it. Reads no message."""
        ...

    def describe(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
        """Facts and state of messages, without their bytes. UIDs that are gone meanwhile are left out."""
        ...

    def headers(self, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
        """(UID, header bytes up to and with the empty line), to recognise messages that are known already."""
        ...

    def fetch(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched | Unreadable]:
        """Messages with their bytes, in any order. UIDs that are gone meanwhile are left out; one that the server
        refuses comes as Unreadable, and the others go on. Never changes a flag.
        """
        ...

    def expect_scans(self, wanted: Sequence[tuple[Mailbox, Known | None]]) -> None:
        """A hint: `scan` comes next for these, in this order. Over a network, a session asks ahead then.

        Errors are those of `scan`, and may come here. What comes in another order, or not at all, is still right.
        """
        ...

    def expect_fetches(self, wanted: Sequence[tuple[Mailbox, UidSet]]) -> None:
        """A hint: `fetch` comes next for these, in this order; as `expect_scans`."""
        ...

    def close(self) -> None:
        """End the session politely; never raises."""
        ...


class Source(Protocol):
    """A place mail is read from."""

    @property
    def connections(self) -> int:
        """How many sessions may be open at once."""
        ...

    def open(self) -> Session:
        """Connect and log in. Raises ConnectionFailed, LoginRefused, CertificateRefused."""
        ...
