"""Asking the index for many blobs at once says what asking for each does."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache


def identity(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def cache_of(known: list[int]) -> IndexCache:
    cache = IndexCache(None, bytes(16))
    count, blobs = len(known), b"".join(map(identity, known))
    entry = PackEntry(identity(-1), 1000, [BlockEntry(8, 992, 1, 5, count)], blobs, bytes(count), [1] * count)
    cache.add("index/x", [entry])
    return cache


@given(st.sets(st.integers(0, 3000), max_size=50), st.lists(st.integers(0, 3000), max_size=1200))
def test_what_is_lacking_is_what_is_not_there(known: set[int], asked: list[int]) -> None:
    cache = cache_of(sorted(known))
    assert cache.lacking(map(identity, asked)) == {identity(each) for each in asked if each not in known}
    cache.close()
