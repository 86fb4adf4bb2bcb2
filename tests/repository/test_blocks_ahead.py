"""Restores from a bucket take few requests, and what is read ahead is what would have been read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import names
from backupd.repository.blocks_ahead import _HELD, _MOST, BlocksAhead
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache
from backupd.storage.base import Requests
from tests.support.mail import noise
from tests.support.memory_storage import MemoryStorage

PACK = bytes(range(32))
BLOCK = 300_000


class Bucket(MemoryStorage):
    """Charges for requests, and remembers what was got."""

    requests = Requests()

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[int, int | None]] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.got.append((offset, length))
        return super().get(name, offset, length)


def pack_of(storage: MemoryStorage, index: IndexCache, lengths: list[int]) -> list[tuple[int, int, bytes]]:
    """(offset, length, octets) of the blocks of a pack that is stored and indexed."""
    blocks, data = [], b"BKPDPAK1"
    for number, length in enumerate(lengths):
        octets = noise(number, length)
        blocks.append((len(data), length, octets))
        data += octets
    storage.objects[names.pack(PACK.hex())] = data
    entries = [BlockEntry(offset, length, 1, length, 0) for offset, length, _ in blocks]
    index.add("index", [PackEntry(PACK, len(data), entries, b"", b"", [])])
    return blocks


def test_who_reads_a_pack_in_order_fetches_it_in_a_few_requests() -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    ahead = BlocksAhead(storage, index)
    blocks = pack_of(storage, index, [BLOCK] * 100)
    assert all(ahead.get(PACK, offset, length) == octets for offset, length, octets in blocks)
    assert len(storage.got) <= 8
    assert max(length or 0 for _, length in storage.got) <= _MOST


def test_who_looks_for_one_block_fetches_one() -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    ahead = BlocksAhead(storage, index)
    blocks = pack_of(storage, index, [BLOCK] * 100)
    for number in (50, 10, 90):
        offset, length, octets = blocks[number]
        assert ahead.get(PACK, offset, length) == octets
    assert storage.got == [blocks[number][:2] for number in (50, 10, 90)]


def test_on_a_disk_nothing_is_read_ahead() -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    storage.requests = None  # type: ignore[assignment]
    blocks = pack_of(storage, index, [BLOCK] * 10)
    for offset, length, octets in blocks:
        assert BlocksAhead(storage, index).get(PACK, offset, length) == octets
    assert storage.got == [block[:2] for block in blocks]


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 2_500_000), min_size=1, max_size=12),
    reads=st.lists(st.integers(0, 24), max_size=40),
)
def test_whatever_the_order_each_block_is_what_it_is_and_little_is_held(lengths: list[int], reads: list[int]) -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    ahead = BlocksAhead(storage, index)
    blocks = pack_of(storage, index, lengths)
    for number in (each % len(blocks) for each in reads):
        offset, length, octets = blocks[number]
        assert ahead.get(PACK, offset, length) == octets
        assert ahead._octets == sum(map(len, ahead._held.values())) <= _HELD


def test_a_pack_that_is_cut_gives_the_blocks_it_has() -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    ahead = BlocksAhead(storage, index)
    blocks = pack_of(storage, index, [BLOCK] * 10)
    name = names.pack(PACK.hex())
    storage.objects[name] = storage.objects[name][: 5 * BLOCK]
    for offset, length, octets in blocks[:4]:
        assert ahead.get(PACK, offset, length) == octets
    with pytest.raises(Damaged):
        ahead.get(PACK, *blocks[6][:2])
    storage.delete(name)
    with pytest.raises(ObjectMissing):
        BlocksAhead(storage, index).get(PACK, *blocks[0][:2])
