"""An empty repository in memory, a state directory, and an account in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupd.operations.backup import BackupReport, backup
from backupd.operations.state import State
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

Backup = Callable[..., BackupReport]
CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def secrets(storage: MemoryStorage) -> Secrets:
    return create(storage, "a passphrase", argon2=CHEAP)


@pytest.fixture
def repository(storage: MemoryStorage, secrets: Secrets) -> Iterator[Repository]:
    with Repository(storage, secrets) as repository:
        yield repository


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    yield state
    state.close()


@pytest.fixture
def account() -> SimulatedAccount:
    return SimulatedAccount()


@pytest.fixture
def take(repository: Repository, state: State, account: SimulatedAccount) -> Backup:
    """take() makes a backup of the account; keyword arguments go to backup()."""

    def take(**options: object) -> BackupReport:
        return backup(repository, account, "alice", state=state, **options)  # type: ignore[arg-type]

    return take
