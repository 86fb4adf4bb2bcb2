"""Snapshots and all they refer to: that each can be read, and that each run, message and envelope of it is there.

Runs that snapshots share are looked at once. Messages that are damaged are told by account, mailbox and UID, with the
snapshots that have them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from backupd.errors import Damaged, ObjectMissing
from backupd.mail.headers import readable
from backupd.operations import audit_objects
from backupd.operations.audit_memory import BYTES, Memory
from backupd.operations.audit_objects import Copies
from backupd.operations.audit_packs import Damage, interrupted
from backupd.operations.audit_report import Affected, Finding, Level, Severity
from backupd.operations.events import Advance, Observer
from backupd.operations.look import Lines
from backupd.operations.selection import readable_path
from backupd.repository import envelopes, runs, snapshots
from backupd.repository.keys import Role
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot, SnapshotRef

MOST_AFFECTED = 10_000
"""Messages that are told one by one."""

UNLISTED = "what lists show of it is lost"
"""What is wrong with a message that is whole, and of which no list tells sender and subject."""

_MOST_SNAPSHOTS = 100
_READERS = 8
_Run = TypeVar("_Run")


class _Harm(NamedTuple):
    """What is wrong with a message, or with a stretch of UIDs. row: None for a stretch."""

    first: int
    last: int
    messages: int
    what: str
    certain: bool
    restorable: bool
    row: MessageRow | None


class _Place(NamedTuple):
    """Which message this is. A message that keeps its place from snapshot to snapshot is one."""

    account: str
    mailbox: str
    uidvalidity: int | None
    first: int
    last: int
    id: bytes
    what: str


class SnapshotAudit:
    """Looks at the snapshots of one account after the other.

    Args:
        damage: what is known of packs.
        unsure: there are packs that no index describes, and this key cannot look into them: what is in no index may be
            there all the same.
        on_blobs: told the ids of all blobs that the snapshots refer to, many of them more than once.
        on_harm: told of each message in each snapshot that is damaged: account, mailbox, row, and whether the message
            itself is whole.
    """

    def __init__(
        self,
        repository: Repository,
        damage: Damage,
        copies: Copies,
        memory: Memory,
        observer: Observer,
        stop: threading.Event,
        *,
        unsure: bool = False,
        on_blobs: Callable[[Iterable[bytes]], None] | None = None,
        on_harm: Callable[[str, MailboxRecord, MessageRow, bool], None] | None = None,
    ) -> None:
        self._repository, self._damage, self._copies, self._memory = repository, damage, copies, memory
        self._observer, self._stop, self._on_blobs, self._unsure = observer, stop, on_blobs, unsure
        self._on_harm = on_harm
        self._found: dict[_Place, tuple[_Harm, list[str]]] = {}
        # Of runs that were looked at, and of envelope runs that were looked for.
        self._verdicts: dict[tuple[bytes, bytes], list[_Harm]] = {}
        self._harmed: dict[bytes, dict[int, _Harm]] = {}
        self._envelopes: dict[bytes, bool] = {}
        self.erased: set[bytes] = set()
        self.findings: list[Finding] = []
        self.read = self.references = self.more = self.objects = self.octets = 0

    def account(self, account: str, refs: list[SnapshotRef]) -> None:
        """Look at some snapshots of one account, the oldest first."""
        self._verdicts.clear()
        self._harmed.clear()
        self._envelopes.clear()
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(refs), _READERS):
                some = refs[start : start + _READERS]
                for ref, (found, octets) in zip(some, pool.map(self._open, some), strict=True):
                    self._go_on()
                    if isinstance(found, Snapshot):
                        self.objects += 1
                        self.octets += octets
                        self._memory.prove(BYTES, ref.name)
                        self._snapshot(ref, found)
                    elif found:
                        self._unreadable(account, ref, found)

    def _open(self, ref: SnapshotRef) -> tuple[Snapshot | str, int]:
        """A snapshot, or why it cannot be read, which is empty when it has been removed; and its octets."""
        found = audit_objects.read(self._repository.storage, ref.name)
        if found.data is None:
            return found.what, 0
        try:
            return snapshots.unseal(found.data, ref, self._repository.secrets), len(found.data)
        except Damaged as error:
            return found.what or error.what, 0

    def _unreadable(self, account: str, ref: SnapshotRef, what: str) -> None:
        remedy = self._copies.finding(ref.name, what).remedy
        what = f"the snapshot: {what}"
        self.findings.append(Finding(Severity.CRITICAL, Level.METADATA, ref.name, what, remedy, account))
        self._memory.unprove([ref.name])

    def _snapshot(self, ref: SnapshotRef, snapshot: Snapshot) -> None:
        self.read += 1
        messages = octets = 0
        for record in snapshot.mailboxes:
            self._go_on()
            self._mailbox(ref, snapshot.account, record)
            messages += record.messages
            octets += record.octets
        if (messages, octets) != (snapshot.messages, snapshot.octets):
            self._inconsistent(ref, "its mailboxes do not add up to what it says it holds")
        self._observer(Advance(snapshot.account, ref.id, 1, 0))

    def _mailbox(self, ref: SnapshotRef, account: str, record: MailboxRecord) -> None:
        if record.messages != sum(segment.messages for segment in record.segments):
            self._inconsistent(ref, f"{readable_path(record.mailbox)} does not add up to what it says it holds")
        for segment in record.segments:
            key = (segment.membership, segment.state)
            harms = self._verdicts.get(key)
            if harms is None:
                harms = self._verdicts[key] = list(self._segment(ref, record, segment))
            for harm in harms:
                self._note(ref, account, record, harm)

    def _inconsistent(self, ref: SnapshotRef, what: str) -> None:
        self.findings.append(Finding(Severity.CRITICAL, Level.METADATA, ref.name, f"the snapshot: {what}"))

    # One stretch of a mailbox

    def _segment(self, ref: SnapshotRef, record: MailboxRecord, segment: Segment) -> Iterator[_Harm]:
        """What is wrong with a stretch of UIDs."""
        if self._on_blobs:
            self._on_blobs([segment.membership, segment.state])
        self.references += 2
        # Many snapshots tell of the same messages with other flags; what there is to these was looked at before.
        is_new = segment.membership not in self._harmed
        rows: list[MessageRow] | str = []
        if is_new:
            rows = self._run(segment.membership, BlobKind.MEMBERSHIP, runs.decode_membership)
            sizes = rows if isinstance(rows, str) else {row.uid: row.size for row in rows}
        else:
            sizes = self._run(segment.membership, BlobKind.MEMBERSHIP, runs.sizes)
        uids = self._run(segment.state, BlobKind.STATE, runs.state_uids)
        if isinstance(rows, str) or isinstance(sizes, str) or isinstance(uids, str):
            yield from self._unreadable_stretch(segment, sizes, uids)
            return
        there = set(uids)
        alive = [octets for uid, octets in sizes.items() if uid in there]
        if (len(there), len(alive), sum(alive)) != (segment.messages, segment.messages, segment.octets):
            stretch = f"{readable_path(record.mailbox)} UIDs {segment.first} to {segment.last}"
            self._inconsistent(ref, f"{stretch} do not add up to what it says it holds")
        if is_new:
            # Also of messages that are gone by this snapshot.
            self.references += 2 * len(rows)
            if self._on_blobs:
                self._on_blobs(blob for row in rows for blob in self._blobs_of(row))
            kept = [row for row in rows if row.message not in self._repository.erased.now]
            self.erased.update(row.message for row in rows if row.message in self._repository.erased.now)
            lacking = self._repository.index.lacking(row.message for row in kept)
            found = [harm for row in kept if (harm := self._harm(row, lacking))]
            self._harmed[segment.membership] = {harm.first: harm for harm in found}
        harmed = self._harmed[segment.membership]
        yield from (harm for uid, harm in harmed.items() if uid in there)

    def _unreadable_stretch(
        self, segment: Segment, sizes: dict[int, int] | str, uids: list[int] | str
    ) -> Iterator[_Harm]:
        """What is wrong with the messages of a stretch, where a text in the place of one of its runs, or of both, says
        why that cannot be read."""
        which = "what messages there are" if isinstance(sizes, str) else "the flags"
        what = f"{which} cannot be read: {sizes if isinstance(sizes, str) else uids}"
        if isinstance(uids, str):
            # Some of them may have been deleted before this snapshot: which, only the other run says.
            uids = list(sizes) if not isinstance(sizes, str) and len(sizes) == segment.messages else []
        sure = not self._unsure or all(map(self._repository.has, (segment.membership, segment.state)))
        if uids:
            yield from (_Harm(uid, uid, 1, what, sure, False, None) for uid in uids)
        else:
            yield _Harm(segment.first, segment.last, segment.messages, what, sure, False, None)

    def _blobs_of(self, row: MessageRow) -> list[bytes]:
        """What a message needs by now: nothing, if it was erased; of its envelope, the run that has it by now."""
        if row.message in self._repository.erased.now:
            return []
        places = self._repository.erased.now.places(row.envelopes)
        return [row.message, next(filter(self._repository.has, places), row.envelopes)]

    def _run(self, blob_id: bytes, kind: BlobKind, decode: Callable[[bytes | memoryview, str], _Run]) -> _Run | str:
        """A run, decoded; or why it cannot be."""
        try:
            return decode(self._repository.get_run(blob_id, kind), f"run {blob_id.hex()[:16]}")
        except (Damaged, ObjectMissing) as error:
            return error.what

    def _harm(self, row: MessageRow, lacking: set[bytes]) -> _Harm | None:
        """What is wrong with a message. lacking: those that are in no index."""
        damage = self._damage
        if row.message in lacking:
            return _Harm(row.uid, row.uid, 1, "no index tells where it is", not self._unsure, False, row)
        if row.message in damage.unjoined:
            return _Harm(row.uid, row.uid, 1, "a part of it is damaged or missing", True, False, row)
        if row.message in damage.suspects:
            return _Harm(row.uid, row.uid, 1, "it is in a damaged pack", False, False, row)
        if row.envelopes not in self._envelopes:
            self._envelopes[row.envelopes] = envelopes.is_there(self._repository, row.envelopes)
        if not self._envelopes[row.envelopes]:
            return _Harm(row.uid, row.uid, 1, UNLISTED, not self._unsure, True, row)
        if self._repository.erased.now.places(row.envelopes)[0] in damage.suspects:
            return _Harm(row.uid, row.uid, 1, "what lists show of it is in a damaged pack", False, True, row)
        return None

    # What is told

    @property
    def is_harmed(self) -> bool:
        """Whether any message is damaged."""
        return bool(self._found)

    def _note(self, ref: SnapshotRef, account: str, record: MailboxRecord, harm: _Harm) -> None:
        identity = harm.row.message if harm.row else b""
        if self._on_harm and harm.row:
            self._on_harm(account, record, harm.row, harm.restorable)
        name = readable_path(record.mailbox)
        place = _Place(account, name, record.status.uidvalidity, harm.first, harm.last, identity, harm.what)
        known = self._found.get(place)
        if known is None:
            if len(self._found) >= MOST_AFFECTED:
                self.more += harm.messages
                return
            known = self._found[place] = (harm, [])
        if len(known[1]) < _MOST_SNAPSHOTS:
            known[1].append(ref.id)

    def affected(self) -> list[Affected]:
        """All that is damaged, by account, mailbox and UID; with the reader role, with what lists show of it."""
        lines = Lines(self._repository) if self._repository.secrets.role is Role.READER else None
        return [
            self._affected(place, harm, some, lines)
            for place, (harm, some) in sorted(self._found.items(), key=lambda each: each[0][:2] + each[0][3:4])
        ]

    def _affected(self, place: _Place, harm: _Harm, some: list[str], lines: Lines | None) -> Affected:
        shown: dict[str, str] = {}
        if lines and harm.row and envelopes.is_there(self._repository, harm.row.envelopes):
            try:
                envelope = lines.envelope(harm.row)
            except (Damaged, ObjectMissing):
                pass
            else:
                shown["subject"], shown["sender"] = readable(envelope.subject), readable(envelope.from_)
        if harm.row:
            shown["date"] = harm.row.internaldate.decode("utf-8", "backslashreplace")
        return Affected(
            account=place.account,
            mailbox=place.mailbox,
            uid=harm.first,
            last=harm.last,
            messages=harm.messages,
            what=harm.what,
            id=place.id.hex(),
            certain=harm.certain,
            restorable=harm.restorable,
            snapshots=some,
            **shown,
        )

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise interrupted(self._repository.storage.url)


def summed_up(affected: list[Affected], more: int) -> Iterator[Finding]:
    """A finding for each mailbox with damaged messages."""
    by_mailbox: dict[tuple[str, str, bool, bool], int] = {}
    for each in affected:
        key = (each.account, each.mailbox, each.certain, each.restorable)
        by_mailbox[key] = by_mailbox.get(key, 0) + each.messages
    for (account, mailbox, certain, restorable), count in by_mailbox.items():
        messages = "1 message" if count == 1 else f"{count:,} messages"
        verb = "" if certain else "perhaps "
        what = f"{messages} {verb}{'without sender and subject in lists' if restorable else 'cannot be restored'}"
        severity = Severity.CRITICAL if certain and not restorable else Severity.WARNING
        remedy = "" if certain else "only a key of the reader role can tell"
        yield Finding(severity, Level.METADATA, f"{account}: {mailbox}", what, remedy, account)
    if more:
        what = f"{more:,} more messages are damaged than are told here"
        yield Finding(Severity.CRITICAL, Level.METADATA, "all accounts", what)
