"""Getting messages into mailboxes as fast as the server takes them, with the fate of each known for certain.

Messages go in MULTIAPPEND batches (RFC 3502) of about a megabyte, several commands ahead of their answers. A batch is
all or nothing, so one that is refused is sent again in halves, down to the message that is to blame. Only a tagged OK
makes an outcome: when the connection is lost, what was not answered may be there or not, and the caller looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from backupd.errors import ConnectionLost, ServerError
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.targets.base import Outcome, Outgoing
from backupd.targets.content import UNREADABLE
from backupd.targets.imap.line_ends import Stored
from backupd.targets.imap.preparing import Ready, Rules, prepare, without
from backupd.wire.imap_commands import Part, string
from backupd.wire.imap_connection import Fetch, ImapConnection
from backupd.wire.imap_parser import Status, Value
from backupd.wire.stream import show

BATCH_MESSAGES = 200
BATCH_OCTETS = 1 << 20
WINDOW_COMMANDS = 32
"""Commands sent and not answered: with a message or two in each mailbox, 32 mailboxes in a round trip."""
WINDOW_OCTETS = 8 << 20
"""Octets sent and not answered, unless one message alone is larger."""

FULL_AFTER = 10
"""Messages refused for want of room, one after the other, until no more are tried."""

MOST_SUSPECTS = 6
"""Keywords of one message that are suspected one by one when it is refused."""

_CHANGED = "the server stores it with its line ends changed"

_FOR_A_WHILE = frozenset({b"UNAVAILABLE", b"INUSE", b"SERVERBUG"})
_NOT_FOR_CONTENT = frozenset({b"OVERQUOTA", b"TOOBIG", b"APPENDLIMIT", b"NOPERM", b"READ-ONLY"}) | _FOR_A_WHILE


@dataclass
class Place:
    """A mailbox that messages go to.

    Args:
        mailbox: as the snapshot knows it.
        name: its raw name in the account.
        rules: what it takes.
        create: makes the mailbox, for a server that says it is gone ([TRYCREATE]).
        is_there_changed: whether the mailbox held a message before, with its line ends changed by the server.
    """

    mailbox: Mailbox
    name: bytes
    rules: Rules
    create: Callable[[], None]
    is_there_changed: Callable[[Outgoing], bool]
    created: bool = field(default=False, init=False)


class _Sent(NamedTuple):
    """Messages under way in one APPEND."""

    place: Place
    tag: bytes
    batch: list[Ready]
    octets: int


class _Looking(NamedTuple):
    """Messages that were stored, and are looked at. sought: those in doubt, by UID; tags: of EXAMINE and FETCH."""

    place: Place
    tags: tuple[bytes, bytes]
    batch: list[Ready]
    sought: dict[int, Ready]


Settled = tuple[Mailbox, Outcome]


class Appender:
    """Writes to the mailboxes of an account, in the order in which messages come.

    What is under way is answered in the order in which it was sent; only when nothing is may something be asked and
    waited for.
    """

    def __init__(self, connection: ImapConnection) -> None:
        self._connection = connection
        self._batch_messages = BATCH_MESSAGES if connection.has(b"MULTIAPPEND") else 1
        self._window_commands = WINDOW_COMMANDS if self._batch_messages > 1 else BATCH_MESSAGES
        self._under_way: deque[_Sent | _Looking] = deque()
        self._octets = 0
        self._refused: deque[tuple[Place, list[Ready], Status]] = deque()
        self._refused_keywords: set[bytes] = set()
        self._no_room_for: int | None = None
        self._no_room_count = 0

    def run(self, messages: Iterable[tuple[Place, Outgoing]]) -> Iterator[Settled]:
        """Write messages. Raises ConnectionLost and ProtocolError; the caller then opens a new connection."""
        batch: list[Ready] = []
        octets = 0
        last: Place | None = None
        try:
            for place, message in messages:
                if last and batch and place is not last:
                    yield from self._send(last, batch, octets)
                    batch, octets = [], 0
                last = place
                ready = self._fit(place, message)
                if isinstance(ready, Outcome):
                    yield place.mailbox, ready
                    continue
                alone = not message.size or message.size > BATCH_OCTETS
                if batch and (alone or octets + message.size > BATCH_OCTETS or len(batch) >= self._batch_messages):
                    yield from self._send(place, batch, octets)
                    batch, octets = [], 0
                batch.append(ready)
                octets += message.size
                if alone:  # a literal without octets would cancel a whole MULTIAPPEND (RFC 3502, 6.3.11)
                    yield from self._send(place, batch, octets)
                    batch, octets = [], 0
            if last and batch:
                yield from self._send(last, batch, octets)
            yield from self._settle_all()
        finally:
            self._let_end()

    def _let_end(self) -> None:
        """When the caller stops early: wait for what is under way, which cannot be called back.

        Otherwise the server might still be writing while the next run looks at what is there.
        """
        try:
            while self._under_way and not self._connection.closed:
                each = self._under_way.popleft()
                for tag in each.tags if isinstance(each, _Looking) else (each.tag,):
                    self._connection.wait(tag)
        except ServerError:  # the caller stops for a reason of its own; a lost connection shows at its next use
            self._connection.close()

    def _fit(self, place: Place, message: Outgoing) -> Ready | Outcome:
        ready = self._no_room(message) or prepare(message, place.rules, self._refused_keywords)
        if isinstance(ready, Ready) and ready.octets.odd and place.is_there_changed(message):
            return Outcome(message, "altered", f"it was there before; {_CHANGED}")
        return ready

    def _no_room(self, message: Outgoing) -> Outcome | None:
        """The outcome of a message for which there is no room, without asking the server once more."""
        full = self._no_room_count >= FULL_AFTER
        if full or (self._no_room_for is not None and message.size >= self._no_room_for):
            return Outcome(message, "refused", "not tried: the account is over its quota")
        return None

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, place: Place, batch: list[Ready], octets: int) -> Iterator[Settled]:
        while self._under_way and (
            len(self._under_way) >= self._window_commands or self._octets + octets > WINDOW_OCTETS
        ):  # fmt: skip
            yield from self._settle()
            yield from self._sort_out_refused()
        self._under_way.append(self._command(place, batch))

    def _command(self, place: Place, batch: list[Ready]) -> _Sent:
        parts: list[Part] = [b"APPEND", string(place.name)]
        octets = 0
        for ready in batch:
            parts += ready.parts()
            octets += ready.message.size
        try:
            tag = self._connection.send(*parts)
        except BaseException as error:
            self._connection.close()  # half a command may be with the server
            if isinstance(error, UNREADABLE):
                raise ConnectionLost(
                    f"given up, since a message could not be read again while it was sent: {error}",
                    subject=self._connection.address,
                ) from error
            raise
        self._octets += octets
        return _Sent(place, tag, batch, octets)

    def _ask(self, place: Place, batch: list[Ready]) -> Status:
        """Send messages when nothing is under way, and wait for their own answer."""
        sent = self._command(place, batch)
        self._octets -= sent.octets
        status = self._connection.wait(sent.tag).status
        if status.kind == b"OK":
            self._no_room_count = 0
            if looking := self._look(place, batch, status):
                self._looked(looking)
        return status

    # -- answers -------------------------------------------------------------------------------------------------------

    def _settle_all(self) -> Iterator[Settled]:
        while self._under_way:
            yield from self._settle()
            yield from self._sort_out_refused()

    def _settle(self) -> Iterator[Settled]:
        """Take the oldest answer."""
        each = self._under_way.popleft()
        if isinstance(each, _Looking):
            self._looked(each)
            yield from ((each.place.mailbox, ready.outcome()) for ready in each.batch)
            return
        try:
            status = self._connection.wait(each.tag).status
        except BaseException:
            self._connection.close()
            raise
        self._octets -= each.octets
        if status.kind == b"OK":
            self._no_room_count = 0
            if looking := self._look(each.place, each.batch, status):
                self._under_way.append(looking)
            else:
                yield from ((each.place.mailbox, ready.outcome()) for ready in each.batch)
        else:
            self._refused.append((each.place, each.batch, status))

    def _look(self, place: Place, batch: list[Ready], status: Status) -> _Looking | None:
        """Ask whether the server changed the line ends of messages, if it tells where they are (RFC 4315)."""
        odd = [number for number, ready in enumerate(batch) if ready.octets.odd and not ready.changed]
        if not odd or status.code != b"APPENDUID" or len(status.arguments) < 2:
            return None
        uids = list(uids_in(status.arguments[1]))
        if len(uids) != len(batch):
            return None
        sought = {uids[number]: batch[number] for number in odd}
        examine = self._connection.send(b"EXAMINE", string(place.name))
        fetch = self._connection.send(b"UID FETCH %d:%d (UID RFC822.SIZE)" % (min(sought), max(sought)))
        return _Looking(place, (examine, fetch), batch, sought)

    def _looked(self, looking: _Looking) -> None:
        """Read what `_look` asked for."""
        examine, fetch = looking.tags
        self._connection.check(self._connection.wait(examine).status, [b"EXAMINE"])
        for answer in self._connection.fetches(fetch):
            if isinstance(answer, Fetch) and answer.uid in looking.sought and answer.size is not None:
                ready = looking.sought[answer.uid]
                if answer.size != ready.message.size:
                    ready.remarks.append(f"{_CHANGED}: {ready.message.size} octets became {answer.size}")

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _sort_out_refused(self) -> Iterator[Settled]:
        """Find out about what was refused, once everything else is answered."""
        while self._refused:
            while self._under_way:
                yield from self._settle()
            yield from self._sort_out(*self._refused.popleft())

    def _sort_out(self, place: Place, batch: list[Ready], status: Status) -> Iterator[Settled]:
        """Send a refused batch again in halves, down to the message that is to blame."""
        if len(batch) == 1:
            yield place.mailbox, self._judge(place, batch[0], status)
            return
        middle = (len(batch) + 1) // 2
        for half in (batch[:middle], batch[middle:]):
            left: list[Ready] = []
            for ready in half:
                hopeless = self._no_room(ready.message)
                if hopeless:
                    yield place.mailbox, hopeless
                else:
                    left.append(ready)
            if not left:
                continue
            status = self._ask(place, left)
            if status.kind == b"OK":
                yield from ((place.mailbox, ready.outcome()) for ready in left)
            else:
                yield from self._sort_out(place, left, status)

    def _judge(self, place: Place, ready: Ready, status: Status) -> Outcome:
        """What becomes of a message that the server refused by itself."""
        if status.code == b"TRYCREATE":
            if not place.created:  # else it was sent before the mailbox was made
                place.created = True
                place.create()
            status = self._ask(place, [ready])
        if status.code in _FOR_A_WHILE and not ready.again:
            ready.again = True
            status = self._ask(place, [ready])
        if status.kind == b"OK":
            return ready.outcome()
        if status.code == b"OVERQUOTA":
            self._no_room_count += 1
            size = ready.message.size
            self._no_room_for = size if self._no_room_for is None else min(size, self._no_room_for)
        elif status.code not in _NOT_FOR_CONTENT and (
            self._without_keywords(place, ready) or self._with_other_ends(place, ready)
        ):
            return ready.outcome()
        return Outcome(ready.message, "refused", f"the server refused it: {_reason(status)}")

    def _without_keywords(self, place: Place, ready: Ready) -> bool:
        """Whether the server takes the message without one of its keywords, or without all."""
        keywords = ready.keywords
        suspects = [(one,) for one in keywords] if 1 < len(keywords) <= MOST_SUSPECTS else []
        wanted = ready.flags
        for left in [*suspects, keywords] if keywords else []:
            ready.flags = tuple(flag for flag in wanted if flag not in left)
            if self._ask(place, [ready]).kind == b"OK":
                ready.remarks.append(without(left))
                if len(left) == 1:
                    self._refused_keywords.add(left[0].lower())
                return True
        ready.flags = wanted
        return False

    def _with_other_ends(self, place: Place, ready: Ready) -> bool:
        """Whether the server takes the message when its lines end as IMAP wants."""
        if not ready.octets.odd:
            return False
        ready.changed = Stored(ready.message)
        if self._ask(place, [ready]).kind != b"OK":
            return False
        ready.remarks.append("the server refuses its line ends, so they were changed to CRLF")
        return True


def uids_in(value: Value) -> Iterator[int]:
    """The UIDs that APPENDUID tells, in the order of the messages."""
    try:
        yield from UidSet.parse(value) if isinstance(value, bytes) else ()
    except ValueError:  # nothing hangs on them but a remark
        return


def _reason(status: Status) -> str:
    words = f"[{status.code.decode('ascii', 'replace')}] " if status.code else ""
    return f"{words}{show(status.text) or status.kind.decode()}"
