"""The snapshots of an account before this run, and the one this run makes of what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from backupd.errors import Damaged, ObjectMissing, StorageDenied
from backupd.model import Problem
from backupd.operations import loss
from backupd.operations.loss import Departure
from backupd.operations.record import Recorder
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.snapshots import (
    FORMAT,
    IMPORT,
    Loss,
    MailboxRecord,
    Origin,
    Snapshot,
    SnapshotRef,
    timestamp,
)
from backupd.sources.base import Identity

_MOST_NOTES = 200


class History:
    """Snapshots before, and the making of the next.

    parent: the newest snapshot, perhaps a checkpoint. baseline: the newest that a run completed. there: ids of all;
    refs: their places, the oldest first.
    """

    def __init__(
        self,
        repository: Repository,
        account: str,
        started: datetime,
        clock: Callable[[], datetime],
        record: Recorder,
    ) -> None:
        self._repository, self._account, self._clock, self._record = repository, account, clock, record
        self.parent: Snapshot | None = None
        self.baseline: tuple[SnapshotRef, Snapshot] | None = None
        self.newest: str | None = None
        self._parent_ref: SnapshotRef | None = None
        self._checkpoint: SnapshotRef | None = None
        self._mended: list[MailboxRecord] | None = None
        self.notes: list[str] = []
        refs = self.refs = repository.refs(account)
        self.there = frozenset(ref.id for ref in refs)
        for ref in reversed(refs):
            try:
                snapshot = repository.snapshot(ref)
            except ObjectMissing:  # forgotten since it was listed
                continue
            except Damaged as error:
                self.notes.append(f"snapshot {ref.id} cannot be read, so the one before it is the parent: {error.what}")
                continue
            if self.parent is None:
                self.parent, self._parent_ref, self.newest = snapshot, ref, ref.id
            if not snapshot.checkpoint:
                self.baseline = (ref, snapshot)
                break
        # Snapshots are ordered by time, so a clock that went back must not make this one the older.
        earliest = refs[-1].time + timedelta(milliseconds=1) if refs else started
        self.started = max(started, earliest)

    @property
    def account(self) -> str:
        """Whose snapshots these are."""
        return self._account

    @property
    def denied(self) -> list[str]:
        """Why the signed record does not tell what this run did."""
        return self._record.denied

    @property
    def bytes_stored(self) -> int:
        """Octets added to the repository's packs by all that work on it."""
        return self._repository.bytes_stored

    @property
    def parent_ref(self) -> SnapshotRef | None:
        """The place of the parent."""
        return self._parent_ref

    @property
    def parent_id(self) -> str | None:
        return self._parent_ref.id if self._parent_ref else None

    @property
    def ended(self) -> datetime:
        """Now, and never before the start."""
        return max(self.started, self._clock())

    def before(self) -> Mapping[bytes, MailboxRecord]:
        """The mailboxes of the parent by raw name."""
        records = self._mended if self._mended is not None else self.parent.mailboxes if self.parent else []
        return {record.mailbox.raw_name: record for record in records}

    def mended(self, mailboxes: list[MailboxRecord]) -> None:
        """Go on from these in place of the parent's: some of what it refers to is lost."""
        self._mended = mailboxes

    def checkpoint(self, identity: Identity, mailboxes: list[MailboxRecord], notes: list[str]) -> None:
        """Write what there is so far; it replaces an earlier checkpoint of this run."""
        snapshot = self._snapshot(identity, mailboxes, checkpoint=True, complete=False, notes=notes)
        ref, digest = self._repository.store_snapshot(snapshot)
        self._record.stored("checkpoint", ref, digest, self._checkpoint)
        self._drop_checkpoint()
        self._checkpoint, self.newest = ref, ref.id
        # What this run writes next is the newer, also where this checkpoint stays: ids of one time have no order.
        self.started += timedelta(milliseconds=1)

    def conclude(
        self,
        identity: Identity,
        mailboxes: list[MailboxRecord],
        problems: list[Problem],
        losses: list[Loss],
        notes: list[str],
    ) -> SnapshotRef | None:
        """Write the snapshot, unless it would say the same as its parent."""
        parent = self.parent
        same = parent and not parent.checkpoint and parent.mailboxes == mailboxes and parent.problems == problems
        if same and self._mended is None:
            return None
        complete = not problems and not any(record.missing for record in mailboxes)
        ref, digest = self._repository.store_snapshot(
            self._snapshot(identity, mailboxes, complete=complete, problems=problems, losses=losses, notes=notes)
        )
        kind = "import" if identity.kind == IMPORT else "backup"
        self._record.stored(kind, ref, digest, self._checkpoint)
        self._drop_checkpoint()
        self.newest = ref.id
        return ref

    def _drop_checkpoint(self) -> None:
        # What this run wrote before is all in what it has written now. Those of earlier runs are history.
        if self._checkpoint:
            # A writer whose credentials cannot delete leaves it to whoever removes what is not needed.
            with suppress(StorageDenied):
                self._repository.remove_snapshot(self._checkpoint)
            self._checkpoint = None

    def _snapshot(
        self,
        identity: Identity,
        mailboxes: list[MailboxRecord],
        *,
        complete: bool,
        checkpoint: bool = False,
        problems: Sequence[Problem] = (),
        losses: Sequence[Loss] = (),
        notes: Sequence[str] = (),
    ) -> Snapshot:
        kept = list(notes[:_MOST_NOTES])
        if len(notes) > _MOST_NOTES:
            kept.append(f"and {len(notes) - _MOST_NOTES:,} more")
        return Snapshot(
            format=FORMAT,
            account=self._account,
            parent=self.parent_id,
            started=timestamp(self.started),
            ended=timestamp(self.ended),
            origin=Origin(identity.kind, identity.host, identity.port, identity.server, identity.capabilities),
            complete=complete,
            checkpoint=checkpoint,
            messages=sum(record.messages for record in mailboxes),
            octets=sum(record.octets for record in mailboxes),
            mailboxes=mailboxes,
            problems=list(problems),
            losses=list(losses),
            notes=kept,
        )

    def losses(self, departed: Mapping[bytes, set[bytes]], mailboxes: Sequence[MailboxRecord]) -> list[Loss]:
        """Sudden losses. departed: by mailbox, ids of messages that left it and arrived nowhere in this run."""
        if not self.baseline or not self.parent:
            return []
        ref, baseline = self.baseline
        if self.parent.checkpoint:
            counts = [(record.mailbox.raw_name, record.messages) for record in mailboxes]
            return loss.losses(
                loss.since_checkpoint(baseline, counts), account_before=baseline.messages, pinned=ref.id
            )
        found = self._judge(baseline, ref, departed)
        if not found:
            return []
        # Before anybody is alarmed: does another mailbox hold them, as with labels or copies?
        elsewhere = self._held_elsewhere(set().union(*departed.values()), mailboxes)
        return self._judge(baseline, ref, {name: ids - elsewhere for name, ids in departed.items()})

    def _judge(self, baseline: Snapshot, ref: SnapshotRef, departed: Mapping[bytes, set[bytes]]) -> list[Loss]:
        departures = [
            Departure(raw_name, record.mailbox.name, record.messages, len(ids))
            for raw_name, ids in departed.items()
            if ids and (record := baseline.find(raw_name))
        ]
        return loss.losses(departures, account_before=baseline.messages, pinned=ref.id)

    def _held_elsewhere(self, wanted: set[bytes], mailboxes: Iterable[MailboxRecord]) -> set[bytes]:
        found: set[bytes] = set()
        for record in mailboxes:
            for segment in record.segments:
                held = (row.message for row, _ in segments.read(self._repository, segment))
                found.update(message for message in held if message in wanted)
        return found
