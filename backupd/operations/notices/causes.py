"""The open causes, as the person at one target knows them; and what an event changes in them.

A *cause* is what is told once: a server that cannot be reached, an account whose login is refused. Its *members* are
the subjects that suffer from it: all accounts of that server, or the one account. The trouble of a subject begins when
it first fails and ends when it is well; its cause may change meanwhile (the server answers again, and now refuses the
login), and with that the member moves to another cause and takes along since when it fails and whether that is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from backupd.operations.notices.events import Kind, Relief, Trouble

FLIPS = 4
"""A cause that begins so many times within WINDOW comes and goes: that is told once, in place of each time."""

WINDOW = 6 * 3600.0
"""Seconds. A cause that came and went is over when it has stayed away for so long."""

ONCE_KEPT = 90 * 86400.0
"""Seconds for which it is remembered that something without an end was told."""


class Policy(msgspec.Struct, frozen=True):
    """What a target wants to hear. kinds: of these; recovery: and of their ends. accounts: shell patterns. patience,
    remind: seconds; remind is None for never. most: messages in an hour."""

    kinds: frozenset[str]
    recovery: bool = True
    accounts: tuple[str, ...] = ("*",)
    patience: float = 900.0
    remind: float | None = 86400.0
    most: int = 6

    def wants(self, event: Trouble | Relief) -> bool:
        """Whether the target hears of it."""
        return event.kind in self.kinds and self.hears_of(event.account)

    def hears_of(self, account: str) -> bool:
        """Whether the target hears of this account; of what concerns none it does."""
        return not account or any(fnmatchcase(account, pattern) for pattern in self.accounts)


class Member(msgspec.Struct, frozen=True):
    """A subject in trouble. since: when the trouble began, whatever its cause was then; seen: when it was last said to
    last; told: when this trouble became known. All in seconds since 1970."""

    trouble: Trouble
    since: float
    seen: float
    told: float | None = None


class Cause(msgspec.Struct, frozen=True):
    """What is told once.

    latest: what was last said about it. members: those who suffer from it; none when it is over. opened: when it began
    to have members, closed: when it ceased to. told: when it was told; said: when it was last spoken of, reminders
    included. openings: times at which it came, within WINDOW. flapping: it is known to come and go. relieved: members
    that are well again, and whose trouble was known; that is told when all are.
    """

    latest: Member
    members: dict[str, Member]
    opened: float
    closed: float | None = None
    told: float | None = None
    said: float | None = None
    openings: tuple[float, ...] = ()
    flapping: bool = False
    relieved: dict[str, Member] = {}

    @property
    def kind(self) -> Kind:
        return self.latest.trouble.kind

    @property
    def group(self) -> str:
        """Causes of one group are told together."""
        trouble = self.latest.trouble
        return trouble.key if trouble.shared else f"{trouble.kind}:{trouble.cause}@{trouble.place}"

    @property
    def essence(self) -> tuple[object, ...]:
        """What must survive a restart. Not the words of the latest error: they change with every attempt."""
        times = (self.opened, self.closed, self.told, self.said, self.openings, self.flapping)
        members = {subject: (member.since, member.told) for subject, member in self.members.items()}
        kept_for = int(self.latest.seen // 86400) if self.latest.trouble.once else 0
        return (times, members, self.relieved.keys(), kept_for)


class Memory(msgspec.Struct, frozen=True):
    """All that is remembered for a target. sent: times of the messages of the last hour. groups: when each group was
    told last. latest: the latest time that was ever now. weekly: when the weekly summary was sent, or the target was
    new."""

    causes: dict[str, Cause] = {}
    sent: tuple[float, ...] = ()
    groups: dict[str, float] = {}
    latest: float = 0.0
    weekly: float = 0.0


def follow(causes: dict[str, Cause], events: Iterable[Trouble | Relief], now: float) -> None:
    """Change the causes as the events say."""
    for event in events:
        if isinstance(event, Trouble):
            _begin_or_last(causes, event, now)
        else:
            _end(causes, event, now)


def _begin_or_last(causes: dict[str, Cause], trouble: Trouble, now: float) -> None:
    key = trouble.key
    known = causes.get(key)
    if trouble.once and known:
        causes[key] = _changed(known, latest=msgspec.structs.replace(known.latest, seen=now))
        return
    before = _taken(causes, trouble, key, now)
    member = Member(trouble, before.since if before else now, now, before.told if before else None)
    if known := causes.get(key):
        causes[key] = _joined(known, member, now, moved=before is not None)
    else:
        causes[key] = Cause(member, {trouble.subject: member}, now, openings=() if before else (now,))


def _joined(cause: Cause, member: Member, now: float, *, moved: bool) -> Cause:
    subject = member.trouble.subject
    opened, openings, told = cause.opened, cause.openings, cause.told
    if not cause.members:
        opened, openings = now, tuple(time for time in openings if now - time < WINDOW)
        if not moved:  # else the trouble has another name, and did not go in between
            openings = (*openings, now)
        # It is news again, unless its end was not told yet, or the subject was in this trouble when it was told, had
        # another cause in between and comes back to this one.
        if not cause.flapping and not cause.relieved and (told is None or member.since > told):
            told = None
    if told is not None:
        member = msgspec.structs.replace(member, told=member.told or now)
    relieved = {name: each for name, each in cause.relieved.items() if name != subject}
    return _changed(
        cause,
        latest=member, members={**cause.members, subject: member}, relieved=relieved,
        opened=opened, openings=openings, told=told, closed=None,
    )  # fmt: skip


def _taken(causes: dict[str, Cause], trouble: Trouble, key: str, now: float) -> Member | None:
    """What is known of the subject's trouble of this kind; it is taken out of any other cause."""
    found = None
    for name, cause in list(causes.items()):
        if cause.kind != trouble.kind or cause.latest.trouble.once:
            continue
        member = cause.members.get(trouble.subject) or cause.relieved.get(trouble.subject)
        if member is None:
            continue
        found = member if found is None or member.since < found.since else found
        if name != key:
            causes[name] = _without(cause, trouble.subject, now)
    return found


