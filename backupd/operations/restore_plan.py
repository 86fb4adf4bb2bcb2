"""What of a snapshot must be written to a target, and what is there already. Decisions only; nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from backupd.errors import UsageError
from backupd.model import MessageState
from backupd.operations.selection import matches
from backupd.operations.state import Journal
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import RunStore
from backupd.repository.snapshots import MailboxRecord, Snapshot
from backupd.sources.base import Source
from backupd.targets.base import Present

Pair = tuple[MessageRow, MessageState]


def choose(snapshot: Snapshot, wanted: Sequence[str]) -> list[MailboxRecord]:
    """The mailboxes of these names or patterns; all of them when none is given. Raises UsageError for a name that is
    in the snapshot nowhere."""
    if not wanted:
        return snapshot.mailboxes
    for pattern in wanted:
        if not any(matches(record.mailbox, pattern) for record in snapshot.mailboxes):
            names = ", ".join(record.mailbox.name for record in snapshot.mailboxes[:10])
            more = f" and {len(snapshot.mailboxes) - 10:,} more" if len(snapshot.mailboxes) > 10 else ""
            raise UsageError("no such mailbox in this snapshot", subject=pattern, remedy=f"there are {names}{more}")
    return [each for each in snapshot.mailboxes if any(matches(each.mailbox, pattern) for pattern in wanted)]


def limit(records: list[MailboxRecord], only: Mapping[bytes, Collection[int]] | None) -> list[MailboxRecord]:
    """The mailboxes that some of these messages are in, as if they held no others. only: UIDs by raw name."""
    if only is None:
        return records
    return [
        msgspec.structs.replace(each, messages=len(wanted), octets=each.octets * len(wanted) // max(1, each.messages))
        for each in records
        if (wanted := only.get(each.mailbox.raw_name))
    ]


def messages_of(store: RunStore, record: MailboxRecord) -> Iterator[Pair]:
    """All messages of a mailbox, by ascending UID."""
    for segment in record.segments:
        yield from segments.read(store, segment)


class Lookup:
    """What need not be written: the target's messages of a mailbox, and mail that is held somewhere else.

    A target's message stands for one of the snapshot's of equal header and size, and for only one: of two equal
    messages in the snapshot and one in the target, one is written.
    """

    def __init__(self, present: Counter[Present], held: Collection[Present | bytes] = ()) -> None:
        """held: messages that count as there wherever they are, by header and size or by message id."""
        self._present, self._held = present.copy(), held

    def is_there(self, row: MessageRow) -> bool:
        """Whether the message needs no writing; each call uses up one of the target's."""
        key = Present(row.fingerprint, row.size)
        if self._present[key] > 0:
            self._present[key] -= 1
            return True
        return key in self._held or row.message in self._held

    @property
    def strangers(self) -> int:
        """How many of the target's messages stood for none of those asked about."""
        return self._present.total()


def rewritten_by_the_server(journal: Journal | None, recognised: Iterable[int], strangers: int) -> frozenset[int]:
    """UIDs that an interrupted restore wrote and that cannot be recognised, because the server changes headers.

    Told apart from messages that somebody has deleted since: then others that were written would still be recognised,
    or there would not be as many strangers more than before.
    """
    if journal is None or not journal.written:
        return frozenset()
    seen = journal.written.intersection(recognised)
    unseen = journal.written - seen
    if seen or strangers - journal.strangers < len(unseen):
        return frozenset()
    return unseen


def held_by_account(source: Source, repository: Repository) -> set[Present]:
    """All that an account's mailboxes hold now, read from its server: headers and sizes."""
    held: set[Present] = set()
    session = source.open()
    try:
        for found in session.discover():
            if not found.mailbox.selectable:
                continue
            uids = session.scan(found.mailbox, None).uids
            for some in uids.chunks(segments.ROWS):
                sizes = {each.facts.uid: each.facts.size for each in session.describe(found.mailbox, some)}
                for uid, header in session.headers(found.mailbox, some):
                    if uid in sizes:
                        held.add(Present(repository.secrets.fingerprint(header), sizes[uid]))
    finally:
        session.close()
    return held


def held_by_newest(repository: Repository, account: str) -> set[bytes]:
    """Message ids of all that the account's newest snapshot holds."""
    refs = repository.refs(account)
    newest = repository.snapshot(refs[-1])
    return {row.message for record in newest.mailboxes for row, _ in messages_of(repository, record)}
