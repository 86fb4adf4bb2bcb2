"""A connection as the parts of a session share it: what is examined, what the server can do, and pipelined reading."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.errors import ProtocolError, ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus
from backupd.sources.imap.throttle import Throttle
from backupd.wire.imap_commands import Part, string
from backupd.wire.imap_connection import Answer, Fetch, ImapConnection
from backupd.wire.imap_parser import Status, Tagged, Untagged, Value, number_or_none

COMMAND_OCTETS = 900
"""Yahoo takes commands of 1,000 octets; RFC 7162, 4 asks for up to 8,192 from others."""
PIPELINED = 4
"""FETCH commands under way at once: enough to keep a line of 100 ms round-trip time full with small messages."""


class Ended(NamedTuple):
    """One of the pipelined commands has come to its end."""

    uids: UidSet
    status: Status


class Link:
    """One connection and what is known of it.

    Args:
        generations: UIDVALIDITY of each mailbox at its last scan, shared by all sessions of a source, so that none
            reads messages by UIDs that mean others now.
    """

    def __init__(self, connection: ImapConnection, throttle: Throttle, generations: dict[bytes, int | None]) -> None:
        self.connection = connection
        self.throttle = throttle
        self.generations = generations
        self.examined: bytes | None = None
        """Raw name of the mailbox that is open now."""
        self.size_doubts = 0
        """Messages whose RFC822.SIZE did not fit, less those that came right the second time."""
        has = connection.has
        self.condstore = has(b"CONDSTORE") or has(b"QRESYNC")
        # Zimbra's QRESYNC leaves out [CLOSED], so that answers of two mailboxes cannot be told apart.
        self.qresync = b"QRESYNC" in connection.enabled and b"zimbra" not in connection.server.get(b"name", b"").lower()
        self.objectid = has(b"OBJECTID")
        self.gmail = has(b"X-GM-EXT-1")

    @property
    def facts(self) -> bytes:
        """FETCH items of all that is known of a message but its bytes."""
        return b" ".join((b"UID FLAGS INTERNALDATE RFC822.SIZE", *self._more_state(), *self._more_facts()))

    @property
    def state(self) -> bytes:
        """FETCH items of what may change about a message."""
        return b" ".join((b"UID FLAGS", *self._more_state()))

    def _more_state(self) -> Iterator[bytes]:
        if self.condstore:
            yield b"MODSEQ"
        if self.gmail:
            yield b"X-GM-LABELS"

    def _more_facts(self) -> Iterator[bytes]:
        if self.objectid:
            yield b"EMAILID"
        elif self.gmail:
            yield b"X-GM-MSGID"

    def ask(self, *parts: Part) -> Answer:
        """Send a command and wait for its end, with the pauses the server wants. Raises ServerRefused."""
        while True:
            answer = self.connection.wait(self.connection.send(*parts))
            if not self.throttle.heed(answer.status) or answer.status.kind == b"OK":
                self.connection.check(answer.status, parts)
                return answer

    def examine(self, mailbox: Mailbox) -> None:
        """Open a mailbox for reading, unless it is open. Raises ServerRefused, also when it is not the one scanned."""
        if self.examined == mailbox.raw_name:
            return
        self.examined = None
        answer = self.ask(b"EXAMINE", string(mailbox.raw_name))
        self.examined = mailbox.raw_name
        now = position(answer, b"UIDVALIDITY")
        before = self.generations.get(mailbox.raw_name, now)
        if now != before and now is not None and before is not None:
            self.examined = None
            raise ServerRefused(
                f"UIDVALIDITY went from {before} to {now} while the mailbox was being read",
                subject=mailbox.name,
                remedy="the next run reads it anew",
            )

    def answers(
        self, sets: Iterable[UidSet], items: bytes, *, more: bytes = b"", command: bytes = b"UID FETCH"
    ) -> Iterator[Fetch | Untagged | Ended]:
        """What the server says to a FETCH of each set, lazily, some commands ahead; an Ended closes each set.

        When the caller stops reading early, the connection is cut: what is under way cannot be called back.
        """
        connection = self.connection
        pending: deque[tuple[UidSet, bytes]] = deque()
        todo = iter(_lines(sets))
        done = False
        try:
            while True:
                while not done and len(pending) < PIPELINED:
                    following = next(todo, None)
                    if following is None:
                        done = True
                        break
                    uids, wire = following
                    pending.append((uids, connection.send(b"%s %s (%s)%s" % (command, wire, items, more))))
                if not pending:
                    done = True
                    return
                uids, tag = pending[0]
                for answer in connection.fetches(tag):
                    if isinstance(answer, Tagged):
                        pending.popleft()
                        yield Ended(uids, answer.status)
                    else:
                        yield answer
        finally:
            if pending:
                connection.close()


def _lines(sets: Iterable[UidSet]) -> Iterator[tuple[UidSet, bytes]]:
    """Each set in as many pieces as the length of commands demands."""
    for uids in sets:
        wires = list(uids.to_wire(COMMAND_OCTETS))
        for wire in wires:
            yield (uids if len(wires) == 1 else UidSet.parse(wire)), wire


def uid_set(uids: Iterable[int] | bytes) -> UidSet:
    """UIDs as the server gave them, one by one or as a set. Raises ProtocolError for what can be none."""
    try:
        return UidSet.parse(uids) if isinstance(uids, bytes) else UidSet.from_uids(uids)
    except ValueError:
        raise ProtocolError("the server speaks of UIDs that cannot be") from None


def position(answer: Answer, code: bytes) -> int | None:
    """The number of a response code such as UIDVALIDITY; None where it did not come or is no number."""
    arguments = answer.code(code)
    return number_or_none(arguments[0]) if arguments else None


def status_of(found: dict[bytes, Value]) -> MailboxStatus:
    """STATUS data (names in upper case) as positions; a HIGHESTMODSEQ below 1 counts as none (RFC 7162, 3.1.2.2)."""
    mailbox_id = found.get(b"MAILBOXID")
    return MailboxStatus(
        messages=number_or_none(found.get(b"MESSAGES")),
        uidnext=number_or_none(found.get(b"UIDNEXT")) or None,
        uidvalidity=number_or_none(found.get(b"UIDVALIDITY")),
        highestmodseq=number_or_none(found.get(b"HIGHESTMODSEQ")) or None,
        mailbox_id=object_id(mailbox_id),
    )


def object_id(value: Value) -> bytes | None:
    """The id in a list of one (RFC 8474, 4)."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, bytes) and value else None
