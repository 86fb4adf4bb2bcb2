"""Writing packs: blobs gather into blocks, blocks into packs, packs go to storage, and an index says what is where.

Compressing, sealing and storing happen on worker threads, for they release the interpreter's lock; how many bytes may
be under way at once is bounded. Nothing is indexed before it is durably stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from backupd.errors import BackupdError, StorageError
from backupd.repository import block, names, payload
from backupd.repository.block import Kind
from backupd.repository.effort import Effort
from backupd.repository.index import MOST_BLOBS, BlockEntry, PackEntry
from backupd.repository.keys import Random, Secrets
from backupd.repository.payload import BlobKind
from backupd.storage.base import Buffer, Storage

PACK_MAGIC = b"BKPDPAK1"

_DENSE_OCTETS = 4096
_DENSE_VALUES = 220
"""Of 256: 1,024 octets at random have 251 on the average, text below 100, programs and tables up to 200."""


class Sizes(msgspec.Struct, frozen=True):
    """In octets. block: of payload, before a block is closed. pack: before a pack is stored. in_flight: of payload
    waiting for or under compression."""

    block: int = 1024 * 1024
    pack: int = 32 * 1024 * 1024
    in_flight: int = 16 * 1024 * 1024


class _Stream:
    """An open block: blobs that will be compressed together."""

    def __init__(self, kind: Kind, *, dense: bool = False) -> None:
        self.kind = kind
        self.dense = dense
        self.clear()

    def clear(self) -> None:
        self.ids: list[bytes] = []
        self.kinds = bytearray()
        self.blobs: list[Buffer] = []
        self.parts: list[bytes | None] = []
        self.size = 0


class _OpenPack:
    def __init__(self) -> None:
        self.pieces: list[Buffer] = [PACK_MAGIC]
        self.size = len(PACK_MAGIC)
        self.blocks: list[BlockEntry] = []
        self.ids: list[bytes] = []
        self.kinds = bytearray()
        self.lengths: list[int] = []
        self.parts: list[bytes | None] = []
        self.weight = 0

    def entry(self, digest: str) -> PackEntry:
        """What an index says of it."""
        return PackEntry(
            name=bytes.fromhex(digest),
            size=self.size,
            blocks=self.blocks,
            ids=b"".join(self.ids),
            kinds=bytes(self.kinds),
            lengths=self.lengths,
            parts=self.parts or None,
        )


class _Sealed(NamedTuple):
    data: Buffer
    kind: Kind
    plain_length: int
    ids: list[bytes]
    kinds: bytes
    lengths: list[int]
    parts: list[bytes | None]


class PackWriter:
    """Turns blobs into stored packs. Safe to use from several threads.

    An error on a worker thread is raised by the next call, and by every call after it: blobs were lost with it, so
    nothing may be indexed or referred to any more. What was indexed before stays good.
    """

    def __init__(
        self,
        storage: Storage,
        secrets: Secrets,
        random: Random,
        stored: Callable[[list[PackEntry]], None],
        *,
        storing: Callable[..., None],
        effort: Effort,
        sizes: Sizes,
        workers: int = 2,
    ) -> None:
        """stored: called by flush, from its thread, with the packs that have been stored since the last flush.
        storing(name, done=...): called before a pack is stored, and after it; the name is its SHA-256."""
        self._storage, self._secrets, self._random, self._stored = storage, secrets, random, stored
        self._effort, self._sizes, self._storing = effort, sizes, storing
        # Text, already compressed data and metadata each get blocks of their own: neighbours that are alike.
        self._text = _Stream(Kind.CONTENT)
        self._dense = _Stream(Kind.CONTENT, dense=True)
        self._metadata = _Stream(Kind.METADATA)
        self._lock = threading.Lock()
        self._pack_lock = threading.Lock()
        self._pack = _OpenPack()
        self._entries: list[PackEntry] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="seal")
        self._pending: dict[Future[None], int] = {}
        self._failure: BackupdError | None = None
        self._under_way: set[str] = set()
        self.bytes_stored = 0

    def add(self, blob_id: bytes, kind: BlobKind, data: Buffer, parts: bytes | None = None) -> None:
        """Take a blob. It is durable after the next flush. `data` must not change afterwards.

        parts: of a recipe, the ids of the blobs that it needs; None: not to be told.
        """
        size = len(data)
        with self._lock:
            if self._failure:
                raise self._failure
            stream = self._stream_for(kind, data)
            if size >= self._sizes.block and stream.size:
                self._close(stream)
            stream.ids.append(blob_id)
            stream.kinds.append(kind)
            stream.blobs.append(data)
            if kind is BlobKind.RECIPE:
                stream.parts.append(parts)
            stream.size += size
            if stream.size >= self._sizes.block:
                self._close(stream)

    def flush(self) -> None:
        """Store everything taken so far, then hand the new packs to `stored`."""
        with self._lock, self._alive():
            for stream in (self._text, self._dense, self._metadata):
                self._close(stream)
            while self._pending:
                self._collect()
            with self._pack_lock:
                pack, self._pack = self._pack, _OpenPack()
            self._store(pack)
            with self._pack_lock:
                entries, self._entries = self._entries, []
            if entries:
                self._stored(entries)
                with self._pack_lock:
                    self._under_way -= {names.pack(entry.name.hex()) for entry in entries}

    @property
    def under_way(self) -> frozenset[str]:
        """Names of packs that are stored, or about to be, and that `stored` was not told of yet."""
        with self._pack_lock:
            return frozenset(self._under_way)

    def close(self) -> None:
        """End the worker threads; what was not flushed is dropped."""
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Raise the first failure again, for good: a later call that succeeded would index what is not all there."""
        if self._failure:
            raise self._failure
        try:
            yield
        except BackupdError as error:
            self._failure = error
            raise
        except BaseException as error:
            self._failure = StorageError(f"storing failed: {type(error).__name__}")
            raise

    def _stream_for(self, kind: BlobKind, data: Buffer) -> _Stream:
        if kind.is_metadata:
            return self._metadata
        return self._dense if kind is BlobKind.PLAIN and _is_dense(data) else self._text

    def _close(self, stream: _Stream) -> None:
        if not stream.blobs:
            return
        with self._alive():
            while self._pending and sum(self._pending.values()) + stream.size > self._sizes.in_flight:
                self._collect()
            for future in [future for future in self._pending if future.done()]:
                del self._pending[future]
                future.result()
            level = self._effort.level(stream.size, dense=stream.dense)
            kinds = bytes(stream.kinds)
            future = self._pool.submit(
                self._seal, stream.kind, level, stream.ids, kinds, stream.blobs, stream.parts
            )
            self._pending[future] = stream.size
            stream.clear()

    def _collect(self) -> None:
        for future in wait(self._pending, return_when=FIRST_COMPLETED).done:
            del self._pending[future]
            future.result()

    def _seal(
        self,
        kind: Kind,
        level: int,
        ids: list[bytes],
        kinds: bytes,
        blobs: list[Buffer],
        parts: list[bytes | None],
    ) -> None:
        lengths = [len(blob) for blob in blobs]
        plain = [payload.join(kinds, blobs)]
        blobs.clear()
        size = len(plain[0])
        # Handed over and not kept: blocks of large attachments are what takes memory.
        data = block.seal(kind, plain.pop(), self._secrets, self._random, level=level)
        self._append(_Sealed(data, kind, size, ids, kinds, lengths, parts))

    def _append(self, sealed: _Sealed) -> None:
        full = None
        with self._pack_lock:
            pack = self._pack
            entry = BlockEntry(pack.size, len(sealed.data), sealed.kind, sealed.plain_length, len(sealed.ids))
            pack.blocks.append(entry)
            pack.pieces.append(sealed.data)
            pack.size += len(sealed.data)
            pack.ids += sealed.ids
            pack.kinds += sealed.kinds
            pack.lengths += sealed.lengths
            pack.parts += sealed.parts
            pack.weight += len(sealed.ids) + sum(len(parts or b"") for parts in sealed.parts) // 32
            if pack.size >= self._sizes.pack or pack.weight >= MOST_BLOBS:
                full, self._pack = pack, _OpenPack()
        if full:
            self._store(full)

    def _store(self, pack: _OpenPack) -> None:
        if not pack.blocks:
            return
        digest = names.sha256(pack.pieces)
        with self._pack_lock:
            self._under_way.add(names.pack(digest))
        self._storing(bytes.fromhex(digest), done=False)
        self._storage.put(names.pack(digest), pack.pieces)
        self._storing(bytes.fromhex(digest), done=True)
        with self._pack_lock:
            self._entries.append(pack.entry(digest))
            self.bytes_stored += pack.size


def _is_dense(data: Buffer) -> bool:
    """Whether data looks compressed already: a sample of its middle has nearly all octets there are, as text never has.

    Compressing the sample would tell it better and costs 50 times as much, which is more than storing the message.
    """
    if len(data) < _DENSE_OCTETS:
        return False
    middle = len(data) // 2
    sample = bytes(memoryview(data)[middle - 512 : middle + 512])
    return not sample.isascii() and len(set(sample)) > _DENSE_VALUES
