"""What a run remembers does not grow with the mailbox, and what forged or misplaced objects can do is bounded."""

from __future__ import annotations

import os
import sqlite3
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Damaged, StorageError
from backupd.operations.messages import MessageStore
from backupd.repository import block, index_cache, payload, recipe
from backupd.repository import repository as module
from backupd.repository.blob_reader import BlobReader
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache, Location
from backupd.repository.keys import Secrets, generate
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from tests.support.memory_storage import MemoryStorage

FRESH = 50
OWNER = generate(bytes(16), os.urandom)


def numbered(secrets: Secrets, numbers: range) -> dict[bytes, bytes]:
    """Blobs by id."""
    blobs = [b"blob %d" % number for number in numbers]
    return {secrets.content_id(blob): blob for blob in blobs}


@pytest.fixture
def few_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FRESH", FRESH)


@pytest.mark.usefixtures("few_fresh")
class TestBlobsNotYetIndexed:
    def test_they_are_indexed_on_the_way_and_not_all_at_the_end(self, storage: MemoryStorage, secrets: Secrets) -> None:
        blobs = numbered(secrets, range(4 * FRESH + 7))
        with Repository(storage, secrets) as repository:
            for blob_id, data in blobs.items():
                repository.put(blob_id, BlobKind.PLAIN, data)
                assert repository.has(blob_id)
                assert len(repository._fresh) < FRESH
            assert len([name for name in storage.objects if name.startswith("index/")]) == 4
            repository.flush()
        with Repository(storage, secrets) as again:
            assert {blob_id: bytes(again.read(blob_id)[1]) for blob_id in blobs} == blobs

    def test_several_threads_lose_and_repeat_nothing(self, storage: MemoryStorage, secrets: Secrets) -> None:
        blobs = numbered(secrets, range(20 * FRESH))
        taken: list[bytes] = []
        with Repository(storage, secrets) as repository:

            def put_all() -> None:
                taken.extend(
                    blob_id for blob_id, data in blobs.items() if repository.put(blob_id, BlobKind.PLAIN, data)
                )

            threads = [threading.Thread(target=put_all) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            repository.flush()
            assert sorted(taken) == sorted(blobs)
            assert repository._fresh == set()
        with Repository(storage, secrets) as again:
            assert {blob_id: bytes(again.read(blob_id)[1]) for blob_id in blobs} == blobs

    def test_a_storage_that_fails_on_the_way_is_told_by_put(self, storage: MemoryStorage, secrets: Secrets) -> None:
        def fail(name: str) -> None:
            raise StorageError("no", subject=name)

        blobs = numbered(secrets, range(FRESH))
        with Repository(storage, secrets) as repository:
            storage.before_put = fail
            *most, (last, data) = blobs.items()
            for blob_id, each in most:
                repository.put(blob_id, BlobKind.PLAIN, each)
            with pytest.raises(StorageError, match="packs/"):
                repository.put(last, BlobKind.PLAIN, data)
            with pytest.raises(StorageError, match="packs/"):
                repository.flush()
        assert not any(name.startswith("index/") for name in storage.objects)


class TestIndexCache:
    def test_rows_in_order_say_the_same_as_rows_as_they_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index_cache, "_ROWS_AT_ONCE", 7)  # so that stretches end within blocks and packs
        packs, wanted = [], {}
        for number in range(5):
            name = bytes([number]) * 32
            ids = [os.urandom(32) for _ in range(12)]
            blocks = [BlockEntry(8 + 100 * each, 100, 1, 50, 3) for each in range(4)]
            packs.append(PackEntry(name, 408, blocks, b"".join(ids), bytes(12), [9] * 12))
            for place, blob_id in enumerate(ids):
                wanted[blob_id] = Location(name, 8 + 100 * (place // 3), 100, place % 3)
        cache = IndexCache(None, bytes(16))
        cache.add("one", packs[:2])
        cache.add("two", packs[2:])
        assert {blob_id: cache.find(blob_id) for blob_id in wanted} == wanted
        assert cache.totals() == (5, 5 * 408, 60)
        cache.close()

    def test_of_two_copies_the_first_counts(self) -> None:
        blob_id = b"x" * 32
        block = BlockEntry(8, 100, 1, 50, 1)
        one, two = (PackEntry(name * 32, 108, [block], blob_id, b"\0", [9]) for name in (b"1", b"2"))
        cache = IndexCache(None, bytes(16))
        cache.add("both", [two, one])
        assert cache.find(blob_id) == Location(b"2" * 32, 8, 100, 0)
        cache.close()

    def test_a_state_that_is_not_readable_any_more_is_told_as_that(self, tmp_path: Path) -> None:
        cache = IndexCache(tmp_path / "state.sqlite", bytes(16))
        with sqlite3.connect(tmp_path / "state.sqlite") as other:
            other.execute("DROP TABLE place")
        with pytest.raises(StorageError, match="state"):
            cache.find(bytes(32))
        cache.close()


def test_an_index_object_in_the_place_of_another_is_noticed(storage: MemoryStorage, secrets: Secrets) -> None:
    for data in (b"one", b"two"):
        with Repository(storage, secrets) as repository:
            repository.put(secrets.content_id(data), BlobKind.PLAIN, data)
            repository.flush()
    first, second = sorted(name for name in storage.objects if name.startswith("index/"))
    storage.objects[first] = storage.objects[second]

    with Repository(storage, secrets) as repository:
        assert repository.damaged_indexes == [first]


def test_a_missing_pack_is_damage_that_says_what_to_do(storage: MemoryStorage, secrets: Secrets) -> None:
    with Repository(storage, secrets) as repository:
        repository.put(secrets.content_id(b"data"), BlobKind.PLAIN, b"data")
        repository.flush()
        (pack,) = [name for name in storage.objects if name.startswith("packs/")]
        storage.delete(pack)
        with pytest.raises(Damaged, match=f"{pack} at 8: a pack is missing .the next backup"):
            repository.read(secrets.content_id(b"data"))


PART = b"p" * 32
impossible = st.one_of(
    st.builds(recipe.Base64Part, st.just([PART]), st.integers(-(2**62), -1), st.binary(max_size=2), st.just(0)),
    st.builds(recipe.Base64Part, st.just([PART]), st.just(76), st.binary(max_size=2), st.integers(3, 2**62)),
    st.builds(recipe.Base64Part, st.just([PART]), st.just(76), st.binary(max_size=2), st.integers(-(2**62), -1)),
    st.builds(recipe.Part, st.binary(max_size=31).map(lambda short: [PART, short])),
)


@given(impossible)
def test_recipes_that_cannot_be_are_damage(piece: recipe.Piece) -> None:
    with pytest.raises(Damaged, match="message 7: a recipe makes no sense"):
        recipe.decode(recipe.encode([piece]), "message 7")


@given(
    st.lists(
        st.one_of(
            st.builds(recipe.Literal, st.binary(max_size=20)),
            st.builds(recipe.Part, st.just([PART])),
            st.builds(
                recipe.Base64Part, st.just([PART]), st.integers(-5, 2**63), st.binary(max_size=3), st.integers(-1, 9)
            ),
        ),
        max_size=4,
    )
)
def test_a_forged_recipe_gives_damage_and_never_a_message(pieces: list[recipe.Piece]) -> None:
    """Whoever can write to the storage knows the public key, and with it can seal what he likes."""
    storage = MemoryStorage()
    secrets = OWNER
    with Repository(storage, secrets) as repository:
        part = secrets.content_id(b"a part")
        repository.put(part, BlobKind.PLAIN, b"a part")
        forged = recipe.encode(pieces).replace(PART, part)
        repository.put(b"i" * 32, BlobKind.RECIPE, forged)
        repository.flush()
        with pytest.raises(Damaged):
            MessageStore(repository).load(b"i" * 32)


def test_blocks_that_are_kept_take_no_more_memory_than_they_may_however_small_they_are(secrets: Secrets) -> None:
    """A mailbox that is backed up message by message has a block of a few hundred octets for each of them."""
    may, small = 1 << 20, [b"run %d" % number for number in range(6_000)]
    sealed = [
        block.seal(block.Kind.METADATA, payload.join(bytes([BlobKind.STATE]), [data]), secrets, os.urandom, level=1)
        for data in small
    ]
    with closing(IndexCache(None, secrets.repository)) as index:
        reader = BlobReader(MemoryStorage(), secrets, index, cache_bytes=may)
        tracemalloc.start()
        try:
            for number, data in enumerate(sealed):
                reader.open_block(number.to_bytes(32, "big"), 8, data)
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        reader.close()
    assert may / 2 < taken < 1.5 * may
