"""Blocks out of packs. From where each request costs a round trip, those behind one another are fetched together.

Whoever restores reads a pack from its beginning to its end. So what is fetched with one request grows as long as
reading goes on in the order of the pack, as an operating system reads ahead in a file; whoever looks for one message
gets one block.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from backupd.errors import Damaged
from backupd.repository import names
from backupd.repository.index_cache import IndexCache
from backupd.storage.base import Storage

_FIRST: Final = 2 << 20
_MOST: Final = 8 << 20
_HELD: Final = 16 << 20
_PACKS: Final = 4  # that are read at the same time: several sorts of blocks, several threads

_Place = tuple[bytes, int]


class _Run(NamedTuple):
    """Reading in order. end: of what was fetched last; window: octets that were."""

    end: int
    window: int


class BlocksAhead:
    """Safe to use from several threads."""

    def __init__(self, storage: Storage, index: IndexCache) -> None:
        self._storage, self._index = storage, index
        self._lock = threading.Lock()
        self._runs: OrderedDict[bytes, _Run] = OrderedDict()
        self._held: OrderedDict[_Place, bytes] = OrderedDict()
        self._octets = 0

    def get(self, pack: bytes, offset: int, length: int) -> bytes:
        """A block. Raises ObjectMissing, Damaged."""
        name = names.pack(pack.hex())
        if self._storage.requests is None:
            return self._storage.get(name, offset, length)
        with self._lock:
            if (held := self._held.pop((pack, offset), None)) is not None:
                self._octets -= len(held)
                return held
            window = self._window(pack, offset)
        behind = self._index.blocks(pack, offset + length, offset + window) if window > length else []
        end = offset + length
        for start, size in behind:
            if start != end:  # what is lost lies in between
                break
            end = start + size
        try:
            data = self._storage.get(name, offset, end - offset)
        except Damaged:  # the pack is cut; this block need not be
            if end == offset + length:
                raise
            return self._storage.get(name, offset, length)
        with self._lock:
            self._hold(pack, offset + length, end, data, offset, behind)
            self._runs[pack] = _Run(end, max(window, length))
            self._runs.move_to_end(pack)
            while len(self._runs) > _PACKS:
                self._runs.popitem(last=False)
        return data[:length]

    def _window(self, pack: bytes, offset: int) -> int:
        """Octets to be fetched from this offset on."""
        run = self._runs.get(pack)
        if run is None or not 0 <= offset - run.end <= _MOST:
            return 0
        return min(max(2 * run.window, _FIRST), _MOST)

    def _hold(
        self, pack: bytes, start: int, end: int, data: bytes, origin: int, blocks: list[tuple[int, int]]
    ) -> None:
        for offset, length in blocks:
            if not start <= offset < end:
                break
            place = (pack, offset)
            if place not in self._held:
                self._held[place] = data[offset - origin : offset - origin + length]
                self._octets += length
        while self._octets > _HELD:
            _, dropped = self._held.popitem(last=False)
            self._octets -= len(dropped)
