"""A mailbox on its way into a target, and what became of it."""

from __future__ import annotations

import msgspec

from backupd.repository.snapshots import MailboxRecord


class RestoredMailbox(msgspec.Struct, frozen=True):
    """What became of one mailbox. messages, octets: in the snapshot. present: need not be written; altered: written
    with something left out; refused: that the target did not take; unreadable: that the archive could not give, since
    they are damaged; erased: left out, since they were erased from the archive. In a dry run nothing is written, and
    messages - present - unreadable - erased is what would be."""

    name: str
    target_name: str
    messages: int
    octets: int
    present: int
    written: int = 0
    altered: int = 0
    refused: int = 0
    unreadable: int = 0
    erased: int = 0


class MailboxTask:
    """A mailbox on its way; it outlives the connections to the target."""

    def __init__(self, record: MailboxRecord, target_name: str) -> None:
        self.record, self.target_name = record, target_name
        self.settled: set[int] = set()
        self.erased: set[int] = set()
        self.present = self.written = self.altered = self.refused = 0
        # Messages that cannot be read: of stretches whose list is damaged, and by themselves, these being settled, too.
        self.unreadable = self.damaged = 0
        self.needed: set[int] | None = None  # UIDs that are written together with other mailboxes'
        self.announced = False
        # After a lost connection: one message at a time, and which one, so that a deadly one is found.
        self.careful = False
        self.alone: int | None = None

    @property
    def done(self) -> bool:
        """Whether all that the target lacked has met its fate."""
        return self.needed is not None and self.needed <= self.settled

    def report(self, *, failed: bool = False) -> RestoredMailbox:
        lost = self.unreadable + self.damaged
        met = self.present + self.written + self.refused + lost + len(self.erased)
        return RestoredMailbox(
            name=self.record.mailbox.name,
            target_name=self.target_name,
            messages=self.record.messages,
            octets=self.record.octets,
            present=self.present,
            written=self.written,
            altered=self.altered,
            refused=self.refused + (self.record.messages - met if failed else 0),
            unreadable=lost,
            erased=len(self.erased),
        )
