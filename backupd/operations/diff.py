"""`backupd diff`: what changed between two snapshots.

Only segments that differ are read, so two snapshots of a mailbox of a million messages are compared at once. Messages
are the same when their ids in the archive are, so mail that was moved, or came under another UID, is not taken for new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from backupd.model import Mailbox, MessageState
from backupd.operations.counting import count
from backupd.operations.diff_mailboxes import Pairing, pair_mailboxes
from backupd.repository import segments
from backupd.repository.runs import MessageRow
from backupd.repository.segments import RunStore, Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot

Pair = tuple[MessageRow, MessageState]


class FlagChange(msgspec.Struct, frozen=True):
    """A message whose flags or labels are others now."""

    before: Pair
    after: Pair


class MailboxDifference(msgspec.Struct, frozen=True):
    """What changed in one mailbox.

    before, after: its record in either snapshot; None where it does not exist. reset: UIDVALIDITY is another one;
    recognised: messages that are the same under new UIDs then. properties: what else changed about the mailbox. What
    was moved between mailboxes is neither in new nor in gone.
    """

    before: MailboxRecord | None
    after: MailboxRecord | None
    reset: bool
    recognised: int
    new: list[Pair]
    gone: list[Pair]
    flags: list[FlagChange]
    properties: list[str]

    @property
    def name(self) -> str:
        record = self.after or self.before
        return record.mailbox.name if record else ""

    @property
    def renamed(self) -> bool:
        return bool(self.before and self.after and self.before.mailbox.raw_name != self.after.mailbox.raw_name)

    @property
    def same(self) -> bool:
        """Whether nothing a person would see changed."""
        only_one = self.before is None or self.after is None
        return not (only_one or self.renamed or self.reset or self.new or self.gone or self.flags or self.properties)


class Moved(msgspec.Struct, frozen=True):
    """A message that left one mailbox and is in another now."""

    from_mailbox: str
    before: Pair
    to_mailbox: str
    after: Pair


class Difference(msgspec.Struct, frozen=True):
    """Mailboxes that differ, in the order of the later snapshot, then those that are gone; and what was moved."""

    mailboxes: list[MailboxDifference]
    moved: list[Moved]


def diff(store: RunStore, before: Snapshot, after: Snapshot) -> Difference:
    """What changed from `before` to `after`. Raises Damaged."""
    compared = [_compare(store, pairing) for pairing in pair_mailboxes(store, before, after)]
    moved, rest = _moved(compared)
    took_part = {name for each in moved for name in (each.from_mailbox, each.to_mailbox)}
    return Difference([each for each in rest if not each.same or each.name in took_part], moved)


def _compare(store: RunStore, pairing: Pairing) -> MailboxDifference:
    before, after = pairing
    result = MailboxDifference(before, after, False, 0, [], [], [], _properties(before, after))
    old, new = before.segments if before else [], after.segments if after else []
    if before and after and _reset(before, after):
        return _compare_reset(store, result, old, new)
    shared = set(old) & set(new)
    left = _stream(store, [segment for segment in old if segment not in shared])
    right = _stream(store, [segment for segment in new if segment not in shared])
    for was, now in _joined(left, right):
        if was is None and now is not None:
            result.new.append(now)
        elif now is None and was is not None:
            result.gone.append(was)
        elif was is not None and now is not None:
            _same_uid(result, was, now)
    return result


def _same_uid(result: MailboxDifference, was: Pair, now: Pair) -> None:
    if was[0].message != now[0].message:
        # RFC 3501, 2.3.1.1 forbids it; a server that does it all the same has replaced one message by another.
        result.gone.append(was)
        result.new.append(now)
    elif _marks(was) != _marks(now):
        result.flags.append(FlagChange(was, now))


def _marks(pair: Pair) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    return pair[1].flags, pair[1].labels


def _reset(before: MailboxRecord, after: MailboxRecord) -> bool:
    old, new = before.status.uidvalidity, after.status.uidvalidity
    return old is not None and new is not None and old != new


def _compare_reset(
    store: RunStore, result: MailboxDifference, old: Sequence[Segment], new: Sequence[Segment]
) -> MailboxDifference:
    """UIDs mean nothing any more: compare by message."""
    waiting: defaultdict[bytes, list[Pair]] = defaultdict(list)
    for pair in _stream(store, old):
        waiting[pair[0].message].append(pair)
    recognised = 0
    for now in _stream(store, new):
        candidates = waiting.get(now[0].message)
        if not candidates:
            result.new.append(now)
            continue
        recognised += 1
        alike = next((i for i, was in enumerate(candidates) if _marks(was) == _marks(now)), 0)
        was = candidates.pop(alike)
        if _marks(was) != _marks(now):
            result.flags.append(FlagChange(was, now))
    result.gone.extend(sorted((pair for pairs in waiting.values() for pair in pairs), key=lambda pair: pair[0].uid))
    return msgspec.structs.replace(result, reset=True, recognised=recognised)


def _stream(store: RunStore, some: Sequence[Segment]) -> Iterator[Pair]:
    for segment in some:
        yield from segments.read(store, segment)


def _joined(left: Iterator[Pair], right: Iterator[Pair]) -> Iterator[tuple[Pair | None, Pair | None]]:
    """Both streams side by side, by UID."""
    was, now = next(left, None), next(right, None)
    while was is not None or now is not None:
        if now is None or (was is not None and was[0].uid < now[0].uid):
            yield was, None
            was = next(left, None)
        elif was is None or now[0].uid < was[0].uid:
            yield None, now
            now = next(right, None)
        else:
            yield was, now
            was, now = next(left, None), next(right, None)


def _properties(before: MailboxRecord | None, after: MailboxRecord | None) -> list[str]:
    if before is None or after is None:
        return []
    old, new = before.mailbox, after.mailbox
    found = []
    if old.subscribed != new.subscribed:
        found.append("subscribed" if new.subscribed else "no longer subscribed")
    if set(old.special_use) != set(new.special_use):
        found.append(f"special use {_uses(old)} is now {_uses(new)}")
    if old.selectable != new.selectable:
        found.append("can hold messages now" if new.selectable else "cannot hold messages any more")
    if len(before.missing) != len(after.missing):
        found.append(f"{count(len(after.missing), 'message')} could not be read (before: {len(before.missing):,})")
    return found


def _uses(mailbox: Mailbox) -> str:
    return b" ".join(sorted(mailbox.special_use)).decode("ascii", "backslashreplace") or "none"


def _moved(compared: Sequence[MailboxDifference]) -> tuple[list[Moved], list[MailboxDifference]]:
    """Pair what is gone from one mailbox with what is new in another."""
    left: defaultdict[bytes, list[tuple[int, Pair]]] = defaultdict(list)
    for place, mailbox in enumerate(compared):
        for pair in mailbox.gone:
            left[pair[0].message].append((place, pair))
    moved: list[Moved] = []
    departed: set[tuple[int, int]] = set()
    arrived: set[tuple[int, int]] = set()
    for place, mailbox in enumerate(compared):
        for pair in mailbox.new:
            candidates = left.get(pair[0].message, [])
            chosen = next((i for i, (origin, _) in enumerate(candidates) if origin != place), None)
            if chosen is None:
                continue
            origin, was = candidates.pop(chosen)
            departed.add((origin, was[0].uid))
            arrived.add((place, pair[0].uid))
            from_record = compared[origin].before
            moved.append(Moved(from_record.mailbox.name if from_record else "", was, mailbox.name, pair))
    rest = [
        msgspec.structs.replace(
            mailbox,
            new=[pair for pair in mailbox.new if (place, pair[0].uid) not in arrived],
            gone=[pair for pair in mailbox.gone if (place, pair[0].uid) not in departed],
        )
        for place, mailbox in enumerate(compared)
    ]
    return moved, rest
