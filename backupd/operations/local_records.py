"""Mailboxes that no server has, in the backup of an IMAP account: what was imported, or came by POP3 before a switch.

They stay in every snapshot beside those of the server. A message that comes to the server's mailbox of the same name,
because a restore or a mail program has put it there, is the server's from then on, and not shown twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from backupd.mail.uidset import UidSet
from backupd.operations import local_names
from backupd.operations.holdings import Holdings
from backupd.operations.mailbox_work import rows_of
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.snapshots import MailboxRecord


class LocalRecords:
    """The local mailboxes of one run. Used by one thread."""

    def __init__(self, repository: Repository, records: list[MailboxRecord], taken: Collection[bytes]) -> None:
        """taken: raw names of the server's mailboxes; a local one of such a name goes aside."""
        self._repository = repository
        self._holdings: Holdings | None = None
        self._matched: set[tuple[bytes, ...]] = set()
        self.records: list[MailboxRecord] = []
        names = {*taken, *(record.mailbox.raw_name for record in records if record.mailbox.raw_name not in taken)}
        for record in records:
            mailbox = record.mailbox
            if mailbox.raw_name in taken:
                while mailbox.raw_name in names:
                    mailbox = local_names.aside(mailbox)
                names.add(mailbox.raw_name)
            self.records.append(msgspec.structs.replace(record, mailbox=mailbox))

    def rows(self) -> Iterator[Iterator[MessageRow]]:
        """All their messages, by segment."""
        for record in self.records:
            for segment in record.segments:
                yield (row for row, _ in segments.read(self._repository, segment))

    def arrived(self, record: MailboxRecord, uids: UidSet) -> None:
        """These messages are new in a server's mailbox."""
        place = local_names.place(record.mailbox)
        numbers = [number for number, each in enumerate(self.records) if local_names.place(each.mailbox) == place]
        if not uids or not any(self.records[number].messages for number in numbers):
            return
        if self._holdings is None:
            self._holdings = Holdings(self._repository, self.records)
        for row in rows_of(self._repository, record.segments, uids):
            for number in numbers:
                if held := self._holdings.of_message(row.message, number):
                    self._holdings.drop(held)
                    self._matched.add(place)

    def finish(self) -> list[MailboxRecord]:
        """As they are after this run; one that the server's mailbox has emptied is gone."""
        if self._holdings is None:
            return self.records
        return [
            record
            for record in self._holdings.finish()
            if record.messages or local_names.place(record.mailbox) not in self._matched
        ]

    def close(self) -> None:
        """Drop what was kept in the meantime."""
        if self._holdings:
            self._holdings.close()
