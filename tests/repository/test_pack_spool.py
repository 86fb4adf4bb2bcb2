"""Restores from a bucket fetch what they need once, in few requests, and need no room on the disk to succeed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import names
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache
from backupd.repository.pack_spool import PackSpool
from backupd.storage.base import Requests
from tests.support.mail import noise
from tests.support.memory_storage import MemoryStorage

BLOCK = 3_000
Block = tuple[int, int, bytes]
"""Offset, length and octets."""


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Bucket(MemoryStorage):
    """Charges for requests, and remembers what was got."""

    requests = Requests()

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(name, offset, length)
        self.got.append(len(data))
        return data


@pytest.fixture
def storage() -> Bucket:
    return Bucket()


@pytest.fixture
def index() -> Iterator[IndexCache]:
    index = IndexCache(None, bytes(16))
    yield index
    index.close()


def pack_of(storage: MemoryStorage, index: IndexCache, lengths: list[int], pack: bytes = bytes(32)) -> list[Block]:
    """The blocks of a pack that is stored and indexed."""
    blocks, data = [], b"BKPDPAK1"
    for number, length in enumerate(lengths):
        octets = noise(f"{pack.hex()}{number}", length)
        blocks.append((len(data), length, octets))
        data += octets
    storage.objects[names.pack(pack.hex())] = data
    entries = [BlockEntry(offset, length, 1, length, 0) for offset, length, _ in blocks]
    index.add(pack.hex(), [PackEntry(pack, len(data), entries, b"", b"", [])])
    return blocks


def test_who_reads_a_pack_fetches_it_once_whatever_the_order(
    storage: Bucket, index: IndexCache, tmp_path: Path
) -> None:
    blocks = pack_of(storage, index, [BLOCK] * 100)
    spool = PackSpool(storage, index, folder=tmp_path)
    for _ in range(2):
        for offset, length, octets in blocks[::2] + blocks[::-1]:
            assert spool.get(bytes(32), offset, length) == octets
    assert sum(storage.got) < 1.3 * 100 * BLOCK
    assert len(storage.got) == 25 + 4
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_who_wants_little_fetches_little(storage: Bucket, index: IndexCache) -> None:
    blocks = pack_of(storage, index, [BLOCK] * 100)
    spool = PackSpool(storage, index)
    for offset, length, octets in blocks[50:60]:
        assert spool.get(bytes(32), offset, length) == octets
    assert storage.got == [BLOCK] * 10


def test_on_a_disk_nothing_is_spooled(storage: Bucket, index: IndexCache) -> None:
    storage.requests = None  # type: ignore[assignment]
    blocks = pack_of(storage, index, [BLOCK] * 10)
    spool = PackSpool(storage, index)
    for offset, length, octets in blocks:
        assert spool.get(bytes(32), offset, length) == octets
    assert storage.got == [BLOCK] * 10


def test_the_disk_is_used_up_to_a_limit_and_given_back(storage: Bucket, index: IndexCache, tmp_path: Path) -> None:
    packs = [bytes([number]) * 32 for number in range(6)]
    blocks = {pack: pack_of(storage, index, [BLOCK] * 20, pack) for pack in packs}
    open_before = open_files()
    spool = PackSpool(storage, index, folder=tmp_path, octets=130_000)
    for pack in packs:
        for offset, length, octets in blocks[pack]:
            assert spool.get(pack, offset, length) == octets
        assert open_files() <= open_before + 2
    spool.close()
    assert open_files() == open_before
    offset, length, octets = blocks[packs[0]][0]
    assert spool.get(packs[0], offset, length) == octets


def test_without_room_on_the_disk_blocks_are_fetched_one_by_one(
    storage: Bucket, index: IndexCache, tmp_path: Path
) -> None:
    blocks = pack_of(storage, index, [BLOCK] * 20)
    spool = PackSpool(storage, index, folder=tmp_path / "nowhere")
    for offset, length, octets in blocks:
        assert spool.get(bytes(32), offset, length) == octets


def test_a_pack_that_is_cut_gives_the_blocks_it_has(storage: Bucket, index: IndexCache) -> None:
    blocks = pack_of(storage, index, [BLOCK] * 20)
    name = names.pack(bytes(32).hex())
    storage.objects[name] = storage.objects[name][: 10 * BLOCK]
    spool = PackSpool(storage, index)
    for offset, length, octets in blocks[:9]:
        assert spool.get(bytes(32), offset, length) == octets
    with pytest.raises(Damaged):
        spool.get(bytes(32), *blocks[15][:2])
    storage.delete(name)
    with pytest.raises(ObjectMissing):
        spool.get(bytes(32), *blocks[0][:2])


def test_threads_that_read_the_same_pack_fetch_it_once(storage: Bucket, index: IndexCache) -> None:
    blocks = pack_of(storage, index, [BLOCK] * 100)
    spool = PackSpool(storage, index)
    wrong: list[int] = []

    def read() -> None:
        for offset, length, octets in blocks:
            if spool.get(bytes(32), offset, length) != octets:
                wrong.append(offset)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert storage.got.count(max(storage.got)) in (3, 4)  # the four parts; the last one may be shorter


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9_000), min_size=1, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11)), max_size=60),
    limit=st.integers(1, 300_000),
)
def test_whatever_the_order_each_block_is_what_it_is(
    lengths: list[int], reads: list[tuple[int, int]], limit: int
) -> None:
    storage, index = Bucket(), IndexCache(None, bytes(16))
    packs = [bytes([number]) * 32 for number in range(3)]
    blocks = {pack: pack_of(storage, index, lengths, pack) for pack in packs}
    spool = PackSpool(storage, index, octets=limit)
    for number, place in reads:
        pack = packs[number]
        offset, length, octets = blocks[pack][place % len(lengths)]
        assert spool.get(pack, offset, length) == octets
    spool.close()
    index.close()
