"""A repository, opened: blobs in and out, snapshots, keys. The one door the layers above use."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from backupd.errors import Damaged, ObjectMissing, Overtaken, StorageDenied, UsageError
from backupd.repository import erasures, index, names, recipe, slots, snapshots
from backupd.repository.blob_reader import BlobReader
from backupd.repository.description import describe
from backupd.repository.effort import Effort
from backupd.repository.erasures import Erasure, Gone, Register
from backupd.repository.index_cache import WHOLE_PACK, IndexCache
from backupd.repository.keys import Random, Role, Secrets
from backupd.repository.pack_writer import PackWriter, Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.reliance import CLOCKS, Clock, Reliance
from backupd.repository.slots import Argon2, Slot
from backupd.repository.snapshots import Snapshot, SnapshotRef
from backupd.repository.unlocking import create, list_slots, unlock
from backupd.storage.base import Buffer, Storage

__all__ = ["Repository", "create", "describe", "list_slots", "unlock"]

_SMALL_RUN = 64 * 1024
_MOST_FRESH = 100_000
"""Blobs taken and not yet in the index: what a run remembers must not grow with the mailbox."""


class Repository:
    """An unlocked repository. Close it, or use it as a context manager; what was not flushed is dropped."""

    def __init__(
        self,
        storage: Storage,
        secrets: Secrets,
        *,
        cache: Path | None = None,
        random: Random = os.urandom,
        level: int | None = None,
        sizes: Sizes | None = None,
        clocks: Sequence[Clock] = CLOCKS,
    ) -> None:
        """cache: the SQLite file that holds the index cache; None keeps it in memory. level: zstd's; None to choose.
        clocks: see reliance.py.
        """
        self.storage, self.secrets = storage, secrets
        self.random, self._effort, self._sizes = random, Effort(level), sizes or Sizes()
        self.index = IndexCache(cache, secrets.repository)
        self._reader = BlobReader(
            storage,
            secrets,
            self.index,
            spool=cache.parent if cache else None,
            look_again=self._look_again,
            look_elsewhere=self._look_elsewhere,
        )
        self.erased = Register(storage, secrets)
        self._reliance = Reliance(storage, self.index, self.refresh, clocks, beside=self.erased.look)
        self._writer: PackWriter | None = None
        # Blobs taken and not yet in the index; emptied by each flush.
        self._fresh: set[bytes] = set()
        # Small runs among them, which merging segments wants back at once.
        self._fresh_runs: dict[bytes, bytes] = {}
        # Blobs that are stored and cannot be trusted: to be stored again.
        self._distrusted: set[bytes] = set()
        self._lock = threading.Lock()
        # Names of index objects that were stored, and of which it is not said yet that they may stay.
        self._told: list[str] = []
        self.damaged_indexes: list[str] = []
        self.sound_until = 0.0
        """Until when whoever has found that nothing is amiss need not look again, by time.monotonic()."""
        # Whether others may have stored something since we looked, or emptied the cache that we share with them.
        self._behind = True
        self.refreshing = threading.RLock()
        """Held by whoever brings the cache of the index up to date, or mends it."""
        try:
            self.refresh()
        except BaseException:
            self.index.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the writer and close the cache."""
        if self._writer:
            self._writer.close()
        self._reader.close()
        self.index.close()

    def refresh(self) -> None:
        """Bring the cache of the index up to date with the repository."""
        with self.refreshing:
            if not self._refreshed():
                self._rebuild()

    def rebuild(self) -> None:
        """Make the cache of the index anew, at once for all who use it: what is lost has changed."""
        with self.refreshing:
            self._rebuild()

    def _rebuild(self) -> None:
        with self.index.whole():
            self.index.clear()
            while not self._refreshed():
                self.index.clear()

    def _refreshed(self) -> bool:
        """Add what is missing in the cache; False if it tells of what is gone, or something went meanwhile."""
        # In this order: those we share the cache with store an object, then add it. The other way round theirs,
        # stored in between, would be taken for one that is gone.
        cached = self.index.objects()
        there = [info.name for info in self.storage.list(names.INDEX)]
        if cached - set(there):
            return False
        self.damaged_indexes = []
        return self._add_indexes(name for name in there if name not in cached)

    def _add_indexes(self, missing: Iterable[str]) -> bool:
        """Whether none of them was removed since they were listed: then others have taken its place."""
        whole = True
        for name in missing:
            try:
                packs = index.unseal(self.storage.get(name), self.secrets, name)
            except ObjectMissing:
                whole = False
            except Damaged:
                # The other objects still tell where most blobs are; operations/mend.py makes up for this one.
                self.damaged_indexes.append(name)
            else:
                self.index.add(name, packs)
        return whole

    def _look_again(self) -> None:
        """A blob is in no index: look for new ones, once until something suggests that there are more."""
        with self.refreshing:
            behind, self._behind = self._behind, False
            if behind:
                # Nothing is taken out of the cache: what mending keeps there for a while is in no index object yet.
                known = self.index.objects() | set(self.damaged_indexes)
                self._add_indexes(info.name for info in self.storage.list(names.INDEX) if info.name not in known)

    def _look_elsewhere(self, missing: bytes) -> None:
        """A pack is missing: leave all that are out of account, so that what they held is found in others."""
        with self.refreshing:
            if (missing, WHOLE_PACK) in self.index.lost():  # another thread has looked
                return
            there = {info.name for info in self.storage.list(names.PACKS)}
            for pack, size in self.index.packs().items():
                if names.pack(pack.hex()) not in there:
                    self.index.mark_lost(pack, WHOLE_PACK, size)
            self._rebuild()

    # Blobs

    def running(self, parent: SnapshotRef | None) -> AbstractContextManager[None]:
        """While this lasts, a run is under way that goes on from this snapshot. What it is told to rely on stays there
        until it has stored its own (reliance.py)."""
        return self._reliance.run(parent.name if parent else None)

    def has(self, blob_id: bytes) -> bool:
        """Whether the blob is there, or taken by this run's writer. It may be about to be removed."""
        return blob_id in self._fresh or (blob_id not in self._distrusted and self.index.has(blob_id))

    def relies(self, blob_id: bytes) -> bool:
        """Whether the blob need not be stored: it is taken already, or it is there, with all that it needs, and stays.

        Raises Overtaken, as all methods that store.
        """
        if blob_id in self._fresh:
            return True
        return blob_id not in self._distrusted and self.index.may_have(blob_id) and self._reliance.relies(blob_id)

    def erasure_of(self, message: bytes) -> Gone | None:
        """That a message was erased, and so is not to be stored; by the last look at marks. Raises Overtaken."""
        self._reliance.look()
        return self.erased.now.messages.get(message)

    def distrust(self, blob_id: bytes) -> None:
        """Take the blob again when it is offered, although it is there: it, or what it refers to, is damaged."""
        self._distrusted.add(blob_id)

    def trust(self) -> None:
        """What was distrusted, and was not taken again, counts again."""
        self._distrusted.clear()

    def put_recipe(self, message: bytes, pieces: list[recipe.Piece]) -> bool:
        """Take a recipe, after all blobs that it needs, unless the message is there; whether it was taken."""
        return self.put(message, BlobKind.RECIPE, recipe.encode(pieces), recipe.parts(pieces))

    def put(self, blob_id: bytes, kind: BlobKind, data: Buffer, parts: bytes | None = None) -> bool:
        """Take a blob unless it is there; whether it was taken. Durable after `flush`."""
        with self._lock:
            self._reliance.look()
            if self.relies(blob_id):
                return False
            self._fresh.add(blob_id)
            self._distrusted.discard(blob_id)
            if self._writer is None:
                self._writer = PackWriter(
                    self.storage,
                    self.secrets,
                    self.random,
                    lambda packs: self._told.extend(self.add_index(packs, before=self._reliance.look)),
                    storing=self._reliance.storing,
                    effort=self._effort,
                    sizes=self._sizes,
                )
            # Under the lock, or a flush could count the blob as flushed before the writer has it.
            self._writer.add(blob_id, kind, data, parts)
            full = len(self._fresh) == _MOST_FRESH  # "==": of several threads, only one meets it
        if full:
            self.flush()
        return True

    def flush(self) -> None:
        """Make everything taken so far durable and indexed: packs first, then an index object."""
        if self._writer:
            self._reliance.look()
            with self._lock:
                fresh = frozenset(self._fresh)
            self._writer.flush()
            told = list(self._told)
            self._confirm(told)
            with self._lock:
                self._told = self._told[len(told) :]
                self._fresh -= fresh
                self._fresh_runs.clear()
                self._behind = True

    @property
    def bytes_stored(self) -> int:
        """Octets of packs stored through this object."""
        return self._writer.bytes_stored if self._writer else 0

    @property
    def under_way(self) -> frozenset[str]:
        """Names of packs that were stored through this object, or are about to be, and are not indexed yet."""
        return self._writer.under_way if self._writer else frozenset()

    def add_index(
        self, packs: Iterable[index.PackEntry], *, before: Callable[[], object] = lambda: None
    ) -> list[str]:
        """Store index objects about packs that are stored already; their names. before: called right before each is
        stored."""
        stored = []
        for some in index.cut(packs):
            data = index.seal(some, self.secrets, self.random)
            name = names.index(names.sha256([data]))
            before()
            self.storage.put(name, [data])
            self.index.add(name, some)
            stored.append(name)
        return stored

    def read(self, blob_id: bytes) -> tuple[BlobKind, memoryview]:
        """A flushed blob and its kind. Raises Damaged, WrongKey (see BlobReader.read)."""
        return self._reader.read(blob_id)

    def open_block(self, pack: bytes, offset: int, data: Buffer) -> list[tuple[BlobKind, memoryview, bytes]]:
        """The blobs of a block that the caller has read from the storage (see BlobReader.open_block)."""
        return self._reader.open_block(pack, offset, data)

    def packs_of(self, blob_ids: Iterable[bytes]) -> set[bytes]:
        """Names of the packs that hold these blobs. Raises Damaged when one is in none."""
        found = {blob_id: self.index.find(blob_id) for blob_id in blob_ids}
        if missing := next((blob_id for blob_id, place in found.items() if place is None), None):
            raise Damaged("a blob is in no index", subject=f"blob {missing.hex()[:16]}")
        return {place.pack for place in found.values() if place}

    def put_run(self, kind: BlobKind, data: bytes) -> bytes:
        """Store a run of mailbox state or of envelopes; its blob id."""
        blob_id = self.secrets.metadata_id(data) if kind.is_metadata else self.secrets.content_id(data)
        if self.put(blob_id, kind, data) and len(data) < _SMALL_RUN:
            self._fresh_runs[blob_id] = data
        return blob_id

    def get_run(self, blob_id: bytes, kind: BlobKind) -> bytes | memoryview:
        """Read a run. Raises Damaged, WrongKey."""
        if data := self._fresh_runs.get(blob_id):
            return data
        if blob_id in self._fresh:
            self.flush()
        return self._reader.read_run(blob_id, kind)

    # Snapshots

    def put_snapshot(self, snapshot: Snapshot) -> SnapshotRef:
        """Flush, then store the snapshot: with that it exists."""
        return self.store_snapshot(snapshot)[0]

    def store_snapshot(self, snapshot: Snapshot) -> tuple[SnapshotRef, bytes]:
        """The same; its place, and the SHA-256 of its object."""
        self.flush()
        self._reliance.look()
        ref, data = snapshots.seal(snapshot, self.secrets, self.random)
        # Before, so that nobody sees one that is to be taken back; and after, when who looks for the parent and does
        # not find it finds this one.
        self._reliance.confirm_parents()
        self.storage.put(ref.name, [data])
        self._confirm([ref.name])
        return ref, hashlib.sha256(data).digest()

    def put_erasure(self, record: Erasure) -> tuple[str, bytes]:
        """Flush, then store the erasure: from then on nobody shows what it names. Its id, and the SHA-256 of it."""
        self.flush()
        self._reliance.look()
        identifier, data = erasures.seal(record, self.secrets, self.random)
        self.storage.put(names.erasure(identifier), [data])
        self._confirm([names.erasure(identifier)])
        self.erased.look()
        return identifier, hashlib.sha256(data).digest()

    def _confirm(self, stored: Sequence[str]) -> None:
        """What was just stored refers to what is there; else it is taken back. Raises Overtaken."""
        try:
            self._reliance.confirm()
            self._reliance.confirm_parents()
        except Overtaken as error:
            try:
                for name in stored:
                    self.storage.delete(name)
            except StorageDenied:
                error.add_note(f"{', '.join(stored)} may refer to what is not there any more, and should be removed")
            raise

    def refs(self, account: str | None = None) -> list[SnapshotRef]:
        """Places of all snapshots, or of one account's, oldest first."""
        prefix = f"{names.SNAPSHOTS}{self.secrets.account_tag(account)}/" if account else names.SNAPSHOTS
        self._behind = True
        found = (names.parse_snapshot(info.name) for info in self.storage.list(prefix))
        return sorted(SnapshotRef(identifier, tag) for tag, identifier in filter(None, found))

    def snapshot(self, ref: SnapshotRef) -> Snapshot:
        """Read a snapshot. Raises Damaged, ObjectMissing."""
        return snapshots.unseal(self.storage.get(ref.name), ref, self.secrets)

    def remove_snapshot(self, ref: SnapshotRef) -> None:
        """What only this snapshot referred to is unused from then on."""
        self.storage.delete(ref.name)

    # Keys

    def add_slot(self, label: str, secret: str, role: Role, *, argon2: Argon2 | None = None) -> str:
        """A new slot of the role, opened by `secret`; its object name. Raises UsageError when the label is taken."""
        if any(slot.label == label for _, slot in list_slots(self.storage, [])):
            raise UsageError("there is a key slot of this name", subject=label, remedy="choose another, or rotate it")
        return self._write_slot(label, secret, role, argon2)

    def rotate_slot(self, label: str, secret: str, *, argon2: Argon2 | None = None) -> str:
        """Give a slot another secret: the new one is written before the old one goes. Raises UsageError."""
        old = self._slots(label)
        name = self._write_slot(label, secret, old[0][1].role, argon2)
        for each, _ in old:
            self.storage.delete(each)
        return name

    def remove_slot(self, label: str) -> None:
        """Revoke a slot. Raises UsageError for the last reader's, without which nothing could be restored."""
        old = self._slots(label)
        readers = {slot.label for _, slot in list_slots(self.storage, []) if slot.role is Role.READER}
        if readers == {label}:
            raise UsageError(
                "this is the last slot of the reader role, and without it nothing can be restored",
                subject=label,
                remedy="add another one first: backupd key add NAME --role reader",
            )
        for each, _ in old:
            self.storage.delete(each)

    def _slots(self, label: str) -> list[tuple[str, Slot]]:
        found = [(name, slot) for name, slot in list_slots(self.storage, []) if slot.label == label]
        if not found:
            raise UsageError("no key slot of this name", subject=label, remedy="`backupd key list` shows them")
        return found

    def _write_slot(self, label: str, secret: str, role: Role, argon2: Argon2 | None) -> str:
        name, data = slots.wrap(
            self.secrets.for_role(role), label, secret, random=self.random, now=datetime.now(UTC), argon2=argon2
        )
        self.storage.put(name, [data])
        return name
