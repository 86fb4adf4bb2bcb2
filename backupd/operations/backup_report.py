"""How a run ends, wherever its mail came from: the snapshot, and the report."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backupd.model import Problem
from backupd.operations.history import History
from backupd.repository.snapshots import Loss, MailboxRecord, timestamp
from backupd.sources.base import Identity

COUNTS = ("new", "downloaded", "recognised", "vanished", "changed")
"""What a run counts as it goes along."""


class BackupReport(msgspec.Struct, frozen=True):
    """What a run did.

    snapshot: the new one's id, or None when nothing had changed. parent: the id it was compared with. messages, octets:
    of the account now. new: messages that were downloaded, with `downloaded` octets; recognised: those that had only
    moved. vanished: from their places. stored: octets added to the repository's packs meanwhile,
    by all accounts that were under way on it.
    """

    account: str
    snapshot: str | None
    parent: str | None
    started: str
    ended: str
    complete: bool
    mailboxes: int
    messages: int
    octets: int
    new: int
    downloaded: int
    recognised: int
    vanished: int
    changed: int
    stored: int
    problems: list[Problem]
    losses: list[Loss]
    notes: list[str]


def conclude(
    history: History,
    identity: Identity,
    mailboxes: list[MailboxRecord],
    problems: list[Problem],
    losses: list[Loss],
    notes: list[str],
    *,
    stored_before: int,
    counts: Mapping[str, int],
) -> BackupReport:
    """Write the snapshot, unless nothing has changed.

    stored_before: octets that had been added to packs when the run began. counts: of COUNTS.
    """
    parent = history.parent_id
    ref = history.conclude(identity, mailboxes, problems, losses, notes)
    return BackupReport(
        account=history.account,
        snapshot=ref.id if ref else None,
        parent=parent,
        started=timestamp(history.started),
        ended=timestamp(history.ended),
        complete=not problems,
        mailboxes=sum(record.mailbox.selectable for record in mailboxes),
        messages=sum(record.messages for record in mailboxes),
        octets=sum(record.octets for record in mailboxes),
        stored=history.bytes_stored - stored_before,
        problems=problems,
        losses=losses,
        notes=[*notes, *history.denied],
        **counts,
    )
