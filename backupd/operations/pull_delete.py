"""Deleting from a POP3 server what has been kept safe for long enough. Nothing here happens without `delete_after`.

Before a message is deleted it is read once more, and must be, octet for octet, the one that is in a snapshot of that
age and in the newest; and all that it is stored in is read back from the repository, and from every copy, and proved.
Only what the server confirms after QUIT counts as deleted: a connection that breaks before leaves all where it was
(RFC 1939, 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from backupd.errors import Damaged, Interrupted, ObjectMissing
from backupd.model import Body
from backupd.operations.holdings import Held
from backupd.operations.messages import MessageStore
from backupd.operations.stopping import Stop
from backupd.repository import names, segments
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Snapshot, SnapshotRef
from backupd.sources.pop3.base import Listed, Pop3Session, Retrieved
from backupd.storage.base import Storage


class Proof:
    """Reads back what messages are stored in. Each pack is read once in a run."""

    def __init__(self, repository: Repository, copies: Sequence[Storage]) -> None:
        self._repository, self._copies = repository, copies
        self._store = MessageStore(repository)
        self._packs: dict[bytes, str] = {}

    def of_copies(self, refs: Iterable[SnapshotRef]) -> str:
        """What a copy lacks of what it takes to read these snapshots; empty if nothing."""
        needed = [names.DESCRIPTION, *(ref.name for ref in refs)]
        indexes = {info.name for info in self._repository.storage.list(names.INDEX)}
        for copy in self._copies:
            if not {info.name for info in copy.list(names.INDEX)} >= indexes:
                return f"{copy.url} is behind the repository; run `backupd copy`"
            try:
                for name in needed:
                    if copy.get(name) != self._repository.storage.get(name):
                        return f"{copy.url}: {name} is not the one of the repository"
            except ObjectMissing:
                return f"{copy.url} is behind the repository; run `backupd copy`"
            if not any(copy.list(names.KEYS)):
                return f"{copy.url} has no key"
        return ""

    def of_runs(self, snapshot: Snapshot) -> str:
        """What speaks against the lists of messages of this snapshot being whole, everywhere; empty if nothing does."""
        runs = [
            run
            for record in snapshot.mailboxes
            for segment in record.segments
            for run in (segment.membership, segment.state)
        ]
        return self._of_blobs(runs)

    def of_message(self, message: bytes, body: bytes | Body) -> str:
        """What speaks against the stored message being whole, everywhere; empty if nothing does."""
        found, blobs = self._store.blobs_of(body)
        if found != message:
            return "the server's message is not the one that is stored"
        if self._repository.secrets.role is Role.READER:
            try:
                self._store.load(message)
            except (Damaged, ObjectMissing) as error:
                return str(error)
        return self._of_blobs(blobs)

    def _of_blobs(self, blobs: Iterable[bytes]) -> str:
        try:
            packs = sorted(self._repository.packs_of(blobs))
        except Damaged as error:
            return str(error)
        for pack in packs:
            if pack not in self._packs:
                self._packs[pack] = self._of_pack(pack)
            if self._packs[pack]:
                return self._packs[pack]
        return ""

    def _of_pack(self, pack: bytes) -> str:
        name = names.pack(pack.hex())
        for storage in (self._repository.storage, *self._copies):
            try:
                if not names.proves(name, [storage.get(name)]):
                    return f"{storage.url}: {name} is damaged"
            except (Damaged, ObjectMissing) as error:
                return f"{storage.url}: {error}"
        return ""


class Deletion:
    """What `delete_after` asks for, in one run."""

    def __init__(
        self,
        repository: Repository,
        account: str,
        after: timedelta,
        copies: Callable[[], Sequence[Storage]],
        stop: Stop,
    ) -> None:
        """after: how long a message must have been in a snapshot. copies: opens all that are configured."""
        self._repository, self._account, self._after, self._copies = repository, account, after, copies
        self._stop = stop
        self._marked = 0
        self.deleted = 0
        self.notes: list[str] = []

    def old(self, now: datetime) -> SnapshotRef | None:
        """The newest snapshot that is old enough."""
        for ref in reversed(self._repository.refs(self._account)):
            if ref.time <= now - self._after and not self._repository.snapshot(ref).checkpoint:
                return ref
        return None

    def is_due(self, now: datetime) -> bool:
        """Whether anything can be old enough."""
        return self.old(now) is not None

    def delete(
        self, session: Pop3Session, sure: Sequence[tuple[Listed, Held]], parent: SnapshotRef | None, now: datetime
    ) -> None:
        """Mark what may go, with QUIT still to come; what is worth saying is in `notes`.

        sure: what the server has of what is held. parent: the newest snapshot, which holds all that is held.
        """
        self._marked = 0
        self.notes = []
        old = self.old(now)
        if old is None or parent is None or not sure:
            return
        kept = _messages_of(self._repository, self._repository.snapshot(old))
        due = [(listed, held) for listed, held in sure if held.message in kept]
        if not due:
            return
        proof = Proof(self._repository, self._copies())
        newest = self._repository.snapshot(parent)
        if against := proof.of_copies([old, parent]) or proof.of_runs(newest):
            self.notes.append(f"nothing was deleted from the server: {against}")
            return
        proved = []
        for (listed, held), item in zip(due, session.retrieve([listed for listed, _ in due]), strict=True):
            if self._stop.is_set():
                raise Interrupted("stopped", subject=self._account, remedy="nothing was deleted from the server")
            if not isinstance(item, Retrieved):
                self.notes.append(f"message {listed.number} was not deleted from the server: {item.what}")
                continue
            if against := proof.of_message(held.message, item.body):
                self.notes.append(f"message {listed.number} was not deleted from the server: {against}")
            else:
                proved.append(listed)
        self._marked = sum(session.delete(listed.number) for listed in proved)

    def confirmed(self) -> None:
        """The server has said +OK to QUIT."""
        self.deleted += self._marked
        self._marked = 0


def _messages_of(repository: Repository, snapshot: Snapshot) -> frozenset[bytes]:
    """Ids of the messages it keeps. What was erased it keeps no more, so the server's may be the last there is."""
    erased = repository.erased.look()
    return frozenset(
        row.message
        for record in snapshot.mailboxes
        for segment in record.segments
        for row, _ in segments.read(repository, segment)
        if row.message not in erased
    )
