"""What is told, and when: a pure function of the open causes, what has happened, and now.

What it promises, whatever happens in whatever order (tests/operations/notices/test_deciding.py holds it to that):

- A cause is told once. It is told again only after its end was told, or as a reminder, which comes at most once a day.
- No cause stays silent: what lasts is told within patience and a bounded time after; what ends before never mattered.
- The end of a cause is told if, and only if, the cause was.
- A cause that comes and goes is told to do so, once, and then left in peace until it has settled.
- Never more messages in an hour than the target wants: when there is more to say, it is said together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from backupd.operations.notices.causes import (
    FLIPS,
    WINDOW,
    Cause,
    Member,
    Memory,
    Policy,
    follow,
    kept,
    no_later,
)
from backupd.operations.notices.events import Kind, Relief, Trouble

COLLECT = 60.0
"""Seconds that news wait for more of their sort, so that what happens together is told together."""

SPACING = 3600.0
"""Seconds between two messages about one group of accounts whose trouble may pass by itself."""

SPACING_OF_URGENT = 600.0
"""The same of what will not pass, such as a sudden loss."""

RARELY = 7
"""A trouble that is minor is reminded of so many times less often."""

HOUR = 3600.0

Value = TypeVar("Value", Cause, Member)
What = Literal["told", "flapping", "recovered", "still"]


class Entry(NamedTuple):
    """One thing a message says. keys: of the causes it is about. members: who is, or was, in trouble. since: when it
    began. flips: how often it came within six hours, where it comes and goes; else 0."""

    what: What
    keys: tuple[str, ...]
    kind: Kind
    cause: str
    place: str
    shared: bool
    members: tuple[Member, ...]
    since: float
    flips: int = 0


class Message(NamedTuple):
    """Entries that are sent together. at: seconds since 1970."""

    entries: tuple[Entry, ...]
    at: float


class _Part(NamedTuple):
    """A message that could be sent, and what is to be remembered when it was."""

    entries: tuple[Entry, ...]
    causes: dict[str, Cause]
    group: str = ""


def decide(
    memory: Memory, events: Iterable[Trouble | Relief], now: float, policy: Policy
) -> tuple[list[Message], Memory]:
    """The messages that are to be sent now, and the memory with what has happened and what is said by them.

    Args:
        events: in their order; what the target does not want to hear is left out.
        now: seconds since 1970; it may be less than last time, when the clock was set.
    """
    if now < memory.latest:
        memory = no_later(memory, now)
    causes = dict(memory.causes)
    follow(causes, (event for event in events if policy.wants(event)), now)
    if not policy.recovery:
        causes = {key: _forgiven(cause) for key, cause in causes.items()}
    sent = tuple(time for time in memory.sent if now - time < HOUR)
    groups = {group: time for group, time in memory.groups.items() if now - time < SPACING}
    parts = _news(causes, groups, now, policy)
    said = {key for part in parts for key in part.causes}
    parts += _ends(causes, said, now)
    parts += _reminders(causes, said, now, policy)
    messages = []
    for entries, merged in _within(policy.most - len(sent), parts):
        messages.append(Message(entries, now))
        for part in merged:
            causes |= part.causes
            if part.group:
                groups[part.group] = now
    for key in [key for key, cause in causes.items() if not kept(cause, now)]:
        del causes[key]
    sent = (*sent, *(message.at for message in messages))
    return messages, Memory(causes, sent, groups, now, memory.weekly)


def _within(left: int, parts: list[_Part]) -> list[tuple[tuple[Entry, ...], list[_Part]]]:
    """Parts as messages, in the number that is left for this hour; when they are too many, all in one."""
    if left <= 0 or not parts:
        return []
    if len(parts) == 1 or len(parts) < left:
        return [(part.entries, [part]) for part in parts]
    return [(tuple(entry for part in parts for entry in part.entries), parts)]


def _forgiven(cause: Cause) -> Cause:
    """Of a target that does not want to hear of ends."""
    return _changed(cause, relieved={}) if cause.relieved else cause


# -- news --------------------------------------------------------------------------------------------------------------


def _news(causes: dict[str, Cause], groups: dict[str, float], now: float, policy: Policy) -> list[_Part]:
    failing = {
        subject for cause in causes.values() if cause.kind == "failure" and cause.members for subject in cause.members
    }
    missed = {
        subject for cause in causes.values() if cause.kind == "objective" and cause.members for subject in cause.members
    }
    due: dict[str, list[str]] = {}
    for key, cause in causes.items():
        if cause.kind == "objective" and failing & cause.members.keys():
            continue  # the failure is told, and says that the objective is missed
        if _comes_and_goes(cause, now) or (_untold(cause) and now >= _due(cause, missed, policy)):
            due.setdefault(cause.group, []).append(key)
    return [part for group in due if (part := _told(group, due[group], causes, groups, failing, now))]


def _told(
    group: str, due: list[str], causes: dict[str, Cause], groups: dict[str, float], failing: set[str], now: float
) -> _Part | None:
    patient = any(causes[key].latest.trouble.patient or causes[key].kind == "objective" for key in due)
    if now - groups.get(group, -SPACING) < (SPACING if patient else SPACING_OF_URGENT):
        return None
    # Those of the group whose time has not come yet go along: they would be the next message about the same.
    along = [
        key
        for key, cause in causes.items()
        if cause.group == group
        and key not in due
        and _untold(cause)
        and not (cause.kind == "objective" and failing & cause.members.keys())
    ]
    flapping = {key for key in due if _comes_and_goes(causes[key], now)}
    changed, entries = {}, []
    for key in (*due, *along):
        cause = causes[key]
        flaps = cause.flapping or key in flapping
        members = {name: _changed(each, told=each.told or now) for name, each in cause.members.items()}
        changed[key] = _changed(cause, members=members, told=now, said=now, flapping=flaps)
    if steady := [key for key in changed if key not in flapping]:
        entries.append(_entry("told", steady, changed))
    if flapping:
        entries.append(_entry("flapping", sorted(flapping), changed))
    return _Part(tuple(entries), changed, group)


def _untold(cause: Cause) -> bool:
    return bool(cause.members) and cause.told is None and not cause.flapping


def _comes_and_goes(cause: Cause, now: float) -> bool:
    return not cause.flapping and sum(now - time < WINDOW for time in cause.openings) >= FLIPS


def _due(cause: Cause, missed: set[str], policy: Policy) -> float:
    """When an untold cause is to be told. A trouble that is not known yet counts from its begin, whatever its cause was
    then: it must not stay silent because its cause changes all the time."""
    begins = min(each.since if each.told is None else cause.opened for each in cause.members.values())
    urgent = bool(missed & cause.members.keys())
    return begins + (policy.patience if cause.latest.trouble.patient and not urgent else COLLECT)


# -- ends and reminders ------------------------------------------------------------------------------------------------


def _ends(causes: dict[str, Cause], said: set[str], now: float) -> list[_Part]:
    """What is over, in one message. said: of what there is news already."""
    over: dict[str, Cause] = {}
    changed = {}
    for key, cause in causes.items():
        if cause.flapping and cause.members and now - cause.opened >= WINDOW:
            # It has come to stay. That it is there is known; from now on its end is told as any other's.
            causes[key] = _changed(cause, flapping=False, openings=())
        elif key not in said and _is_over(cause, now):
            known = cause.relieved or {cause.latest.trouble.subject: cause.latest}
            over[key] = _changed(cause, relieved=known)
            openings = () if cause.flapping else cause.openings
            changed[key] = _changed(cause, relieved={}, flapping=False, told=None, openings=openings)
    entries = [_entry("recovered", keys, over) for keys in _by_group(over, over)]
    return [_Part(tuple(entries), changed)] if entries else []


def _is_over(cause: Cause, now: float) -> bool:
    """Whether its end is to be told."""
    if cause.members or cause.closed is None or not (cause.relieved or cause.flapping):
        return False
    return now - cause.closed >= (WINDOW if cause.flapping else COLLECT)


def _reminders(causes: dict[str, Cause], said: set[str], now: float, policy: Policy) -> list[_Part]:
    """What is known and lasts, in one message: when one is due, those go along that would be before long."""
    if policy.remind is None:
        return []
    lasting = {
        key: (now - cause.said) / (policy.remind * (RARELY if cause.latest.trouble.minor else 1))
        for key, cause in causes.items()
        if key not in said
        and cause.members
        and cause.told is not None
        and cause.said is not None
        and not cause.latest.trouble.once
    }
    if not any(share >= 1 for share in lasting.values()):
        return []
    keys = [key for key, share in lasting.items() if share >= 0.5]
    entries = [_entry("still", some, causes) for some in _by_group(keys, causes)]
    return [_Part(tuple(entries), {key: _changed(causes[key], said=now) for key in keys})]


def _by_group(keys: Iterable[str], causes: dict[str, Cause]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(causes[key].group, []).append(key)
    return list(found.values())


def _entry(what: What, keys: Sequence[str], causes: dict[str, Cause]) -> Entry:
    some = [causes[key] for key in keys]
    trouble = some[0].latest.trouble
    members = [
        each
        for cause in some
        for each in ((cause.relieved if what == "recovered" else cause.members) or {"": cause.latest}).values()
    ]
    comes_and_goes = what == "flapping" or any(cause.flapping for cause in some)
    flips = max(len(cause.openings) for cause in some) if comes_and_goes else 0
    begins = [each.since for each in members]
    if what == "flapping":
        begins = [time for cause in some for time in cause.openings] or begins
    since = min(begins)
    return Entry(
        what, tuple(keys), trouble.kind, trouble.cause, trouble.place, trouble.shared, tuple(members), since, flips
    )


def _changed(value: Value, **changes: object) -> Value:
    return msgspec.structs.replace(value, **changes)
