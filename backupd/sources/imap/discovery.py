"""Which mailboxes an account has, and where they stand: in one round trip where the server can (RFC 5258, RFC 5819)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from backupd.errors import ServerRefused
from backupd.mail.names import display_name
from backupd.model import Mailbox, MailboxStatus
from backupd.sources.base import Discovered
from backupd.sources.imap.link import Link, status_of
from backupd.wire.imap_commands import string
from backupd.wire.imap_parser import Untagged, Value, number_or_none, pairs

SPECIAL_USES = frozenset({
    b"\\all", b"\\archive", b"\\drafts", b"\\flagged", b"\\junk", b"\\sent", b"\\trash", b"\\important", b"\\memos",
    b"\\scheduled", b"\\snoozed", b"\\templates", b"\\inbox",
})  # fmt: skip
"""RFC 6154, RFC 8457, and what is registered beside them."""

PIPELINED_STATUS = 32

Positions = dict[bytes, dict[bytes, Value]]
"""STATUS data by raw name; INBOX in upper case."""


def discover(link: Link) -> list[Discovered]:
    """All mailboxes, INBOX among them even where LIST leaves it out (strato does). Raises ServerRefused."""
    answered = _extended(link) if link.connection.has(b"LIST-EXTENDED") or link.connection.has(b"LIST-STATUS") else None
    mailboxes, found = answered or _plain(link)
    if not any(_key(mailbox.raw_name) == b"INBOX" for mailbox in mailboxes):
        mailboxes.insert(0, Mailbox(raw_name=b"INBOX", name="INBOX", delimiter=_delimiter(mailboxes)))
    selectable = [mailbox for mailbox in mailboxes if mailbox.selectable]
    wanting = [mailbox.raw_name for mailbox in selectable if _key(mailbox.raw_name) not in found]
    found.update(_statuses(link, wanting))
    return [_discovered(mailbox, found.get(_key(mailbox.raw_name), {})) for mailbox in mailboxes]


def _key(raw_name: bytes) -> bytes:
    """INBOX is one mailbox however it is written (RFC 3501, 5.1); all other names are bytes."""
    return b"INBOX" if raw_name.upper() == b"INBOX" else raw_name


def _status_items(link: Link) -> bytes:
    """What to ask of each mailbox. Not SIZE (RFC 8438): the first time, Dovecot takes 0.8 s for 100,000 messages."""
    items = [b"MESSAGES UIDNEXT UIDVALIDITY"]
    if link.condstore:
        items.append(b"HIGHESTMODSEQ")
    if link.objectid:
        items.append(b"MAILBOXID")
    return b" ".join(items)


def _extended(link: Link) -> tuple[list[Mailbox], Positions] | None:
    """One LIST for all; None when the server refuses it (Proton Bridge answers BAD though it announces SPECIAL-USE)."""
    wanted = [b"SUBSCRIBED"]
    if link.connection.has(b"SPECIAL-USE"):
        wanted.insert(0, b"SPECIAL-USE")
    if link.connection.has(b"LIST-STATUS"):
        wanted.append(b"STATUS (%s)" % _status_items(link))
    try:
        answer = link.ask(b'LIST "" "*" RETURN (%s)' % b" ".join(wanted))
    except ServerRefused:
        return None
    return _mailboxes(answer.of(b"LIST"), None), _positions(answer.of(b"STATUS"))


def _plain(link: Link) -> tuple[list[Mailbox], Positions]:
    """LIST and LSUB, pipelined (RFC 3501, 6.3.8 and 6.3.9)."""
    connection = link.connection
    listing, subscriptions = connection.send(b'LIST "" "*"'), connection.send(b'LSUB "" "*"')
    listed, subscribed = connection.wait(listing), connection.wait(subscriptions)
    link.insist(listed.status, b"LIST")
    both = listed.untagged + subscribed.untagged
    names = {_key(name) for one in both if one.kind == b"LSUB" and (name := _name(one)) is not None}
    return _mailboxes((one for one in both if one.kind == b"LIST"), names), {}


def _statuses(link: Link, names: list[bytes]) -> Positions:
    """STATUS of each, pipelined. One that is refused is left out: opening the mailbox will tell why."""
    items = b"(%s)" % _status_items(link)
    found: Positions = {}
    waiting: deque[tuple[bytes, bytes]] = deque()
    todo = iter(names)
    while True:
        while len(waiting) < PIPELINED_STATUS and (name := next(todo, None)) is not None:
            waiting.append((name, link.connection.send(b"STATUS", string(name), items)))
        if not waiting:
            return found
        name, tag = waiting.popleft()
        answer = link.connection.wait(tag)
        if answer.status.kind == b"OK":
            link.throttle.heed(answer.status)
        else:
            link.throttle.refuse(answer.status)
        # By order and not by name: some servers write the name another way than they were asked.
        for data in _positions(answer.of(b"STATUS")).values():
            found[_key(name)] = data


def _positions(answers: Iterable[Untagged]) -> Positions:
    found: Positions = {}
    for one in answers:
        if len(one.values) >= 2 and isinstance(one.values[0], bytes) and isinstance(one.values[-1], list):
            data = one.values[-1]
            found[_key(one.values[0])] = pairs(data[: len(data) // 2 * 2])
    return found


def _name(answer: Untagged) -> bytes | None:
    """The raw name of a LIST or LSUB answer; None when it has none."""
    values = answer.values
    if len(values) < 3:
        return None
    name = values[2]
    return b"NIL" if name is None else name if isinstance(name, bytes) else None  # a mailbox may be called NIL


def _mailboxes(answers: Iterable[Untagged], subscribed: set[bytes] | None) -> list[Mailbox]:
    """One for each name, in the server's order; of answers for the same name the first counts.

    subscribed: names that LSUB gave, or None when the attributes tell.
    """
    found: dict[bytes, Mailbox] = {}
    for answer in answers:
        raw_name = _name(answer)
        if raw_name is None or not isinstance(answer.values[0], list) or _key(raw_name) in found:
            continue
        words = [word for word in answer.values[0] if isinstance(word, bytes)]
        delimiter = answer.values[1]
        found[_key(raw_name)] = Mailbox(
            raw_name=raw_name,
            name=display_name(raw_name),
            delimiter=delimiter if isinstance(delimiter, bytes) and delimiter else None,
            attributes=tuple(sorted(_others(words))),
            special_use=tuple(sorted(word for word in words if word.lower() in SPECIAL_USES)),
            subscribed=_key(raw_name) in subscribed
            if subscribed is not None
            else any(word.lower() == b"\\subscribed" for word in words),
        )
    return list(found.values())


def _others(words: list[bytes]) -> Iterator[bytes]:
    return (word for word in words if word.lower() not in SPECIAL_USES and word.lower() != b"\\subscribed")


def _delimiter(mailboxes: list[Mailbox]) -> bytes | None:
    return next((mailbox.delimiter for mailbox in mailboxes if mailbox.delimiter), None)


def _discovered(mailbox: Mailbox, data: dict[bytes, Value]) -> Discovered:
    status = status_of(data) if data else MailboxStatus()
    return Discovered(mailbox=mailbox, status=status, size=number_or_none(data.get(b"SIZE")))
