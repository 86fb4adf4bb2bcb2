"""Snapshots made by hand, for tests of what reads them: no server and no backup is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from backupd.mail.headers import envelope, header_of
from backupd.model import Flags, Mailbox, MailboxStatus, MessageState, Problem
from backupd.operations.look import MessageLine, Unlisted, messages
from backupd.repository import runs, segments
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.snapshots import Loss, MailboxRecord, Origin, Snapshot, SnapshotRef, timestamp

DATE = b"17-Jul-2026 02:44:25 +0200"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Mail(NamedTuple):
    """A message in a mailbox."""

    raw: bytes
    flags: Flags = ()
    date: bytes = DATE


class Box(NamedTuple):
    """A mailbox of a snapshot: its messages by UID."""

    messages: Mapping[int, Mail]
    uidvalidity: int = 1
    mailbox_id: bytes | None = None
    subscribed: bool = False
    special_use: tuple[bytes, ...] = ()
    name: str = ""


def record(repository: Repository, raw_name: bytes, box: Box) -> MailboxRecord:
    """Store a mailbox's messages and runs."""
    uids = sorted(box.messages)
    secrets = repository.secrets
    headers = [header_of(box.messages[uid].raw) for uid in uids]
    envelopes = repository.put_run(BlobKind.ENVELOPES, runs.encode_envelopes([envelope(each) for each in headers]))
    rows = []
    for number, uid in enumerate(uids):
        mail = box.messages[uid]
        message = secrets.content_id(mail.raw)
        repository.put(message, BlobKind.PLAIN, mail.raw)
        fingerprint = secrets.fingerprint(headers[number])
        rows.append(MessageRow(uid, message, mail.date, len(mail.raw), fingerprint, None, envelopes, number))
    states = [MessageState(uid, box.messages[uid].flags) for uid in uids]
    return MailboxRecord(
        mailbox=Mailbox(
            raw_name,
            box.name or raw_name.decode("utf-8", "backslashreplace"),
            b"/",
            special_use=box.special_use,
            subscribed=box.subscribed,
        ),
        status=MailboxStatus(
            messages=len(uids), uidnext=max(uids, default=0) + 1, uidvalidity=box.uidvalidity, mailbox_id=box.mailbox_id
        ),
        segments=segments.write(repository, rows, states) if rows else [],
        messages=len(rows),
        octets=sum(row.size for row in rows),
    )


def snapshot(
    records: Sequence[MailboxRecord],
    *,
    account: str = "alice",
    time: datetime = NOON,
    checkpoint: bool = False,
    problems: Sequence[Problem] = (),
    losses: Sequence[Loss] = (),
) -> Snapshot:
    """A snapshot of these mailboxes."""
    return Snapshot(
        format=1,
        account=account,
        parent=None,
        started=timestamp(time),
        ended=timestamp(time),
        origin=Origin("imap", "mail.example.com", 993, "", ()),
        complete=not problems and not checkpoint,
        checkpoint=checkpoint,
        messages=sum(each.messages for each in records),
        octets=sum(each.octets for each in records),
        mailboxes=list(records),
        problems=list(problems),
        losses=list(losses),
    )


def put(
    repository: Repository,
    boxes: Mapping[bytes, Box] | None = None,
    *,
    account: str = "alice",
    time: datetime = NOON,
    checkpoint: bool = False,
    problems: Sequence[Problem] = (),
    losses: Sequence[Loss] = (),
) -> SnapshotRef:
    """Store a snapshot with these mailboxes."""
    records = [record(repository, raw_name, box) for raw_name, box in (boxes or {}).items()]
    return repository.put_snapshot(
        snapshot(records, account=account, time=time, checkpoint=checkpoint, problems=problems, losses=losses)
    )


def listed(repository: Repository, box: MailboxRecord) -> list[MessageLine]:
    """The messages of a mailbox, of which everything can be listed."""
    unlisted: list[Unlisted] = []
    lines = list(messages(repository, box, unlisted.append))
    assert unlisted == []
    return lines
