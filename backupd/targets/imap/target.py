"""An IMAP account that mail is restored to.

What is there already is found by headers and sizes, read with EXAMINE and BODY.PEEK alone. No extension is needed;
those that are there make it faster (MULTIAPPEND, LITERAL+) or better (CREATE-SPECIAL-USE, BINARY).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeGuard

from backupd.errors import ServerRefused
from backupd.mail.names import display_name
from backupd.model import Mailbox
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from backupd.targets.imap.append import Appender, Place
from backupd.targets.imap.line_ends import Stored
from backupd.targets.imap.listing import list_account
from backupd.targets.imap.names import NameMap
from backupd.targets.imap.preparing import Rules
from backupd.wire.imap_commands import Part, string
from backupd.wire.imap_connection import Answer, Fetch, ImapConnection, ImapSettings
from backupd.wire.imap_connection import connect as connect_to
from backupd.wire.imap_parser import Tagged, Value, number_or_none, pairs
from backupd.wire.stream import show

_ITEMS = b"(UID RFC822.SIZE BODY.PEEK[HEADER])"
_WINDOW = 128
"""Commands, or a few for one mailbox, that are sent before the first answer is read."""
_FINAL_CODES = frozenset({b"OVERQUOTA", b"LIMIT", b"NOPERM"})


class ImapTarget:
    """Restores into an IMAP account; connects at once.

    Args:
        settings: the account.
        fingerprint: how messages that are there are recognised.
        into: names of mailboxes, separated by "/", below which all mailboxes go.
        connect: opens the connection.

    Raises what `connect` raises.
    """

    def __init__(
        self,
        settings: ImapSettings,
        fingerprint: Fingerprint,
        *,
        into: str = "",
        connect: Callable[[ImapSettings], ImapConnection] = connect_to,
    ) -> None:
        self._description = f"imap:{settings.username}@{settings.address}"
        self._fingerprint = fingerprint
        self._connection = connect(settings)
        try:
            listed, namespace = list_account(self._connection)
            self._names = NameMap(listed, namespace, into)
        except BaseException:
            self._connection.close()
            raise
        self._remarks: dict[bytes, str] = {}
        self._subscribed: set[bytes] = set()
        self._known_rules: dict[bytes, Rules] = {}
        self._found: dict[bytes, Counter[Present]] = {}
        self._written = False

    @property
    def description(self) -> str:
        """User name and server."""
        return self._description

    def name_of(self, mailbox: Mailbox) -> str:
        """The mailbox's name in this account."""
        return display_name(self._names.name(mailbox))

    def close(self) -> None:
        """Log out."""
        self._connection.logout()

    # -- reading -------------------------------------------------------------------------------------------------------

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        """Headers and sizes of the messages there. Raises ServerRefused if the mailbox exists and cannot be read."""
        if self._written:
            self._found.clear()
            self._written = False
        found: Counter[Present] = Counter()
        name = self._names.name(mailbox)
        if not self._names.exists(name):
            return found
        answer = self._connection.wait(self._connection.send(b"EXAMINE", string(name)))
        if answer.status.code in (b"NONEXISTENT", b"TRYCREATE"):
            return found
        self._connection.check(answer.status, [b"EXAMINE", name])
        self._found[name] = found
        count = _count(answer)
        if not count:
            return found
        for fetch in self._fetched(count):
            if fetch.size is not None:
                body = fetch.body or b""
                header = body if isinstance(body, bytes) else b"".join(body.chunks())
                found[Present(self._fingerprint(header), fetch.size)] += 1
        return found

    def _fetched(self, count: int) -> Iterator[Fetch]:
        """Header and size of each message, once; where the server breaks off, the rest one by one.

        count: how many messages the mailbox had when it was opened.
        """
        connection = self._connection
        last, more = 0, True
        while more:
            asked = connection.send(b"UID FETCH %d:*" % (last + 1), _ITEMS)
            for answer in connection.fetches(asked):
                if isinstance(answer, Fetch):
                    # Some servers tell of a message twice; counted twice, it would hide one that is missing.
                    if answer.uid is not None and answer.uid > last and answer.has_body:
                        last = answer.uid
                        yield answer
                elif isinstance(answer, Tagged) and answer.status.kind != b"OK":
                    yield from self._one_by_one(last)
                    return
            # A restore that was killed a moment ago may have left commands that the server is still at.
            news = connection.wait(connection.send(b"NOOP"))
            now = max((one.number or 0 for one in news.of(b"EXISTS")), default=0)
            more, count = now > count, max(now, count)

    def _one_by_one(self, after: int) -> Iterator[Fetch]:
        """The messages that a refused FETCH did not bring. What is refused by itself too cannot be recognised."""
        connection = self._connection
        listed = connection.command(b"UID SEARCH ALL")
        uids = sorted(int(value) for one in listed.of(b"SEARCH") for value in one.values if _is_number(value))
        missing = iter([uid for uid in uids if uid > after])
        waiting: deque[tuple[int, bytes]] = deque()
        while True:
            for uid in islice(missing, _WINDOW - len(waiting)):
                waiting.append((uid, connection.send(b"UID FETCH %d" % uid, _ITEMS)))
            if not waiting:
                return
            uid, tag = waiting.popleft()
            given = False
            for answer in connection.fetches(tag):
                if isinstance(answer, Fetch) and answer.uid == uid and answer.has_body and not given:
                    given = True
                    yield answer

    # -- writing -------------------------------------------------------------------------------------------------------

    def prepare(self, mailbox: Mailbox) -> None:
        """Create the mailbox under the first name the server takes, and subscribe to it. Raises ServerRefused."""
        if mailbox.selectable:
            name = self._names.name(mailbox)
            if not self._names.exists(name):
                name = self._create_one(mailbox)
            self._names.settle(mailbox, name)
        if mailbox.subscribed and mailbox.raw_name not in self._subscribed:
            name = self._names.name(mailbox)
            self._subscribe(mailbox, self._connection.wait(self._connection.send(b"SUBSCRIBE", string(name))))

    def _subscribe(self, mailbox: Mailbox, answer: Answer) -> None:
        self._subscribed.add(mailbox.raw_name)
        if answer.status.kind != b"OK":
            self._remarks[mailbox.raw_name] = f"the mailbox could not be subscribed: {show(answer.status.text)}"

    def prepare_all(self, mailboxes: Sequence[Mailbox]) -> list[Mailbox]:
        """Do for these what `prepare` and `write` do first, in three round trips. Returns those it went well with."""
        new = [each for each in mailboxes if each.selectable and not self._names.exists(self._names.name(each))]
        create = [[b"CREATE", string(self._names.name(each)), *self._with_uses(each)] for each in new]
        for each, answers in zip(new, self._pipelined([one] for one in create), strict=True):
            if answers[0].status.kind == b"OK":
                self._names.settle(each, self._names.name(each))
        there = [each for each in mailboxes if self._names.exists(self._names.name(each))]
        wanted = [each for each in there if each.subscribed]
        subscribe = ([[b"SUBSCRIBE", string(self._names.name(each))]] for each in wanted)
        for each, answers in zip(wanted, self._pipelined(subscribe), strict=True):
            self._subscribe(each, answers[0])
        names = list(dict.fromkeys(self._names.name(each) for each in there))
        for name, answers in zip(names, self._pipelined(self._ask_rules(name) for name in names), strict=True):
            if answers[0].status.kind == b"OK":
                self._known_rules[name] = self._read_rules(answers)
        return [each for each in there if self._names.name(each) in self._known_rules]

    def _with_uses(self, mailbox: Mailbox) -> list[Part]:
        uses = self._names.free_uses(mailbox) if self._connection.has(b"CREATE-SPECIAL-USE") else []
        return [b"(USE (%s))" % b" ".join(uses)] if uses else []

    def _pipelined(self, groups: Iterable[list[list[Part]]]) -> Iterator[list[Answer]]:
        """The answers to each group of commands, in order; more groups are sent before they are read."""
        connection = self._connection
        waiting: deque[list[bytes]] = deque()
        todo = iter(groups)
        while True:
            for group in islice(todo, _WINDOW - len(waiting)):
                waiting.append([connection.send(*command) for command in group])
            if not waiting:
                return
            yield [connection.wait(tag) for tag in waiting.popleft()]

    def _create_one(self, mailbox: Mailbox) -> bytes:
        """Make the mailbox, and return its name."""
        connection = self._connection
        uses = self._with_uses(mailbox)
        first: ServerRefused | None = None
        for name in self._names.candidates(mailbox):
            answer = None
            if uses:
                answer = connection.wait(connection.send(b"CREATE", string(name), *uses))
            if answer is None or answer.status.kind != b"OK":
                answer = connection.wait(connection.send(b"CREATE", string(name)))
            status = answer.status
            if status.kind == b"OK" or status.code == b"ALREADYEXISTS" or self._is_there(name):
                return name
            first = first or ServerRefused(
                f"the server does not create it: {show(status.text) or show(status.code)}",
                code=status.code,
                subject=display_name(name),
                remedy="choose another place with --into",
            )
            if status.code in _FINAL_CODES:
                break
        assert first is not None  # noqa: S101 there is at least one candidate
        raise first

    def _is_there(self, name: bytes) -> bool:
        """Whether the mailbox exists though LIST did not show it, as servers without response codes would hide."""
        return self._connection.wait(self._connection.send(b"STATUS", string(name), b"(MESSAGES)")).status.kind == b"OK"

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Append messages. Raises ServerRefused when the mailbox cannot be opened, and errors of the connection."""
        self._place(mailbox)
        return (outcome for _, outcome in self.write_all((mailbox, message) for message in messages))

    def write_all(self, messages: Iterable[tuple[Mailbox, Outgoing]]) -> Iterator[tuple[Mailbox, Outcome]]:
        """As `write`, for several mailboxes that `prepare_all` went well with; the messages of one come together."""
        places: dict[bytes, Place] = {}

        def placed() -> Iterator[tuple[Place, Outgoing]]:
            for mailbox, message in messages:
                place = places.get(mailbox.raw_name)
                if place is None:
                    place = places[mailbox.raw_name] = self._place(mailbox)
                yield place, message

        self._written = True
        for mailbox, outcome in Appender(self._connection).run(placed()):
            remark = "" if outcome.result in ("refused", "unreadable") else self._remarks.pop(mailbox.raw_name, "")
            if remark:
                what = "; ".join(filter(None, (remark, outcome.what)))
                outcome = Outcome(outcome.message, "altered", what)
            yield mailbox, outcome

    def _place(self, mailbox: Mailbox) -> Place:
        name = self._names.name(mailbox)
        before = Counter(self._found.get(name, ()))

        def is_there_changed(message: Outgoing) -> bool:
            if not before:
                return False
            stored = Stored(message)
            key = Present(self._fingerprint(stored.header()), stored.size)
            before[key] -= 1
            return before[key] >= 0

        return Place(mailbox, name, self._rules(name), lambda: self.prepare(mailbox), is_there_changed)

    def _rules(self, name: bytes) -> Rules:
        """What the mailbox takes; it has to be selected to learn that, and is left again to save the server work."""
        if name not in self._known_rules:
            (answers,) = self._pipelined([self._ask_rules(name)])
            self._connection.check(answers[0].status, [b"SELECT", name])
            self._known_rules[name] = self._read_rules(answers)
        return self._known_rules[name]

    def _ask_rules(self, name: bytes) -> list[list[Part]]:
        """The commands that tell the rules, SELECT first."""
        commands: list[list[Part]] = [[b"SELECT", string(name)]]
        if self._connection.has(b"UNSELECT"):
            commands.append([b"UNSELECT"])
        if not self._limit() and self._connection.has(b"APPENDLIMIT"):
            commands.append([b"STATUS", string(name), b"(APPENDLIMIT)"])
        return commands

    def _read_rules(self, answers: list[Answer]) -> Rules:
        permanent = answers[0].code(b"PERMANENTFLAGS")
        listed = permanent[0] if permanent else None
        flags = frozenset(flag for flag in listed if isinstance(flag, bytes)) if isinstance(listed, list) else None
        limits = [
            number_or_none(pairs(one.values[-1]).get(b"APPENDLIMIT")) for one in answers[-1].of(b"STATUS") if one.values
        ]
        limit = number_or_none(self._limit()) or (limits[0] if limits else None)
        return Rules(flags, limit, self._connection.has(b"BINARY"))

    def _limit(self) -> bytes:
        """The octets a message may have (RFC 7889), as the server announced for all mailboxes; empty if it did not."""
        found = [word[12:] for word in self._connection.capabilities if word.startswith(b"APPENDLIMIT=")]
        return found[0] if found else b""


def _count(answer: Answer) -> int:
    """How many messages a mailbox has; one at the least where the server does not say."""
    return next((one.number or 0 for one in answer.of(b"EXISTS")), 1)


def _is_number(value: Value) -> TypeGuard[bytes]:
    return isinstance(value, bytes) and value.isdigit()
