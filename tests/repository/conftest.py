"""A repository in memory, and what it takes to look at it twice."""

from __future__ import annotations

import pytest

from backupd.repository.keys import Secrets
from backupd.repository.repository import create
from backupd.repository.slots import Argon2
from tests.support.memory_storage import MemoryStorage

CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)
PASSPHRASE = "correct horse"


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def secrets(storage: MemoryStorage) -> Secrets:
    return create(storage, PASSPHRASE, argon2=CHEAP)
