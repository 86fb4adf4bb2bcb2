"""Reading a snapshot back, for comparison with what was backed up."""

from __future__ import annotations

from backupd.model import Body, Flags
from backupd.operations.messages import MessageStore
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Snapshot

Contents = dict[bytes, dict[int, tuple[bytes, Flags, bytes]]]


def whole(body: bytes | Body) -> bytes:
    """The bytes of a message, however it is given."""
    return body if isinstance(body, bytes) else b"".join(body.chunks())


def unerased(repository: Repository, snapshot: Snapshot) -> Contents:
    """The same without what was erased."""
    store, erased = MessageStore(repository), repository.erased.now
    return {
        record.mailbox.raw_name: {
            row.uid: (whole(store.load(row.message)), state.flags, row.internaldate)
            for segment in record.segments
            for row, state in segments.read(repository, segment)
            if row.message not in erased
        }
        for record in snapshot.mailboxes
    }


def newest(repository: Repository, account: str = "alice") -> Snapshot:
    """The newest snapshot of an account."""
    return repository.snapshot(repository.refs(account)[-1])


def contents(repository: Repository, snapshot: Snapshot) -> Contents:
    """All messages of a snapshot by mailbox and UID: bytes, flags, date."""
    store = MessageStore(repository)
    return {
        record.mailbox.raw_name: {
            row.uid: (whole(store.load(row.message)), state.flags, row.internaldate)
            for segment in record.segments
            for row, state in segments.read(repository, segment)
        }
        for record in snapshot.mailboxes
    }
