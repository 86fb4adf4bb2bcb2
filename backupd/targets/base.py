"""What every target of a restore offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

from backupd.model import Body, Flags, Mailbox


class Outgoing(msgspec.Struct, frozen=True):
    """A message to be written. key: the message id in the archive; fingerprint: keyed hash of its header, by which a
    target recognises it (see Fingerprint). internaldate is the source server's string, perhaps empty or absurd.
    """

    key: bytes
    fingerprint: bytes
    uid: int
    flags: Flags
    internaldate: bytes
    size: int
    body: bytes | Body


class Outcome(msgspec.Struct, frozen=True):
    """What became of one message.

    written: it is there now, exactly. altered: it is there, but something had to be left out or changed (what says
    which: a keyword refused, a date clamped ...). refused: it is not there, and what says why the target did not take
    it. unreadable: it is not there, for the archive could not give all of its bytes.
    """

    message: Outgoing
    result: Literal["written", "altered", "refused", "unreadable"]
    what: str = ""


class Fingerprint(Protocol):
    """Keyed hash of a message's header (bytes up to and with the first empty line): 16 bytes."""

    def __call__(self, header: bytes) -> bytes: ...


class Present(msgspec.Struct, frozen=True):
    """A message that is in the target already; a multiset of these tells what need not be written."""

    fingerprint: bytes
    size: int


class Target(Protocol):
    """A place mail is restored to. Used by one thread; close it when done.

    Mailboxes are named by the source's Mailbox; the target maps the name (delimiter, special use, --into prefix,
    escaping for files) and tells with `name_of` how.
    """

    @property
    def description(self) -> str:
        """For messages to people, without secrets."""
        ...

    def name_of(self, mailbox: Mailbox) -> str:
        """Where the mailbox's messages go, for plans and reports."""
        ...

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        """What the target's mailbox holds already; empty when it does not exist. Changes nothing."""
        ...

    def prepare(self, mailbox: Mailbox) -> None:
        """Make the mailbox (and its subscription and special use) if it does not exist."""
        ...

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Write messages, pipelined or batched as suits the target; an Outcome each, once its fate is certain.

        One message's refusal never stops the rest. Raises Transient errors when the connection is lost: the caller
        opens the target anew, asks `present` and goes on.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class FarTarget(Target, Protocol):
    """A target that every question takes a while to reach: it can be asked and told much at once.

    These two only save time. Where they fail, `prepare` and `write` find the reason, mailbox by mailbox.
    """

    def prepare_all(self, mailboxes: Sequence[Mailbox]) -> list[Mailbox]:
        """`prepare` these. Returns those it went well with."""
        ...

    def write_all(self, messages: Iterable[tuple[Mailbox, Outgoing]]) -> Iterator[tuple[Mailbox, Outcome]]:
        """`write` to several mailboxes that `prepare_all` went well with; the messages of one come together."""
        ...
