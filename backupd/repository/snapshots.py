"""Snapshots: what an account was at one time (docs/format.md, "Snapshots"). Written last, and with that it exists."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from backupd.errors import Damaged
from backupd.model import Mailbox, MailboxStatus, Problem
from backupd.repository import block, names
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Secrets
from backupd.repository.segments import Segment

FORMAT = 1


class MailboxRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mailbox in a snapshot.

    status: its positions on the server when it was read. messages, octets: of those stored. missing: UIDs that the
    server holds and this snapshot does not; why is in the snapshot's problems. local: its UIDs were given by backupd,
    as its mail came by POP3 or was imported; no IMAP server has such a mailbox.
    """

    mailbox: Mailbox
    status: MailboxStatus
    segments: list[Segment] = []
    messages: int = 0
    octets: int = 0
    missing: list[int] = []
    local: bool = False


class Loss(msgspec.Struct, frozen=True):
    """A sudden loss: a mailbox (None: the whole account) that held `before` messages, of which `gone` are gone since
    the snapshot `pinned`, which retention must keep until somebody has looked."""

    mailbox: bytes | None
    name: str
    before: int
    gone: int
    pinned: str


IMPORT = "import"
"""The kind of origin of mail that was read from files; no server has it."""


class Origin(msgspec.Struct, frozen=True):
    """Where the mail was read: kind ("imap", "pop3" or "import"), the server's address, what it says of itself and can
    do. Of an import, server is the kind of the store, and where it was."""

    kind: str
    host: str
    port: int
    server: str
    capabilities: tuple[str, ...]


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """One snapshot. started, ended: RFC 3339 in UTC. parent: the id of the snapshot it was compared with.

    complete: every message the server listed is in it. checkpoint: an interrupted or running backup wrote it, and what
    is not in it may still be on the server. notes: what else happened (mailbox renamed, UIDVALIDITY reset ...).
    """

    format: int
    account: str
    parent: str | None
    started: str
    ended: str
    origin: Origin
    complete: bool
    checkpoint: bool
    messages: int
    octets: int
    mailboxes: list[MailboxRecord]
    problems: list[Problem] = []
    losses: list[Loss] = []
    notes: list[str] = []

    def find(self, raw_name: bytes) -> MailboxRecord | None:
        """The mailbox with this raw name."""
        return next((record for record in self.mailboxes if record.mailbox.raw_name == raw_name), None)


class SnapshotRef(msgspec.Struct, frozen=True, order=True):
    """A snapshot by its place; ordered by time. id: its time and digest. name: its object's name."""

    id: str
    tag: str

    @property
    def name(self) -> str:
        return names.snapshot(self.tag, self.id)

    @property
    def time(self) -> datetime:
        """When the backup began, in UTC."""
        return names.snapshot_time(self.id)

    @property
    def short(self) -> str:
        """The 8 hexadecimal digits people use."""
        return self.id[-8:]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seal(snapshot: Snapshot, secrets: Secrets, random: Random) -> tuple[SnapshotRef, bytearray]:
    """The snapshot's place and its object's bytes."""
    data = block.seal(block.Kind.SNAPSHOT, _encode(snapshot), secrets, random, level=9)
    started = datetime.fromisoformat(snapshot.started)
    return SnapshotRef(names.snapshot_id(started, names.sha256([data])), secrets.account_tag(snapshot.account)), data


def unseal(data: bytes, ref: SnapshotRef, secrets: Secrets) -> Snapshot:
    """Read a snapshot object, and check that it lies where it says it does. Raises Damaged."""
    payload = block.unseal(data, secrets, ref.name, expect=block.Kind.SNAPSHOT)
    try:
        snapshot = _decode(payload)
        started = datetime.fromisoformat(snapshot.started)
    except UNDECODABLE as error:
        raise Damaged(f"a snapshot makes no sense: {error}", subject=ref.name) from error
    place = SnapshotRef(names.snapshot_id(started, names.sha256([data])), secrets.account_tag(snapshot.account))
    if place != ref:
        raise Damaged("a snapshot lies in another's place", subject=ref.name)
    if snapshot.format > FORMAT:
        raise Damaged("this snapshot is of a newer format", subject=ref.name, remedy="update backupd")
    return snapshot
