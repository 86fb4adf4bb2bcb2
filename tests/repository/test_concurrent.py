"""Several at once: backups sharing a cache, a restore while a backup ends, threads, and commands that were killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.errors import Damaged, NoRepository, StorageError, UsageError
from backupd.repository.keys import Secrets
from backupd.repository.pack_writer import PackWriter
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create, describe, unlock
from backupd.storage.base import Buffer, ObjectInfo
from tests.repository.conftest import CHEAP, PASSPHRASE
from tests.support.memory_storage import MemoryStorage


def store(repository: Repository, data: bytes) -> bytes:
    blob_id = repository.secrets.content_id(data)
    repository.put(blob_id, BlobKind.PLAIN, data)
    return blob_id


def stored(repository: Repository, data: bytes) -> bytes:
    blob_id = store(repository, data)
    repository.flush()
    return blob_id


class Listing(MemoryStorage):
    """Lets others work between a listing of the index and what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[object] = []

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(super().list(prefix))
        if prefix == "index/" and self.others:
            other = self.others.pop()
            assert callable(other)
            other()
        return iter(found)


@pytest.fixture
def storage() -> Listing:
    return Listing()


def test_a_backup_that_begins_does_not_make_another_forget_what_it_stored(
    storage: Listing, secrets: Secrets, tmp_path: Path
) -> None:
    with Repository(storage, secrets, cache=tmp_path / "cache") as running:
        stored(running, b"one")
        storage.others.append(lambda: stored(running, b"two"))
        with Repository(storage, secrets, cache=tmp_path / "cache"):
            pass
        assert storage.others == []
        for data in (b"one", b"two"):
            assert running.has(secrets.content_id(data))
            assert bytes(running.read(secrets.content_id(data))[1]) == data


def test_what_is_stored_while_a_shared_cache_is_made_anew_is_found(
    storage: Listing, secrets: Secrets, tmp_path: Path
) -> None:
    with Repository(storage, secrets, cache=tmp_path / "cache") as running:
        stored(running, b"lost")
        storage.delete(next(name for name in storage.objects if name.startswith("index/")))
        storage.others.append(lambda: stored(running, b"new"))
        with Repository(storage, secrets, cache=tmp_path / "cache") as beginning:
            assert beginning.has(secrets.content_id(b"new"))
            assert not beginning.has(secrets.content_id(b"lost"))
        assert bytes(running.read(secrets.content_id(b"new"))[1]) == b"new"


def test_a_cache_emptied_by_another_is_filled_when_a_blob_is_wanted(
    storage: Listing, secrets: Secrets, tmp_path: Path
) -> None:
    with Repository(storage, secrets, cache=tmp_path / "cache") as running:
        blob_id = stored(running, b"data")
        running.index.clear()
        assert bytes(running.read(blob_id)[1]) == b"data"


def test_a_restore_reads_a_snapshot_that_a_backup_elsewhere_finished_after_it_began(
    storage: Listing, secrets: Secrets
) -> None:
    with Repository(storage, secrets) as restore, Repository(storage, secrets) as backup:
        for data in (b"one", b"two"):
            blob_id = stored(backup, data)
            restore.refs()
            assert bytes(restore.read(blob_id)[1]) == data


def test_many_lost_blobs_cost_one_look_at_the_index(storage: Listing, secrets: Secrets) -> None:
    looks: list[int] = []
    with Repository(storage, secrets) as repository:
        for number in range(5):
            storage.others.append(lambda: looks.append(1))
            with pytest.raises(Damaged, match="in no index"):
                repository.read(bytes([number]) * 32)
    assert len(looks) == 1


def test_a_flush_between_taking_a_blob_and_writing_it_does_not_lose_it(
    storage: Listing, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository(storage, secrets) as repository:
        stored(repository, b"first")  # now there is a writer
        add = PackWriter.add
        flushing = threading.Thread(target=repository.flush)

        def add_late(writer: PackWriter, blob_id: bytes, kind: BlobKind, data: Buffer, parts: bytes | None) -> None:
            flushing.start()
            flushing.join(0.3)  # either it waits for us, or it is done without our blob
            add(writer, blob_id, kind, data, parts)

        monkeypatch.setattr(PackWriter, "add", add_late)
        blob_id = store(repository, b"second")
        flushing.join()
        assert repository.has(blob_id)
        repository.flush()
        assert bytes(repository.read(blob_id)[1]) == b"second"


class TestInit:
    def test_one_that_was_killed_is_no_repository_and_can_be_run_again(self) -> None:
        storage = MemoryStorage()

        def no_space(name: str) -> None:
            if name == "repository.json":
                raise StorageError("killed")

        storage.before_put = no_space
        for passphrase in (PASSPHRASE, "another passphrase"):
            with pytest.raises(StorageError, match="killed"):
                create(storage, passphrase, argon2=CHEAP)
        with pytest.raises(NoRepository):
            describe(storage)
        storage.before_put = lambda _name: None
        # The slots of the killed ones are opened by the same passphrase, and belong to no repository.
        assert create(storage, PASSPHRASE, argon2=CHEAP) == unlock(storage, PASSPHRASE)

    def test_of_two_at_once_one_makes_the_repository_and_the_other_leaves_nothing(self) -> None:
        storage = MemoryStorage()
        winners: list[Secrets] = []

        def meanwhile(name: str) -> None:
            if name == "repository.json":
                storage.before_put = lambda _name: None
                winners.append(create(storage, PASSPHRASE, argon2=CHEAP))

        storage.before_put = meanwhile
        with pytest.raises(UsageError, match="already"):
            create(storage, "another passphrase", argon2=CHEAP)
        assert [unlock(storage, PASSPHRASE)] == winners
        assert len([name for name in storage.objects if name.startswith("keys/")]) == 1

    def test_a_repository_without_its_description_is_not_made_anew(self, storage: Listing, secrets: Secrets) -> None:
        with Repository(storage, secrets) as repository:
            stored(repository, b"data")
        storage.delete("repository.json")
        with pytest.raises(Damaged, match="missing"):
            describe(storage)
        with pytest.raises(UsageError, match="already"):
            create(storage, PASSPHRASE, argon2=CHEAP)
