"""Reading blobs: find the block, fetch it with one ranged read, open it, check the blob against its id."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import block, names, payload
from backupd.repository.index_cache import IndexCache, Location
from backupd.repository.keys import Secrets
from backupd.repository.pack_spool import PackSpool
from backupd.repository.payload import BlobKind
from backupd.storage.base import Buffer, Storage

CACHE_BYTES = 32 * 1024 * 1024
_BLOCK_BYTES, _BLOB_BYTES = 500, 350
"""What keeping a block, and each blob in it, takes beside its own bytes (measured): a mailbox that is backed up message
by message has tens of thousands of blocks of a few hundred octets."""
_Place = tuple[bytes, int]
"""A block: its pack's name, and its offset there."""

_REMEDY = "the next backup stores anew what the server still has of it"


class _Block(NamedTuple):
    """A block that is kept. plain: what the bytes of its plain blobs say their ids are."""

    blobs: list[tuple[BlobKind, memoryview]]
    plain: list[bytes]

    @property
    def weight(self) -> int:
        """Octets of memory, about."""
        return _BLOCK_BYTES + sum(_BLOB_BYTES + len(data) for _, data in self.blobs)


class BlobReader:
    """Reads blobs, keeping the blocks used last (neighbours are usually wanted next). Safe to use from several
    threads."""

    def __init__(
        self,
        storage: Storage,
        secrets: Secrets,
        index: IndexCache,
        *,
        cache_bytes: int = CACHE_BYTES,
        spool: Path | None = None,
        look_again: Callable[[], None] = lambda: None,
        look_elsewhere: Callable[[bytes], None] = lambda _pack: None,
    ) -> None:
        """spool: folder for packs that are fetched whole. look_again: called when a blob is in no index, to bring it up
        to date. look_elsewhere: called with a pack that is missing, to leave it out of the index, since others may hold
        the same.
        """
        self._look_again, self._look_elsewhere = look_again, look_elsewhere
        self._secrets, self._index = secrets, index
        self._spool = PackSpool(storage, index, folder=spool)
        self._cache_bytes = cache_bytes
        self._blocks: OrderedDict[_Place, _Block] = OrderedDict()
        # The plain blobs in these blocks by their ids. Whoever reads a message reads its neighbours next, and need not
        # ask the index for them.
        self._plain: dict[bytes, tuple[_Place, memoryview]] = {}
        self._cached = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Drop what was fetched."""
        self._spool.close()

    def read(self, blob_id: bytes) -> tuple[BlobKind, memoryview]:
        """A blob and its kind. Its bytes are checked against its id, except a recipe's, whose id is that of the message
        it describes: whoever joins it checks.

        Raises Damaged when it is missing or altered wherever it is, WrongKey when the role may not read it.
        """
        with self._lock:
            if found := self._plain.get(blob_id):
                place, data = found
                self._blocks.move_to_end(place)
                return BlobKind.PLAIN, data
        location = self._find(blob_id)
        subject = f"{names.pack(location.pack.hex())} at {location.offset}"
        try:
            blobs = self._open(location, subject)
        except ObjectMissing as error:
            self._look_elsewhere(location.pack)
            there = self._index.find(blob_id)
            if there is None or there.pack == location.pack:
                raise Damaged("a pack is missing", subject=subject, remedy=_REMEDY) from error
            return self.read(blob_id)
        except Damaged as error:
            return self._instead(blob_id, error)
        if location.ordinal >= len(blobs):
            wrong = Damaged("a block holds fewer blobs than the index says", subject=subject)
            return self._instead(blob_id, self._damaged(location, wrong))
        kind, data = blobs[location.ordinal]
        if kind is not BlobKind.RECIPE:
            identify = self._secrets.metadata_id if kind.is_metadata else self._secrets.content_id
            if identify(data) != blob_id:
                wrong = Damaged("a blob is not what its id says", subject=subject)
                return self._instead(blob_id, self._damaged(location, wrong))
        return kind, data

    def _instead(self, blob_id: bytes, error: Damaged) -> tuple[BlobKind, memoryview]:
        """The blob from another pack, in the place of one that is damaged. Raises the error if none has it."""
        there = self._index.find(blob_id)
        if there is None or (there.pack, there.offset) in self._index.lost():
            raise error
        return self.read(blob_id)

    def _find(self, blob_id: bytes) -> Location:
        location = self._index.find(blob_id)
        if location is None:
            self._look_again()
            location = self._index.find(blob_id)
        if location is None:
            raise Damaged("a blob is in no index", subject=f"blob {blob_id.hex()[:16]}", remedy=_REMEDY)
        return location

    def read_run(self, blob_id: bytes, kind: BlobKind) -> memoryview:
        """A blob that must be of this kind."""
        found, data = self.read(blob_id)
        if found is not kind:
            raise Damaged(f"a blob is a {found.name}, not a {kind.name}", subject=f"blob {blob_id.hex()[:16]}")
        return data

    def _open(self, location: Location, subject: str) -> list[tuple[BlobKind, memoryview]]:
        key = (location.pack, location.offset)
        with self._lock:
            if cached := self._blocks.get(key):
                self._blocks.move_to_end(key)
                return cached.blobs
        try:
            data = self._spool.get(location.pack, location.offset, location.length)
            blobs = payload.parse(block.unseal(data, self._secrets, subject), subject)
        except Damaged as error:
            raise self._damaged(location, error) from error
        self._keep(key, blobs)
        return blobs

    def open_block(self, pack: bytes, offset: int, data: Buffer) -> list[tuple[BlobKind, memoryview, bytes]]:
        """A block that was fetched by somebody else: its blobs with what their bytes say their ids are, which is empty
        for a recipe. It is kept as if it had been read here. Raises Damaged, WrongKey. """
        subject = f"{names.pack(pack.hex())} at {offset}"
        blobs = payload.parse(block.unseal(data, self._secrets, subject), subject)
        plain = iter(self._keep((pack, offset), blobs))
        identified = []
        for kind, blob in blobs:
            if kind is BlobKind.PLAIN:
                blob_id = next(plain)
            elif kind is BlobKind.RECIPE:
                blob_id = b""
            else:
                blob_id = (self._secrets.metadata_id if kind.is_metadata else self._secrets.content_id)(blob)
            identified.append((kind, blob, blob_id))
        return identified

    def _keep(self, place: _Place, blobs: list[tuple[BlobKind, memoryview]]) -> list[bytes]:
        """Keep a block; ids of its plain blobs, in order."""
        identify = self._secrets.content_id
        ids = [identify(data) for kind, data in blobs if kind is BlobKind.PLAIN]
        of_kind = (data for kind, data in blobs if kind is BlobKind.PLAIN)
        plain = {blob_id: (place, data) for blob_id, data in zip(ids, of_kind, strict=True)}
        with self._lock:
            if place not in self._blocks:
                self._blocks[place] = fresh = _Block(blobs, list(plain))
                self._plain |= plain
                self._cached += fresh.weight
            while self._cached > self._cache_bytes and len(self._blocks) > 1:
                gone, old = self._blocks.popitem(last=False)
                self._cached -= old.weight
                for blob_id in old.plain:
                    if blob_id in self._plain and self._plain[blob_id][0] == gone:  # it may be in another block, too
                        del self._plain[blob_id]
        return ids

    def _damaged(self, location: Location, error: Damaged) -> Damaged:
        """Remember the block, so that the next backup stores anew what it held, and say so."""
        self._index.mark_lost(location.pack, location.offset)
        error.remedy = error.remedy or _REMEDY
        return error
