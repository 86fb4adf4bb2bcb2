"""The domain model: what a mailbox and a message are, for every source, target and operation.

Names, flags and dates of a server are kept as the bytes it sent: they are identities, and decoding them is for display.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

Flags = tuple[bytes, ...]
"""Flags and keywords as the server wrote them, sorted, without duplicates and without \\Recent (RFC 3501, 2.3.2)."""


class Mailbox(msgspec.Struct, frozen=True):
    """A mailbox as LIST describes it (RFC 3501, 7.2.2; RFC 6154 for special_use).

    raw_name is the identity: the bytes of the server (modified UTF-7, UTF-8, or neither). name is for people only.
    """

    raw_name: bytes
    name: str
    delimiter: bytes | None
    attributes: tuple[bytes, ...] = ()
    special_use: tuple[bytes, ...] = ()
    subscribed: bool = False

    @property
    def selectable(self) -> bool:
        """Whether it can hold messages: neither \\Noselect nor \\NonExistent (RFC 5258, 3)."""
        lowered = {attribute.lower() for attribute in self.attributes}
        return not lowered & {b"\\noselect", b"\\nonexistent"}


class MailboxStatus(msgspec.Struct, frozen=True):
    """Positions of a mailbox on its server: STATUS or SELECT data (RFC 3501 6.3.10; RFC 7162; RFC 8474).

    None where the server did not say.
    """

    messages: int | None = None
    uidnext: int | None = None
    uidvalidity: int | None = None
    highestmodseq: int | None = None
    mailbox_id: bytes | None = None


class MessageState(msgspec.Struct, frozen=True):
    """What may change about a message after it was delivered.

    gone: it came by POP3, and the server has it no more; it stays in the snapshots all the same.
    """

    uid: int
    flags: Flags
    labels: tuple[bytes, ...] = ()
    modseq: int | None = None
    gone: bool = False


class MessageFacts(msgspec.Struct, frozen=True):
    """What is fixed about a message once it has a UID, short of its bytes.

    internaldate is the server's string, unquoted ("17-Jul-1996 02:44:25 -0700"), empty if it sent none.
    size is RFC822.SIZE in octets. server_id is b"EMAILID:...", b"X-GM-MSGID:..." or b"UIDL:..." where the server
    has one.
    """

    uid: int
    internaldate: bytes
    size: int
    server_id: bytes | None = None


class Body(Protocol):
    """The bytes of one message, too large to be held at once (small ones are plain bytes)."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, in chunks of at most 16 MiB. May be called again."""
        ...


class Problem(msgspec.Struct, frozen=True):
    """A piece of mail that could not be read or written, and why. uid is None when it concerns the whole mailbox."""

    mailbox: str
    uid: int | None
    what: str
