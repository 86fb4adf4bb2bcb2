"""Looking whether anything is amiss costs a process that always backs up a small share of its time, and no more."""

from __future__ import annotations

from datetime import UTC, datetime

from backupd.operations.mend import mend
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository
from tests.operations.conftest import Backup
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class SlowLook:
    """A clock on which each look at the packs takes a second."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.now, self.looks, self._list = 1000.0, 0, storage.list
        storage.list = self._counted  # type: ignore[method-assign]

    def _counted(self, prefix: str = "") -> object:
        if prefix == names.PACKS:
            self.looks += 1
            self.now += 1.0
        return self._list(prefix)

    def __call__(self) -> float:
        return self.now


def test_a_look_that_takes_long_is_not_taken_with_every_run_and_still_finds_what_is_lost(
    repository: Repository, storage: MemoryStorage, state: State, take: Backup, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", message("one"))
    take()
    clock = SlowLook(storage)

    def look() -> list[str]:
        ref = repository.refs("alice")[-1]
        return mend(repository, "alice", repository.snapshot(ref), state, NOW, seconds_gone=clock).notes

    assert look() == []
    assert clock.looks == 1
    clock.now += 49
    assert look() == []
    assert clock.looks == 1

    for name in [name for name in storage.objects if name.startswith(names.PACKS)]:
        del storage.objects[name]
    clock.now += 1
    assert "has lost 1 of its messages" in "".join(look())
    assert clock.looks > 1
    looks = clock.looks
    look()  # as long as something is amiss, every run looks
    assert clock.looks > looks
