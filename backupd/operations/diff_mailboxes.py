"""Which mailbox of one snapshot is which of another, when some were renamed, deleted or made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from backupd.repository import segments
from backupd.repository.segments import RunStore
from backupd.repository.snapshots import MailboxRecord, Snapshot


class Pairing(NamedTuple):
    """A mailbox in both snapshots, or in one of them."""

    before: MailboxRecord | None
    after: MailboxRecord | None


def pair_mailboxes(store: RunStore, before: Snapshot, after: Snapshot) -> list[Pairing]:
    """All mailboxes of both, in the order of `after`; then those that only `before` has.

    A mailbox is the same by its name, unless its MAILBOXID (RFC 8474) says otherwise; then by MAILBOXID; and then by
    equal UIDVALIDITY and messages, as RENAME keeps both (RFC 9051, 6.3.6).
    """
    old = list(before.mailboxes)
    partner: dict[int, MailboxRecord] = {}

    def match(same: Callable[[MailboxRecord, MailboxRecord], bool]) -> None:
        for place, record in enumerate(after.mailboxes):
            if place not in partner and (found := next((each for each in old if same(each, record)), None)):
                partner[place] = found
                old.remove(found)

    # By name through a table: accounts with thousands of mailboxes exist, and nearly all keep their names.
    by_name = {record.mailbox.raw_name: record for record in before.mailboxes}
    for place, record in enumerate(after.mailboxes):
        found = by_name.get(record.mailbox.raw_name)
        if found and not _other_id(found, record):
            partner[place] = found
    taken = {record.mailbox.raw_name for record in partner.values()}
    old = [record for record in old if record.mailbox.raw_name not in taken]

    match(_same_id)
    match(lambda one, other: one.mailbox.raw_name == other.mailbox.raw_name)
    match(lambda one, other: _same_messages(store, one, other))
    paired = [Pairing(partner.get(place), record) for place, record in enumerate(after.mailboxes)]
    return paired + [Pairing(record, None) for record in old]


def _other_id(one: MailboxRecord, other: MailboxRecord) -> bool:
    ids = one.status.mailbox_id, other.status.mailbox_id
    return None not in ids and ids[0] != ids[1]


def _same_id(one: MailboxRecord, other: MailboxRecord) -> bool:
    return one.status.mailbox_id is not None and one.status.mailbox_id == other.status.mailbox_id


def _same_messages(store: RunStore, one: MailboxRecord, other: MailboxRecord) -> bool:
    """Whether they have the same UIDVALIDITY and at least one message under the same UID, and none that contradicts."""
    if one.status.uidvalidity is None or one.status.uidvalidity != other.status.uidvalidity:
        return False
    if _other_id(one, other) or not one.segments or not other.segments:
        return False
    if {segment.membership for segment in one.segments} & {segment.membership for segment in other.segments}:
        return True
    old = {row.uid: row.message for row, _ in segments.read(store, one.segments[0])}
    common = [old[row.uid] == row.message for row, _ in segments.read(store, other.segments[0]) if row.uid in old]
    return bool(common) and all(common)
