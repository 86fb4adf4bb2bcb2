"""Blocks out of packs; from where each request costs, a pack that is read much is fetched once, to a file.

A restore reads nearly all of each pack, in an order of its own: mailboxes were read side by side when they were backed
up, and an attachment lies where it was first met. So blocks are fetched one by one as long as little of a pack is
wanted. Then all of it is, in a few parts at once, to a temporary file, which holds what the service holds: nothing that
can be read without a key.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from backupd.errors import Damaged
from backupd.repository import names
from backupd.repository.index_cache import IndexCache
from backupd.storage.base import Storage

_PARTS: Final = 4
_SHARE: Final = 4
"""Of a pack: when more than a quarter of it was fetched block by block, the rest is expected to be wanted too."""

SPOOL_OCTETS: Final = 512 << 20
"""On the disk, at most."""


class PackSpool:
    """Safe to use from several threads.

    folder: for temporary files, which have no names there and go with the process; None: the system's. octets: of all
    files together; those that were used least recently are dropped.
    """

    def __init__(
        self, storage: Storage, index: IndexCache, *, folder: Path | None = None, octets: int = SPOOL_OCTETS
    ) -> None:
        self._storage, self._index, self._folder, self._most = storage, index, folder, octets
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._fetched: dict[bytes, int] = {}
        self._files: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # descriptor, size
        self._octets = 0

    def get(self, pack: bytes, offset: int, length: int) -> bytes:
        """A block. Raises ObjectMissing, Damaged."""
        name = names.pack(pack.hex())
        if self._storage.requests is None:
            return self._storage.get(name, offset, length)
        if (data := self._spooled(pack, offset, length)) is not None:
            return data
        with self._lock:
            fetched = self._fetched[pack] = self._fetched.get(pack, 0) + length
        size = self._index.size(pack)
        if fetched * _SHARE > size and length < size <= self._most:
            with self._fetching:
                if (data := self._spooled(pack, offset, length)) is not None:  # by another thread, meanwhile
                    return data
                # Without room on the disk, or when the pack is cut, there is still the block.
                with suppress(OSError, Damaged):
                    self._fetch(pack, name, size)
            if (data := self._spooled(pack, offset, length)) is not None:
                return data
        return self._storage.get(name, offset, length)

    def close(self) -> None:
        """Give the disk its space back."""
        with self._lock:
            self._drop(0)

    def _spooled(self, pack: bytes, offset: int, length: int) -> bytes | None:
        with self._lock:
            if pack not in self._files:
                return None
            self._files.move_to_end(pack)
            data = os.pread(self._files[pack][0], length, offset)
            return data if len(data) == length else None

    def _fetch(self, pack: bytes, name: str, size: int) -> None:
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file, ThreadPoolExecutor(_PARTS) as pool:
            part = -(-size // _PARTS)

            def fetch(start: int) -> None:
                data = memoryview(self._storage.get(name, start, min(part, size - start)))
                while data:
                    written = os.pwrite(file.fileno(), data, start)
                    data, start = data[written:], start + written

            for _ in pool.map(fetch, range(0, size, part)):
                pass
            descriptor = os.dup(file.fileno())
        with self._lock:
            self._drop(self._most - size)
            self._files[pack] = descriptor, size
            self._octets += size

    def _drop(self, most: int) -> None:
        while self._files and self._octets > most:
            _, (descriptor, size) = self._files.popitem(last=False)
            os.close(descriptor)
            self._octets -= size
