"""A connection as the parts of a session share it: what is examined, what the server can do, and pipelined reading."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from backupd.errors import ProtocolError, ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus
from backupd.sources.imap.ahead import Ahead, Step
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
        self._opening: tuple[Mailbox, bytes] | None = None
        self.ahead = Ahead(connection)
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
        self.settle()
        while True:
            answer = self.connection.wait(self.connection.send(*parts))
            if not self.throttle.heed(answer.status) or answer.status.kind == b"OK":
                self.connection.check(answer.status, parts)
                return answer

    def insist(self, status: Status, command: bytes) -> None:
        """Raise Throttled or ServerRefused unless the status is OK: this command cannot be taken up in the middle."""
        if status.kind != b"OK":
            self.throttle.refuse(status)
            self.connection.check(status, [command])

    def settle(self) -> None:
        """Let go of what was asked for ahead, so that other commands may be sent."""
        if self.ahead:
            self.examined = None
            self.ahead.settle()

    def examine(self, mailbox: Mailbox) -> bool:
        """Open a mailbox for reading, and tell whether it was not open. Its answer is read by `answers`, whose first
        commands go out behind it: one round trip for both.
        """
        self.settle()
        if self.examined == mailbox.raw_name:
            return False
        self.examined = None
        self._opening = mailbox, self.connection.send(b"EXAMINE", string(mailbox.raw_name))
        return True

    def _opened(self, behind: Iterable[bytes]) -> bool:
        """Read the answer to EXAMINE, if one was sent. False when the server wanted a pause: all has to be sent again.

        behind: tags of the commands sent after it, which can only have failed when it did.
        Raises ServerRefused, also when the mailbox is not the one that was scanned.
        """
        if self._opening is None:
            return True
        (mailbox, tag), self._opening = self._opening, None
        answer = self.connection.wait(tag)
        if answer.status.kind != b"OK":
            for other in behind:
                for _ in self.connection.fetches(other):
                    pass
            if not self.throttle.heed(answer.status):
                self.connection.check(answer.status, [b"EXAMINE"])
            self.examine(mailbox)
            return False
        self.examined = mailbox.raw_name
        now = position(answer, b"UIDVALIDITY")
        before = self.generations.get(mailbox.raw_name, now)
        if now != before and now is not None and before is not None:
            self.close()
            raise ServerRefused(
                f"UIDVALIDITY went from {before} to {now} while the mailbox was being read",
                subject=mailbox.name,
                remedy="the next run reads it anew",
            )
        return True

    def close(self) -> None:
        """Cut the connection: what is under way cannot be called back."""
        self.examined = self._opening = None
        self.ahead.clear()
        self.connection.close()

    def answers(
        self, sets: Iterable[UidSet], items: bytes, *, more: bytes = b"", command: bytes = b"UID FETCH"
    ) -> Iterator[Fetch | Untagged | Ended]:
        """What the server says to a FETCH of each set, lazily, some commands ahead; an Ended closes each set.

        When the caller stops reading early, the connection is cut.
        """
        return self._answers(_lines(sets), lambda wire: self.connection.send(_fetch(command, wire, items, more)))

    def step(self, mailbox: Mailbox, sets: Iterable[UidSet], items: bytes) -> Step | None:
        """What to expect before a mailbox is opened and `answers` called; None if it is too much to be sent ahead."""
        lines = list(itertools.islice(_lines(sets), PIPELINED + 1))
        if len(lines) > PIPELINED:
            return None
        examine: list[Part] = [b"EXAMINE", string(mailbox.raw_name)]
        fetches: list[list[Part]] = [[_fetch(b"UID FETCH", wire, items, b"")] for _, wire in lines]
        return Step((mailbox.raw_name, *fetches), [examine, *fetches], sum(len(uids) for uids, _ in lines))

    def read(self, mailbox: Mailbox, sets: Iterable[UidSet], items: bytes) -> Iterator[Fetch | Untagged | Ended]:
        """As `answers`, of a mailbox that is opened first, or was opened ahead."""
        sets = list(sets)
        step = self.step(mailbox, sets, items)
        tags = self.ahead.take(step.key) if step else None
        if tags is None:
            self.examine(mailbox)
            return self.answers(sets, items)
        self.examined = None
        self._opening = mailbox, tags[0]
        sent = deque((uids, wire, tag) for (uids, wire), tag in zip(_lines(sets), tags[1:], strict=True))
        return self._answers(iter(()), lambda wire: self.connection.send(_fetch(b"UID FETCH", wire, items, b"")), sent)

    def _answers(
        self,
        todo: Iterator[tuple[UidSet, bytes]],
        send: Callable[[bytes], bytes],
        under_way: deque[tuple[UidSet, bytes, bytes]] | None = None,
    ) -> Iterator[Fetch | Untagged | Ended]:
        """todo: UIDs with how they are written; under_way: those that were sent, with their tags."""
        under_way = under_way or deque()
        opening = False
        try:
            while True:
                for uids, wire in itertools.islice(todo, PIPELINED - len(under_way)):
                    under_way.append((uids, wire, send(wire)))
                if len(under_way) < PIPELINED:
                    self.ahead.go_on()
                opening = True
                while not self._opened([tag for _, _, tag in under_way]):
                    under_way = deque((uids, wire, send(wire)) for uids, wire, _ in under_way)
                opening = False
                if not under_way:
                    return
                uids, _, tag = under_way[0]
                for answer in self.connection.fetches(tag):
                    if isinstance(answer, Tagged):
                        under_way.popleft()
                        yield Ended(uids, answer.status)
                    else:
                        yield answer
        finally:
            if under_way and not opening:  # refused, all that was sent behind it has been read
                self.close()


def _fetch(command: bytes, uids: bytes, items: bytes, more: bytes) -> bytes:
    return b"%s %s (%s)%s" % (command, uids, items, more)


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
