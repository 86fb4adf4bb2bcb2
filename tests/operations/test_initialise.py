"""A new repository, and the page that goes into the safe."""

from __future__ import annotations

import pytest

from backupd.errors import UsageError
from backupd.operations.initialise import initialise
from backupd.repository.keys import Role
from backupd.repository.repository import describe, unlock
from backupd.repository.slots import Argon2
from tests.support.memory_storage import MemoryStorage

CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)


def test_the_passphrase_opens_it_and_the_kit_says_what_to_keep_and_how_to_restore() -> None:
    storage = MemoryStorage()
    made = initialise(storage, "correct horse", argon2=CHEAP)
    assert unlock(storage, "correct horse").role is Role.READER
    assert made.id == describe(storage).id
    for needed in (
        made.id,
        storage.url,
        "Without it every message",
        "backupd restore",
        "read_repository.py",
        "docs/format.md",
    ):
        assert needed in made.kit
    assert "correct horse" not in made.kit
    assert max(len(line) for line in made.kit.splitlines()) <= 79


def test_a_second_init_changes_nothing() -> None:
    storage = MemoryStorage()
    made = initialise(storage, "correct horse", argon2=CHEAP)
    with pytest.raises(UsageError, match="already"):
        initialise(storage, "another horse", argon2=CHEAP)
    assert describe(storage).id == made.id


def test_a_short_passphrase_makes_no_repository() -> None:
    storage = MemoryStorage()
    with pytest.raises(UsageError, match="at least 8"):
        initialise(storage, "short", argon2=CHEAP)
    assert not list(storage.list())
