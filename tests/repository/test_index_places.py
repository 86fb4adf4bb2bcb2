"""The index is asked for many blobs at once; and for another place, where one is damaged."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Damaged
from backupd.repository import names
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from tests.support.harm import flip
from tests.support.mail import noise
from tests.support.memory_storage import MemoryStorage


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


def test_a_damaged_block_costs_nothing_that_another_pack_has() -> None:
    storage = MemoryStorage()
    secrets = create(storage, "correct horse battery", argon2=Argon2(1, 8, 1))
    mail = noise("twice", 3000)
    blob = secrets.content_id(mail)
    for _ in range(2):
        with Repository(storage, secrets) as repository:
            repository.distrust(blob)  # else it would not be stored again
            repository.put(blob, BlobKind.PLAIN, mail)
            repository.flush()
    packs = [info.name for info in storage.list(names.PACKS)]
    assert len(packs) == 2
    for first in packs:
        whole = dict(storage.objects)
        flip(storage, first)
        with Repository(storage, secrets) as repository:
            assert bytes(repository.read(blob)[1]) == mail
        storage.objects = whole
    for each in packs:
        flip(storage, each)
    with Repository(storage, secrets) as repository:
        for _ in range(2):
            with pytest.raises(Damaged, match="a block cannot be opened"):
                repository.read(blob)
