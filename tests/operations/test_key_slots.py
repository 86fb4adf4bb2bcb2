"""Who can open a repository."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from backupd.errors import UsageError, WrongKey
from backupd.operations import key_slots
from backupd.repository.keys import Role
from backupd.repository.repository import Repository, unlock
from backupd.repository.slots import Argon2
from tests.support.memory_storage import MemoryStorage

CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)


def test_a_new_key_file_opens_its_slot_and_only_its_owner_can_read_it(
    repository: Repository, storage: MemoryStorage, tmp_path: Path
) -> None:
    path = tmp_path / "writer.key"
    text = key_slots.new_key_file(path)
    key_slots.add(repository, "daemon", Role.WRITER, text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert unlock(storage, path.read_text()).role is Role.WRITER
    assert [(line.label, line.role, line.opened_by) for line in key_slots.slot_lines(storage)] == [
        ("daemon", "writer", "key file"),
        ("default", "reader", "passphrase"),
    ]


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("precious")
    with pytest.raises(UsageError, match="already"):
        key_slots.new_key_file(path)
    assert path.read_text() == "precious"


def test_a_rotated_slot_opens_with_the_new_secret_and_no_more_with_the_old(
    repository: Repository, storage: MemoryStorage
) -> None:
    key_slots.rotate(repository, "default", "another passphrase", argon2=CHEAP)
    assert unlock(storage, "another passphrase").role is Role.READER
    with pytest.raises(WrongKey):
        unlock(storage, "a passphrase")


def test_a_removed_slot_opens_nothing(repository: Repository, storage: MemoryStorage) -> None:
    key_slots.add(repository, "second", Role.READER, "second passphrase", argon2=CHEAP)
    key_slots.remove(repository, "second")
    with pytest.raises(WrongKey):
        unlock(storage, "second passphrase")


def test_the_last_slot_that_can_read_stays(repository: Repository, storage: MemoryStorage) -> None:
    key_slots.add(repository, "daemon", Role.WRITER, "writers passphrase", argon2=CHEAP)
    with pytest.raises(UsageError, match="last slot"):
        key_slots.remove(repository, "default")
    assert unlock(storage, "a passphrase").role is Role.READER


def test_a_writer_can_neither_make_readers_nor_remove_them(repository: Repository, storage: MemoryStorage) -> None:
    with Repository(storage, repository.secrets.for_role(Role.WRITER)) as writers:
        for attempt in (
            lambda: key_slots.add(writers, "mine", Role.READER, "long enough"),
            lambda: key_slots.rotate(writers, "default", "long enough"),
            lambda: key_slots.check_rotation(writers, "default"),
            lambda: key_slots.remove(writers, "default"),
            lambda: key_slots.export(writers, Role.READER),
        ):
            with pytest.raises(WrongKey):
                attempt()


def test_an_export_opens_the_repository_without_any_slot(repository: Repository, storage: MemoryStorage) -> None:
    reader, writer = key_slots.export(repository), key_slots.export(repository, Role.WRITER)
    for line in key_slots.slot_lines(storage):
        storage.delete(line.object)
    assert unlock(storage, reader).role is Role.READER
    assert unlock(storage, writer).role is Role.WRITER


def test_a_short_passphrase_and_a_name_that_is_taken_are_refused(repository: Repository) -> None:
    with pytest.raises(UsageError, match="at least 8"):
        key_slots.add(repository, "weak", Role.READER, "short")
    with pytest.raises(UsageError, match="of this name"):
        key_slots.check_free(repository, "default")
    with pytest.raises(UsageError, match="not a name"):
        key_slots.check_free(repository, "../up")


def test_a_damaged_slot_is_listed_as_such(repository: Repository, storage: MemoryStorage) -> None:
    storage.put("keys/broken-00000000.json", [b"{"])
    assert [line.damaged for line in key_slots.slot_lines(storage)] == [False, True]