def _without(cause: Cause, subject: str, now: float) -> Cause:
    members = {name: each for name, each in cause.members.items() if name != subject}
    relieved = {name: each for name, each in cause.relieved.items() if name != subject}
    closed = now if cause.members and not members else cause.closed
    return _changed(cause, members=members, relieved=relieved, closed=closed)


def _end(causes: dict[str, Cause], relief: Relief, now: float) -> None:
    for name, cause in list(causes.items()):
        member = cause.members.get(relief.subject)
        if member is None or cause.kind != relief.kind or member.trouble.once:
            continue
        left = _without(cause, relief.subject, now)
        if member.told is not None:
            left = _changed(left, relieved={**left.relieved, relief.subject: member})
        causes[name] = left


def changed(before: Memory, after: Memory) -> set[str]:
    """Keys of causes that must be stored, or removed, to bring what is stored of `before` up to `after`."""
    keys = before.causes.keys() | after.causes.keys()
    pairs = ((key, before.causes.get(key), after.causes.get(key)) for key in keys)
    return {key for key, old, new in pairs if old is not new and (not old or not new or old.essence != new.essence)}


def forget_accounts(memory: Memory, policy: Policy, accounts: Iterable[str]) -> Memory:
    """Without what concerns accounts that are not configured any more, or kinds and accounts that the target does not
    want any more: nothing would ever end that."""
    there = set(accounts)

    def stays(member: Member) -> bool:
        trouble = member.trouble
        return policy.wants(trouble) and (not trouble.account or trouble.account in there)

    causes = {}
    for name, cause in memory.causes.items():
        members = {subject: each for subject, each in cause.members.items() if stays(each)}
        relieved = {subject: each for subject, each in cause.relieved.items() if stays(each)}
        if members or (not cause.members and stays(cause.latest)):
            causes[name] = _changed(cause, members=members, relieved=relieved)
    return msgspec.structs.replace(memory, causes=causes)


def kept(cause: Cause, now: float) -> bool:
    """Whether the cause must still be remembered."""
    if cause.latest.trouble.once:
        return now - cause.latest.seen < ONCE_KEPT
    if cause.members or cause.relieved or cause.flapping:
        return True
    return cause.closed is not None and now - cause.closed < WINDOW


def no_later(memory: Memory, now: float) -> Memory:
    """The memory as if nothing in it had been later than now: the clock was set back."""

    def limited(value: float | None) -> float | None:
        return None if value is None else min(value, now)

    def member(each: Member) -> Member:
        return Member(each.trouble, min(each.since, now), min(each.seen, now), limited(each.told))

    causes = {
        name: _changed(
            cause,
            latest=member(cause.latest),
            members={subject: member(each) for subject, each in cause.members.items()},
            relieved={subject: member(each) for subject, each in cause.relieved.items()},
            opened=min(cause.opened, now), closed=limited(cause.closed), told=limited(cause.told),
            said=limited(cause.said), openings=tuple(min(time, now) for time in cause.openings),
        )
        for name, cause in memory.causes.items()
    }  # fmt: skip
    sent = tuple(min(time, now) for time in memory.sent)
    groups = {name: min(time, now) for name, time in memory.groups.items()}
    return Memory(causes, sent, groups, now, min(memory.weekly, now))


def _changed(cause: Cause, **changes: object) -> Cause:
    return msgspec.structs.replace(cause, **changes)
