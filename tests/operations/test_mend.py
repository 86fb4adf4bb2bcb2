"""What a run looks up in the repository before it trusts it, where every request costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from backupd.operations.mend import mend
from backupd.operations.state import State
from backupd.repository import mending, names
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository
from backupd.storage.base import ObjectInfo, Requests
from tests.operations.conftest import Backup
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount


class Bucket(MemoryStorage):
    """Charges for requests, remembers which listings were asked for, and says when objects were stored."""

    requests = Requests()

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []
        self.stored = time.time()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.listed.append(prefix)
        return (info._replace(modified=self.stored) for info in super().list(prefix))


@pytest.fixture
def storage() -> Bucket:
    return Bucket()


def test_packs_are_listed_twice_a_day_and_not_with_every_run(
    take: Backup, account: SimulatedAccount, repository: Repository, storage: Bucket, state: State
) -> None:
    account.append(b"INBOX", message("One"))
    take()
    storage.listed.clear()
    puts = storage.puts
    assert take().snapshot is None
    assert names.PACKS not in storage.listed
    assert storage.puts == puts

    mend(repository, "alice", None, state, datetime.now(UTC) + timedelta(hours=13))
    assert names.PACKS in storage.listed


def test_a_lost_pack_is_found_by_the_next_listing_and_its_mail_is_stored_again(
    take: Backup, account: SimulatedAccount, repository: Repository, storage: Bucket, state: State
) -> None:
    account.append(b"INBOX", *(message(f"Message {number}") for number in range(3)))
    take()
    for info in list(storage.list(names.PACKS)):
        storage.delete(info.name)
    state.found_sound(storage.url, time.time() - 13 * 3600)  # as if it had been that long

    assert take().new == 3

    assert state.sound_since(storage.url) is None  # so the next run looks again
    assert contents(repository, newest(repository)) == account.contents()


def test_what_another_machine_is_storing_is_left_to_it(
    take: Backup, account: SimulatedAccount, repository: Repository, storage: Bucket, secrets: Secrets
) -> None:
    account.append(b"INBOX", message("One"))
    take()
    for info in list(storage.list(names.INDEX)):  # as another machine's packs are before it has indexed them
        storage.delete(info.name)
    with Repository(storage, secrets) as other:
        before = time.time() - 60
        assert mending.examine(other, stored_before=before).unindexed == ()
        storage.stored = before - 1
        assert len(mending.examine(other, stored_before=before).unindexed) == 1
        assert len(mending.examine(other).unindexed) == 1
