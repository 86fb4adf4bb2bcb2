"""The filter beside the index: never wrong about a blob it has, and hardly ever about another."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.repository.blob_filter import SMALLEST, BlobFilter
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache


def ids(first: int, last: int) -> list[bytes]:
    return [sha256(str(number).encode()).digest() for number in range(first, last)]


def pack(blobs: list[bytes]) -> PackEntry:
    name = sha256(blobs[0]).digest()
    return PackEntry(
        name, 999, [BlockEntry(8, 900, 1, 900, len(blobs))], b"".join(blobs), bytes(len(blobs)), [1] * len(blobs)
    )


@given(st.lists(st.binary(min_size=32, max_size=32)), st.lists(st.binary(min_size=32, max_size=32)))
def test_it_has_whatever_was_given_to_it(made: list[bytes], added: list[bytes]) -> None:
    found = BlobFilter(None)
    found.make(made, len(made))
    found.add(added)
    assert all(blob in found for blob in made + added)


def test_few_others_seem_to_be_in_it_even_when_it_is_full() -> None:
    found = BlobFilter(None)
    found.make([], 0)
    known = iter(ids(0, 400_000))
    while not found.is_full:
        found.add(next(known) for _ in range(10_000))
    assert found.octets == SMALLEST
    wrong = sum(blob in found for blob in ids(1_000_000, 1_020_000))
    assert wrong < 400, "1 in 50"


def test_without_a_file_nothing_is_open(tmp_path: Path) -> None:
    assert not BlobFilter(tmp_path / "filter").open()


@pytest.mark.parametrize("size", [0, 1, SMALLEST - 1, SMALLEST + 1])
def test_a_file_that_was_cut_off_is_not_used(tmp_path: Path, size: int) -> None:
    (tmp_path / "filter").write_bytes(bytes(size))
    assert not BlobFilter(tmp_path / "filter").open()


def test_it_is_kept_in_its_file(tmp_path: Path) -> None:
    first, second = BlobFilter(tmp_path / "filter"), BlobFilter(tmp_path / "filter")
    first.make(ids(0, 10), 10)
    first.add(ids(10, 20))
    assert second.open()
    assert all(blob in second for blob in ids(0, 20))
    first.add(ids(20, 30))  # both see the same file
    assert all(blob in second for blob in ids(20, 30))
    assert list(tmp_path.iterdir()) == [tmp_path / "filter"]


def test_another_process_goes_on_with_the_larger_one_as_soon_as_it_looks(tmp_path: Path) -> None:
    first, second = BlobFilter(tmp_path / "filter"), BlobFilter(tmp_path / "filter")
    first.make([], 0)
    assert second.open()
    first.make(ids(0, 10), 1_000_000)
    assert second.open()
    assert second.octets == first.octets > SMALLEST
    assert all(blob in second for blob in ids(0, 10))


class TestTheIndexCacheBesideIt:
    def test_grows_it_when_it_is_full(self, tmp_path: Path) -> None:
        cache = IndexCache(tmp_path / "state.sqlite", bytes(16))
        blobs = ids(0, 300_000)
        for start in range(0, len(blobs), 50_000):
            cache.add(f"index/{start}", [pack(blobs[start : start + 50_000])])
        assert all(cache.has(blob) for blob in blobs[::997])
        (file,) = tmp_path.glob("blobs-*")
        assert file.stat().st_size > SMALLEST
        cache.close()

    def test_makes_it_anew_when_its_file_is_gone(self, tmp_path: Path) -> None:
        cache = IndexCache(tmp_path / "state.sqlite", bytes(16))
        cache.add("index/a", [pack(ids(0, 100))])
        cache.close()
        (file,) = tmp_path.glob("blobs-*")
        file.unlink()
        cache = IndexCache(tmp_path / "state.sqlite", bytes(16))
        assert all(cache.has(blob) for blob in ids(0, 100))
        cache.close()

    def test_sees_at_once_what_another_process_adds(self, tmp_path: Path) -> None:
        ours, theirs = (IndexCache(tmp_path / "state.sqlite", bytes(16)) for _ in range(2))
        theirs.add("index/a", [pack(ids(0, 100))])
        assert all(ours.has(blob) for blob in ids(0, 100))
        ours.clear()
        theirs.add("index/b", [pack(ids(100, 200))])
        assert all(ours.has(blob) for blob in ids(100, 200))
        ours.close()
        theirs.close()
