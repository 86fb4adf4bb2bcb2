"""The cache of the index is made anew while others ask it: nobody meets one that is empty, or half full."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backupd.repository import index, names
from backupd.repository.keys import Secrets
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from tests.support.memory_storage import MemoryStorage

BLOBS, ROUNDS = 40, 30


@pytest.fixture
def secrets_of() -> tuple[MemoryStorage, Secrets]:
    storage = MemoryStorage()
    return storage, create(storage, "a passphrase", argon2=Argon2(1, 8, 1))


def fill(repository: Repository) -> list[bytes]:
    """Blobs, each in a pack and an index object of its own."""
    blobs = []
    for number in range(BLOBS):
        data = b"blob %d" % number
        blobs.append(repository.secrets.content_id(data))
        repository.put(blobs[-1], BlobKind.PLAIN, data)
        repository.flush()
    return blobs


def asked_all_the_time(repository: Repository, blobs: list[bytes], work: Callable[[], object]) -> list[str]:
    """What somebody missed who asked while the work was done."""
    missed: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            if not all(repository.has(blob) for blob in blobs):
                missed.append("blobs")
            if len(repository.index.packs()) != BLOBS:
                missed.append("packs")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return missed


def test_by_threads_of_this_process(secrets_of: tuple[MemoryStorage, Secrets], tmp_path: Path) -> None:
    storage, secrets = secrets_of
    with Repository(storage, secrets, cache=tmp_path / "state.sqlite") as repository:
        blobs = fill(repository)
        assert asked_all_the_time(repository, blobs, lambda: [repository.rebuild() for _ in range(ROUNDS)]) == []


def test_by_another_process_with_the_same_cache(secrets_of: tuple[MemoryStorage, Secrets], tmp_path: Path) -> None:
    storage, secrets = secrets_of
    with (
        Repository(storage, secrets, cache=tmp_path / "state.sqlite") as one,
        Repository(storage, secrets, cache=tmp_path / "state.sqlite") as other,
    ):
        blobs = fill(one)
        assert asked_all_the_time(other, blobs, lambda: [one.rebuild() for _ in range(ROUNDS)]) == []


def test_when_index_objects_were_merged_behind_its_back(
    secrets_of: tuple[MemoryStorage, Secrets], tmp_path: Path
) -> None:
    storage, secrets = secrets_of
    with Repository(storage, secrets, cache=tmp_path / "state.sqlite") as repository:
        blobs = fill(repository)

        def merge() -> None:
            for _ in range(ROUNDS):
                # An index object is stored anew, as a merge does it, and the one before goes.
                old = next(name for name in storage.objects if name.startswith(names.INDEX))
                repository.add_index(index.unseal(storage.get(old), secrets, old))
                storage.delete(old)
                repository.refresh()

        assert asked_all_the_time(repository, blobs, merge) == []
