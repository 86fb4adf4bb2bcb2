"""Getting messages into a mailbox as fast as the server takes them, with the fate of each known for certain.

Messages go in MULTIAPPEND batches (RFC 3502) of about a megabyte, several commands ahead of their answers. A batch is
all or nothing, so one that is refused is sent again in halves, down to the message that is to blame. Only a tagged OK
makes an outcome: when the connection is lost, what was not answered may be there or not, and the caller looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from backupd.errors import ConnectionLost, ServerError
from backupd.mail.uidset import UidSet
from backupd.targets.base import Outcome, Outgoing
from backupd.targets.content import UNREADABLE
from backupd.targets.imap.line_ends import Stored
from backupd.targets.imap.preparing import Ready, Rules, prepare, without
from backupd.wire.imap_commands import Part, string
from backupd.wire.imap_connection import Fetch, ImapConnection
from backupd.wire.imap_parser import Status, Value, show

BATCH_MESSAGES = 200
BATCH_OCTETS = 1 << 20
WINDOW_COMMANDS = 4
WINDOW_OCTETS = 8 << 20
"""Octets sent and not answered, unless one message alone is larger."""

FULL_AFTER = 10
"""Messages refused for want of room, one after the other, until no more are tried."""

MOST_SUSPECTS = 6
"""Keywords of one message that are suspected one by one when it is refused."""

_CHANGED = "the server stores it with its line ends changed"

_FOR_A_WHILE = frozenset({b"UNAVAILABLE", b"INUSE", b"SERVERBUG"})
_NOT_FOR_CONTENT = frozenset({b"OVERQUOTA", b"TOOBIG", b"APPENDLIMIT", b"NOPERM", b"READ-ONLY"}) | _FOR_A_WHILE


class _Sent(NamedTuple):
    """A command under way."""

    tag: bytes
    batch: list[Ready]
    octets: int


class Appender:
    """Writes to one mailbox.

    Args:
        name: raw name of the mailbox.
        rules: what it takes.
        create: makes the mailbox, for a server that says it is gone ([TRYCREATE]).
        is_there_changed: whether the mailbox held a message before, with its line ends changed by the server.
    """

    def __init__(
        self,
        connection: ImapConnection,
        name: bytes,
        rules: Rules,
        create: Callable[[], None],
        is_there_changed: Callable[[Outgoing], bool],
    ) -> None:
        self._connection, self._name, self._rules, self._create = connection, name, rules, create
        self._is_there_changed = is_there_changed
        self._examined = False
        self._batch_messages = BATCH_MESSAGES if connection.has(b"MULTIAPPEND") else 1
        self._window_commands = WINDOW_COMMANDS if self._batch_messages > 1 else BATCH_MESSAGES
        self._sent: deque[_Sent] = deque()
        self._octets = 0
        self._refused_keywords: set[bytes] = set()
        self._no_room_for: int | None = None
        self._no_room_count = 0
        self._created = False

    def run(self, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Write messages. Raises ConnectionLost and ProtocolError; the caller then opens a new connection."""
        batch: list[Ready] = []
        octets = 0
        try:
            for message in messages:
                ready = self._fit(message)
                if isinstance(ready, Outcome):
                    yield ready
                    continue
                alone = not message.size or message.size > BATCH_OCTETS
                if batch and (alone or octets + message.size > BATCH_OCTETS or len(batch) >= self._batch_messages):
                    yield from self._send(batch, octets)
                    batch, octets = [], 0
                batch.append(ready)
                octets += message.size
                if alone:  # a literal without octets would cancel a whole MULTIAPPEND (RFC 3502, 6.3.11)
                    yield from self._send(batch, octets)
                    batch, octets = [], 0
            if batch:
                yield from self._send(batch, octets)
            while self._sent:
                yield from self._settle()
        finally:
            self._let_end()

    def _let_end(self) -> None:
        """When the caller stops early: wait for what is under way, which cannot be called back.

        Otherwise the server might still be writing while the next run looks at what is there.
        """
        try:
            while self._sent and not self._connection.closed:
                self._connection.wait(self._sent.popleft().tag)
        except ServerError:  # the caller stops for a reason of its own; a lost connection shows at its next use
            self._connection.close()

    def _fit(self, message: Outgoing) -> Ready | Outcome:
        ready = self._no_room(message) or prepare(message, self._rules, self._refused_keywords)
        if isinstance(ready, Ready) and ready.octets.odd and self._is_there_changed(message):
            return Outcome(message, "altered", f"it was there before; {_CHANGED}")
        return ready

    def _no_room(self, message: Outgoing) -> Outcome | None:
        """The outcome of a message for which there is no room, without asking the server once more."""
        full = self._no_room_count >= FULL_AFTER
        if full or (self._no_room_for is not None and message.size >= self._no_room_for):
            return Outcome(message, "refused", "not tried: the account is over its quota")
        return None

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, batch: list[Ready], octets: int) -> Iterator[Outcome]:
        while self._sent and (
            len(self._sent) >= self._window_commands or self._octets + octets > WINDOW_OCTETS
        ):  # fmt: skip
            yield from self._settle()
        self._sent.append(self._command(batch))

    def _command(self, batch: list[Ready]) -> _Sent:
        parts: list[Part] = [b"APPEND", string(self._name)]
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
        return _Sent(tag, batch, octets)

    def _ask(self, ready: Ready) -> Status:
        """Send one message, and wait for its own answer."""
        sent = self._command([ready])
        self._octets -= sent.octets
        return self._connection.wait(sent.tag).status

    # -- answers -------------------------------------------------------------------------------------------------------

    def _settle(self) -> Iterator[Outcome]:
        """Take the oldest answer."""
        sent = self._sent.popleft()
        try:
            status = self._connection.wait(sent.tag).status
        except BaseException:
            self._connection.close()
            raise
        self._octets -= sent.octets
        if status.kind == b"OK":
            self._no_room_count = 0
            self._look(sent.batch, status)
            for ready in sent.batch:
                yield ready.outcome()
        elif len(sent.batch) > 1:
            yield from self._halve(sent.batch)
        else:
            yield self._judge(sent.batch[0], status)

    def _look(self, batch: list[Ready], status: Status) -> None:
        """See whether the server changed the line ends of messages, as far as it tells where they are (RFC 4315)."""
        odd = [number for number, ready in enumerate(batch) if ready.octets.odd and not ready.changed]
        if not odd or status.code != b"APPENDUID" or len(status.arguments) < 2:
            return
        uids = list(uids_in(status.arguments[1]))
        if len(uids) != len(batch):
            return
        if not self._examined:
            self._connection.command(b"EXAMINE", string(self._name))
            self._examined = True
        news = self._connection.send(b"NOOP")
        sought = {uids[number]: batch[number] for number in odd}
        tag = self._connection.send(b"UID FETCH %d:%d (UID RFC822.SIZE)" % (min(sought), max(sought)))
        # Dovecot may end the NOOP after the FETCH, so that is read first.
        for answer in self._connection.fetches(tag):
            if isinstance(answer, Fetch) and answer.uid in sought and answer.size is not None:
                ready = sought[answer.uid]
                if answer.size != ready.message.size:
                    ready.remarks.append(f"{_CHANGED}: {ready.message.size} octets became {answer.size}")
        self._connection.wait(news)

    def _halve(self, batch: list[Ready]) -> Iterator[Outcome]:
        """Send a refused batch again as two, ahead of all others' answers."""
        left: list[Ready] = []
        for ready in batch:
            hopeless = self._no_room(ready.message)
            if hopeless:
                yield hopeless
            else:
                left.append(ready)
        middle = (len(left) + 1) // 2
        halves = [half for half in (left[:middle], left[middle:]) if half]
        self._sent.extendleft(reversed([self._command(half) for half in halves]))

    def _judge(self, ready: Ready, status: Status) -> Outcome:
        """What becomes of a message that the server refused by itself."""
        if status.code == b"TRYCREATE":
            if not self._created:  # else it was sent before the mailbox was made
                self._created = True
                self._create()
            status = self._ask(ready)
        if status.code in _FOR_A_WHILE and not ready.again:
            ready.again = True
            status = self._ask(ready)
        if status.kind == b"OK":
            self._look([ready], status)
            return ready.outcome()
        if status.code == b"OVERQUOTA":
            self._no_room_count += 1
            size = ready.message.size
            self._no_room_for = size if self._no_room_for is None else min(size, self._no_room_for)
        elif status.code not in _NOT_FOR_CONTENT and (self._without_keywords(ready) or self._with_other_ends(ready)):
            return ready.outcome()
        return Outcome(ready.message, "refused", f"the server refused it: {_reason(status)}")

    def _without_keywords(self, ready: Ready) -> bool:
        """Whether the server takes the message without one of its keywords, or without all."""
        keywords = ready.keywords
        suspects = [(one,) for one in keywords] if 1 < len(keywords) <= MOST_SUSPECTS else []
        wanted = ready.flags
        for left in [*suspects, keywords] if keywords else []:
            ready.flags = tuple(flag for flag in wanted if flag not in left)
            status = self._ask(ready)
            if status.kind == b"OK":
                self._look([ready], status)
                ready.remarks.append(without(left))
                if len(left) == 1:
                    self._refused_keywords.add(left[0].lower())
                return True
        ready.flags = wanted
        return False

    def _with_other_ends(self, ready: Ready) -> bool:
        """Whether the server takes the message when its lines end as IMAP wants."""
        if not ready.octets.odd:
            return False
        ready.changed = Stored(ready.message)
        if self._ask(ready).kind != b"OK":
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
