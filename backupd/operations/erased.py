"""How much of a snapshot was erased: messages that it lists, and that are gone from all snapshots."""

from __future__ import annotations

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import runs, segments
from backupd.repository.erasures import Gone
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot


class ErasedNote(msgspec.Struct, frozen=True):
    """That a message was erased. on: when (RFC 3339)."""

    on: str
    reason: str
    erasure: str

    def __str__(self) -> str:
        return f"erased on {self.on[:10]}: {self.reason}"


def note(gone: Gone | None) -> ErasedNote | None:
    """As it is shown."""
    return ErasedNote(gone.created, gone.reason, gone.erasure) if gone else None


class Count:
    """Counts what was erased. Lists of messages that snapshots share are read once, and none where nothing ever was."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lists: dict[bytes, bool] = {}
        self._counts: dict[Segment, int] = {}

    def of_snapshot(self, snapshot: Snapshot) -> int:
        """How many messages of a snapshot were erased."""
        return sum(map(self.of_mailbox, snapshot.mailboxes))

    def of_mailbox(self, record: MailboxRecord) -> int:
        """How many messages of a mailbox were erased; of what cannot be read, none."""
        if not self._repository.erased.now.messages:
            return 0
        return sum(map(self._of_segment, record.segments))

    def _of_segment(self, segment: Segment) -> int:
        if segment not in self._counts:
            try:
                self._counts[segment] = self._count(segment)
            except (Damaged, ObjectMissing):  # whoever asks for the messages is told
                self._counts[segment] = 0
        return self._counts[segment]

    def _count(self, segment: Segment) -> int:
        erased = self._repository.erased.now
        if segment.membership not in self._lists:
            data = self._repository.get_run(segment.membership, BlobKind.MEMBERSHIP)
            ids = runs.references(data, segment.membership.hex()).messages
            self._lists[segment.membership] = any(ids[at : at + 32] in erased for at in range(0, len(ids), 32))
        if not self._lists[segment.membership]:
            return 0
        return sum(row.message in erased for row, _ in segments.read(self._repository, segment))
