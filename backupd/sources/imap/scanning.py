"""What a mailbox is now, compared with what is known of it.

The complete set of UIDs is always asked for (a few octets with ESEARCH) and checked against EXISTS, because a set is a
proof where "everything above UIDNEXT" is a hope: after a merge, servers insert messages in the middle. EXAMINE and
SEARCH go out together, so a scan with QRESYNC is one round trip.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.errors import ProtocolError, ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus, MessageState
from backupd.sources.base import Known, Scan
from backupd.sources.imap.ahead import Step
from backupd.sources.imap.fetching import state_of
from backupd.sources.imap.link import Ended, Link, object_id, position, status_of, uid_set
from backupd.sources.imap.throttle import wish
from backupd.wire.imap_commands import Part, string
from backupd.wire.imap_connection import Answer, Fetch
from backupd.wire.imap_parser import Tagged, Untagged, number_or_none, pairs

SEARCH_WINDOW = 100_000
"""Messages of one plain SEARCH, whose answer spells out every UID."""
LIST_WINDOW = 10_000
"""Messages of one FETCH of UIDs alone."""
KNOWN_UIDS_OCTETS = 800
"""Known UIDs are told to QRESYNC when they fit in a command; without them the server just says more."""

_EVERY_UID: list[Part] = [b"UID SEARCH RETURN (ALL) ALL"]

_log = logging.getLogger(__name__)


class _Opened:
    """A mailbox at the moment of its EXAMINE, and what has happened to it since."""

    def __init__(self, answer: Answer) -> None:
        self.exists = 0
        self.follow(answer.untagged)
        self.unstable = answer.code(b"UIDNOTSTICKY") is not None
        self.status = MailboxStatus(
            messages=self.exists,
            uidnext=position(answer, b"UIDNEXT") or None,
            uidvalidity=position(answer, b"UIDVALIDITY"),
            highestmodseq=position(answer, b"HIGHESTMODSEQ") or None,
            mailbox_id=object_id(answer.code(b"MAILBOXID")),
        )

    def follow(self, untagged: Iterable[Untagged]) -> None:
        """Count what comes and goes while we look."""
        for one in untagged:
            if one.kind == b"EXISTS" and one.number is not None:
                self.exists = one.number
            elif one.kind == b"EXPUNGE":
                self.exists -= 1
            elif one.kind == b"VANISHED" and len(one.values) == 1 and isinstance(one.values[0], bytes):
                self.exists -= len(uid_set(one.values[0]))


class _Seen(NamedTuple):
    """A mailbox opened: what changed in it (None if that was not told), and the UIDs it has (None if refused)."""

    opened: _Opened
    changed: list[MessageState] | None
    uids: UidSet | None


def scan(link: Link, mailbox: Mailbox, known: Known | None) -> Scan:
    """See `backupd.sources.base.Session.scan`. Raises ServerRefused when the mailbox cannot be opened."""
    since = known if _quick(link, known) else None
    seen = _begun(link, mailbox, since)
    if seen is None or (link.ahead and not _is_enough(seen, known)):
        link.settle()
        seen = _open(link, mailbox, since)
    opened, quick, uids = seen
    status = _completed(link, mailbox, opened)
    link.generations[mailbox.raw_name] = status.uidvalidity
    if uids is not None and len(uids) in (opened.status.messages, opened.exists):
        status = _with_messages(status, len(uids))
    else:
        uids = _enumerate(link, opened, uids)
        status = _with_messages(status, opened.exists)
    same = known is not None and status.uidvalidity is not None and known.status.uidvalidity == status.uidvalidity
    if known is None or not same or opened.unstable:
        return Scan(status=status, uids=uids, vanished=UidSet.EMPTY, changed=(), reset=True)
    kept = known.uids & uids
    changed = tuple(_changed(link, known, status, kept, quick))
    return Scan(status=status, uids=uids, vanished=known.uids - uids, changed=changed)


def _quick(link: Link, known: Known | None) -> bool:
    """Whether QRESYNC can tell the changes in the answer to EXAMINE."""
    return bool(link.qresync and known and known.status.uidvalidity and known.status.highestmodseq)


def expect(link: Link, wanted: Iterable[tuple[Mailbox, Known | None]]) -> None:
    """`scan` will be called for these, in this order: ask ahead."""
    if link.connection.has(b"ESEARCH"):
        link.ahead.expect(_step(link, mailbox, known if _quick(link, known) else None) for mailbox, known in wanted)


def _step(link: Link, mailbox: Mailbox, known: Known | None) -> Step:
    commands = [_examine(link, mailbox, known), _EVERY_UID]
    return Step((mailbox.raw_name, *commands[0]), commands)


def _begun(link: Link, mailbox: Mailbox, known: Known | None) -> _Seen | None:
    """What EXAMINE and SEARCH brought that were sent ahead; None if they were not, or have to be sent again.

    Raises ServerRefused.
    """
    tags = link.ahead.take(_step(link, mailbox, known).key)
    if tags is None:
        return None
    link.ahead.go_on()
    link.examined = None
    answer, changed = _examined(link, tags[0])
    found = link.connection.wait(tags[1])
    if answer.status.kind == b"NO" and wish(answer.status) is None:
        link.connection.check(answer.status, [b"EXAMINE"])
    if answer.status.kind != b"OK":
        return None
    link.examined = mailbox.raw_name
    return _seen(answer, changed if known else None, found)


def _is_enough(seen: _Seen, known: Known | None) -> bool:
    """Whether nothing more has to be asked, which would have to wait until all that was asked ahead is answered."""
    opened, changed, uids = seen
    status = opened.status
    if status.uidvalidity is None or status.uidnext is None or uids is None or len(uids) != opened.exists:
        return False
    if known is None or known.status.uidvalidity != status.uidvalidity:
        return True
    return changed is not None and (status.highestmodseq or 0) >= (known.status.highestmodseq or 0)


def _examine(link: Link, mailbox: Mailbox, known: Known | None, *, plain: bool = False) -> list[Part]:
    """plain: without what the server may not understand though it announced it."""
    parts: list[Part] = [b"EXAMINE", string(mailbox.raw_name)]
    if known and not plain:
        parts.append(_resync(known))
    elif link.condstore and not link.connection.enabled and not plain:
        parts.append(b"(CONDSTORE)")
    return parts


def _open(link: Link, mailbox: Mailbox, known: Known | None) -> _Seen:
    """EXAMINE, with SEARCH behind it."""
    connection = link.connection
    plain = False
    while True:
        parts = _examine(link, mailbox, known, plain=plain)
        link.examined = None
        examine = connection.send(*parts)
        eager = connection.send(*_EVERY_UID) if connection.has(b"ESEARCH") else None
        answer, changed = _examined(link, examine)
        found = connection.wait(eager) if eager else None
        if answer.status.kind == b"OK":
            break
        if link.throttle.heed(answer.status):
            continue
        if plain or len(parts) < 3 or answer.status.kind != b"BAD":
            connection.check(answer.status, [b"EXAMINE"])
        plain = True  # a server may announce what it then does not understand; there is another way
    if plain:
        link.qresync, link.condstore = False, link.condstore and known is not None
    link.examined = mailbox.raw_name
    told = changed if known and not plain else None
    if found is None:
        opened = _Opened(answer)
        return _Seen(opened, told, _search(link, opened))
    return _seen(answer, told, found)


def _seen(answer: Answer, changed: list[MessageState] | None, found: Answer) -> _Seen:
    opened = _Opened(answer)
    opened.follow(found.untagged)
    return _Seen(opened, changed, _searched(found))


def _resync(known: Known) -> bytes:
    wires = list(known.uids.to_wire(KNOWN_UIDS_OCTETS))
    uids = b" " + wires[0] if len(wires) == 1 else b""
    return b"(QRESYNC (%d %d%s))" % (known.status.uidvalidity or 0, known.status.highestmodseq or 0, uids)


def _examined(link: Link, tag: bytes) -> tuple[Answer, list[MessageState]]:
    untagged: list[Untagged] = []
    changed: list[MessageState] = []
    for one in link.connection.fetches(tag):
        if isinstance(one, Tagged):
            return Answer(untagged, one.status), changed
        if isinstance(one, Fetch):
            if one.uid is not None and one.flags is not None:
                changed.append(state_of(one))
        elif one.status is not None and one.status.code == b"CLOSED":
            untagged.clear()  # all before it spoke of the mailbox that was open (RFC 7162, 3.2.11)
            changed.clear()
        else:
            untagged.append(one)
    raise ProtocolError("an EXAMINE without an end", subject=link.connection.address)


def _completed(link: Link, mailbox: Mailbox, opened: _Opened) -> MailboxStatus:
    """The positions, with those that some servers tell by STATUS alone."""
    status = opened.status
    if status.uidvalidity is not None and status.uidnext is not None:
        return status
    try:
        answer = link.ask(b"STATUS", string(mailbox.raw_name), b"(UIDNEXT UIDVALIDITY)")
    except ServerRefused:
        return status
    told = next((status_of(pairs(one.values[-1])) for one in answer.of(b"STATUS") if one.values), MailboxStatus())
    opened.follow(answer.untagged)
    return MailboxStatus(
        messages=status.messages,
        uidnext=status.uidnext or told.uidnext,
        uidvalidity=status.uidvalidity if status.uidvalidity is not None else told.uidvalidity,
        highestmodseq=status.highestmodseq,
        mailbox_id=status.mailbox_id,
    )


def _with_messages(status: MailboxStatus, messages: int) -> MailboxStatus:
    return MailboxStatus(messages, status.uidnext, status.uidvalidity, status.highestmodseq, status.mailbox_id)


# -- which UIDs there are ----------------------------------------------------------------------------------------------


def _searched(answer: Answer) -> UidSet | None:
    """The UIDs of an ESEARCH or SEARCH answer; None when it was refused."""
    if answer.status.kind != b"OK":
        return None
    found = UidSet.EMPTY
    for one in answer.of(b"ESEARCH"):
        words = [value.upper() if isinstance(value, bytes) else b"" for value in one.values]
        if b"ALL" in words and words.index(b"ALL") + 1 < len(words):
            found |= uid_set(words[words.index(b"ALL") + 1])
    for one in answer.of(b"SEARCH"):
        found |= uid_set(uid for value in one.values if (uid := number_or_none(value)) is not None)
    return found


def _search(link: Link, opened: _Opened) -> UidSet | None:
    """By plain SEARCH, window by window."""
    found = UidSet.EMPTY
    for first in range(1, opened.exists + 1, SEARCH_WINDOW):
        last = min(first + SEARCH_WINDOW - 1, opened.exists)
        answer = link.connection.wait(link.connection.send(b"UID SEARCH %d:%d" % (first, last)))
        opened.follow(answer.untagged)
        some = _searched(answer)
        if some is None:
            return None
        found |= some
    return found


def _enumerate(link: Link, opened: _Opened, searched: UidSet | None) -> UidSet:
    """By FETCH of the UID of each message: for servers whose SEARCH is cut short or refused."""
    found = UidSet.EMPTY
    for _ in range(2):
        before = opened.exists
        windows = (
            UidSet.from_ranges([(first, min(first + LIST_WINDOW - 1, before))])
            for first in range(1, before + 1, LIST_WINDOW)
        )
        some: list[int] = []
        for one in link.answers(windows, b"UID", command=b"FETCH"):
            if isinstance(one, Fetch):
                some += [one.uid] if one.uid is not None else []
            elif isinstance(one, Untagged):
                opened.follow([one])
            elif one.status.kind != b"OK":
                link.throttle.refuse(one.status)
        found = uid_set(some)
        if len(found) >= opened.exists:
            return found
    whole = found if searched is None else found | searched
    _log.warning("the server says that there are %d messages, and lists %d", opened.exists, len(whole))
    return whole


# -- what changed ------------------------------------------------------------------------------------------------------


def _changed(
    link: Link, known: Known, now: MailboxStatus, kept: UidSet, quick: list[MessageState] | None
) -> Iterator[MessageState]:
    """States of messages that are still there and are not what they were."""
    before, after = known.status.highestmodseq, now.highestmodseq
    if not kept:
        return
    if not before or not after or after < before:  # the last: the server was put back from a backup of its own
        yield from _compared(link, known, kept)
    elif quick is not None:
        yield from {state.uid: state for state in quick if state.uid in kept}.values()
    elif after > before:
        whole = UidSet.from_ranges([(kept.min, kept.max)])
        for one in link.answers([whole], link.state, more=b" (CHANGEDSINCE %d)" % before):
            if isinstance(one, Fetch) and one.uid is not None and one.flags is not None and one.uid in kept:
                yield state_of(one)
            elif isinstance(one, Ended):
                link.insist(one.status, b"UID FETCH (CHANGEDSINCE)")


def _compared(link: Link, known: Known, kept: UidSet) -> Iterator[MessageState]:
    """All flags, against the ones that are known. Both come by UID as a rule, so little is held at once."""
    states = iter(known.states())
    waiting: dict[int, MessageState] = {}
    for one in link.answers([kept], link.state):
        if isinstance(one, Ended):
            link.insist(one.status, b"UID FETCH (FLAGS)")
        if not isinstance(one, Fetch) or one.uid is None or one.flags is None or one.uid not in kept:
            continue
        while one.uid not in waiting:
            following = next(states, None)
            if following is None:
                break
            waiting[following.uid] = following
        before, now = waiting.pop(one.uid, None), state_of(one)
        if before is None or _differ(before, now):
            yield now


def _differ(before: MessageState, now: MessageState) -> bool:
    if before.flags != now.flags or before.labels != now.labels:
        return True
    return None not in (before.modseq, now.modseq) and before.modseq != now.modseq
