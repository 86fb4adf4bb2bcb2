"""Messages, and what is done about those that do not come as they should.

All that is asked for comes pipelined and is passed on at once. Messages that were refused, left out or odd are asked
for again in ever smaller groups, so that one bad message costs only itself (Yahoo: NO [UNAVAILABLE] for a whole range;
iCloud, Exchange: OK without the message; Exchange: another text in place of the message).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from backupd.errors import ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MessageFacts, MessageState
from backupd.sources.base import Described, Fetched, Unreadable
from backupd.sources.imap.link import Ended, Link, uid_set
from backupd.wire.imap_connection import Fetch
from backupd.wire.imap_parser import Status
from backupd.wire.spool import SpooledBody
from backupd.wire.stream import show

GROUPS = (1000, 64, 4, 1)
"""Messages in one FETCH, at the first try and at the ones after it."""
FEW = 16
"""So few doubtful messages are asked for alone at once."""
ESTIMATES = 3
"""After so many messages whose RFC822.SIZE was wrong twice, the server is known to estimate."""
FATAL_CODES = frozenset({b"OVERQUOTA", b"CLIENTBUG", b"AUTHENTICATIONFAILED", b"EXPIRED"})
"""Refusals of the session, not of a message: asking again for each message would make it worse."""

_SUBSTITUTE_WORDS = b"IMAP4 protocol failed"
_SUBSTITUTE = re.compile(rb"^Subject: *Retrieval using the IMAP4 protocol failed", re.IGNORECASE | re.MULTILINE)
_SUBSTITUTE_OCTETS = 8192


class Wish(NamedTuple):
    """What is asked of each message, when an answer has all of it, and what is wrong with an answer (or nothing)."""

    items: bytes
    whole: Callable[[Fetch], bool]
    judge: Callable[[Fetch], str]


def fetch(link: Link, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched | Unreadable]:
    """Messages with their bytes."""
    doubted: set[int] = set()

    def judge(found: Fetch) -> str:
        wrong, uid = _wrong_with_body(found), found.uid or 0
        if wrong:
            return wrong
        wrong = _wrong_size(found)
        if uid in doubted:  # the second time: it is the message, whatever its size was said to be
            link.size_doubts -= not wrong
            return ""
        if not wrong or link.size_doubts >= ESTIMATES:
            return ""
        link.size_doubts += 1
        doubted.add(uid)
        return wrong

    wish = Wish(_items(link), lambda found: found.has_body and found.flags is not None, judge)
    for found in _all(link, mailbox, uids, wish):
        if isinstance(found, Unreadable):
            yield found
        else:
            yield Fetched(facts_of(found), state_of(found), found.body or b"", _wrong_size(found))


def expect(link: Link, wanted: Iterable[tuple[Mailbox, UidSet]]) -> None:
    """`fetch` will be called for these, in this order: ask ahead."""
    items = _items(link)
    steps = (link.step(mailbox, uids.chunks(GROUPS[0]), items) for mailbox, uids in wanted if uids)
    link.ahead.expect(step for step in steps if step)


def _items(link: Link) -> bytes:
    return link.facts + b" BODY.PEEK[]"


def describe(link: Link, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
    """Messages without their bytes; what the server does not tell is left out."""
    wish = Wish(link.facts, lambda found: found.flags is not None and found.size is not None, lambda found: "")
    for found in _all(link, mailbox, uids, wish):
        if isinstance(found, Fetch):
            yield Described(facts_of(found), state_of(found))


def headers(link: Link, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
    """(UID, header) of messages; what the server does not tell is left out."""
    wish = Wish(b"UID BODY.PEEK[HEADER]", lambda found: found.has_body, _wrong_with_header)
    for found in _all(link, mailbox, uids, wish):
        if isinstance(found, Fetch) and found.uid is not None:
            body = found.body
            yield found.uid, b"".join(body.chunks()) if isinstance(body, SpooledBody) else body or b""


def facts_of(found: Fetch) -> MessageFacts:
    """What is fixed about the message. Where the server gave no size, it is that of the bytes, if there are any."""
    size = found.size if found.size is not None else len(found.body or b"")
    return MessageFacts(found.uid or 0, found.internaldate or b"", size, found.server_id)


def state_of(found: Fetch) -> MessageState:
    """What may change about the message."""
    return MessageState(found.uid or 0, found.flags or (), found.labels or (), found.modseq or None)


def _wrong_with_header(found: Fetch) -> str:
    return "" if found.body is not None else "the server answers without the header"


def _wrong_with_body(found: Fetch) -> str:
    if not found.has_body or found.flags is None:
        return "the server answers without the message"
    body = found.body
    if not body:
        return f"the server sends nothing in place of {found.size} octets" if found.size else ""
    if (
        isinstance(body, bytes)
        and len(body) < _SUBSTITUTE_OCTETS
        and _SUBSTITUTE_WORDS in body  # quick, and most end here
        and _SUBSTITUTE.search(body)
    ):
        return "the server sends a notice that it cannot deliver the message, in place of the message"
    return ""


def _wrong_size(found: Fetch) -> str:
    received = len(found.body or b"")
    if found.size is None or found.size == received:
        return ""
    return f"the server announced {found.size} octets and sent {received}"


def _all(link: Link, mailbox: Mailbox, uids: UidSet, wish: Wish) -> Iterator[Fetch | Unreadable]:
    """Each message once, however often it has to be asked for; messages that are gone are left out.

    Raises ServerRefused when the mailbox cannot be opened or the account is cut off, and errors of the connection.
    """
    if not uids:
        return
    left: dict[int, str] = {}
    yield from _once(link, mailbox, uids, wish, GROUPS[0], left)
    group = 0
    while left:
        there = _still_there(link, mailbox, UidSet.from_uids(left))
        if group == len(GROUPS) - 1:
            yield from (Unreadable(uid, left[uid]) for uid in there)
            return
        group = len(GROUPS) - 1 if len(there) <= FEW else group + 1
        left = {}
        yield from _once(link, mailbox, there, wish, GROUPS[group], left)


def _once(
    link: Link, mailbox: Mailbox, uids: UidSet, wish: Wish, group: int, left: dict[int, str]
) -> Iterator[Fetch]:
    """One try at all of these, group by group. Those that did not come, or came wrong, are in `left`, with why."""
    again = uids
    while again:
        asked, again = again, UidSet.EMPTY
        awaited = set(asked)
        waiting = _Halves(wish)
        for answer in link.read(mailbox, asked.chunks(group), wish.items):
            if isinstance(answer, Fetch):
                # Without UID, or of a message not asked for or given already: news, which the next scan tells again.
                uid = answer.uid
                if uid not in awaited:
                    continue
                found = waiting.join(uid, answer)
                if found is None:
                    continue
                awaited.discard(uid)
                if wrong := wish.judge(found):
                    left[uid] = wrong
                else:
                    yield found
            elif isinstance(answer, Ended):
                for uid, found in waiting.of(answer.uids):
                    awaited.discard(uid)
                    if wrong := wish.judge(found):
                        left[uid] = wrong
                    else:
                        yield found
                missing = [uid for uid in answer.uids if uid in awaited]
                if link.throttle.heed(answer.status) and answer.status.kind != b"OK":
                    again |= UidSet.from_uids(missing)
                    continue
                _stop_if_fatal(link, answer.status)
                if missing:
                    why = _reason(answer.status)
                    left.update((uid, why) for uid in missing)


class _Halves:
    """Answers that do not have all that was asked for: some servers send a message's flags and bytes apart."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._parts: dict[int, Fetch] = {}

    def join(self, uid: int, answer: Fetch) -> Fetch | None:
        """The answer with what came of the message before; None while it is not whole."""
        if uid in self._parts:
            fields = {
                name: value
                for name, value in msgspec.structs.asdict(answer).items()
                if value is not None and value is not False
            }
            answer = msgspec.structs.replace(self._parts.pop(uid), **fields)
        if self._wish.whole(answer):
            return answer
        self._parts[uid] = answer
        return None

    def of(self, uids: UidSet) -> list[tuple[int, Fetch]]:
        """Those of the UIDs for which no more will come."""
        return [(uid, self._parts.pop(uid)) for uid in list(self._parts) if uid in uids]


def _reason(status: Status) -> str:
    if status.kind == b"OK":
        return "the server answers OK and does not send the message"
    return f"the server refuses the message: {show(status.text) or show(status.code) or status.kind.decode()}"


def _stop_if_fatal(link: Link, status: Status) -> None:
    if status.kind != b"OK" and status.code in FATAL_CODES:
        raise ServerRefused(
            f"the server refuses to send more: {show(status.text)}",
            code=status.code,
            subject=link.connection.address,
            remedy="the next run goes on where this one stopped",
        )


def _still_there(link: Link, mailbox: Mailbox, uids: UidSet) -> UidSet:
    """Those of the UIDs that the server still holds. NOOP first, so that it lets go of what others have expunged."""
    if not uids:
        return uids
    if not link.examine(mailbox):
        link.ask(b"NOOP")
    found = [one.uid for one in link.answers(uids.chunks(GROUPS[0]), b"UID") if isinstance(one, Fetch) and one.uid]
    return uid_set(found) & uids
