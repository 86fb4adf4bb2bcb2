"""Locks of what is stored never run out as long as backups run, and are renewed no more often than needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.errors import Interrupted, ObjectMissing, StorageDenied
from backupd.operations.locks import renew_locks
from backupd.operations.state import State
from backupd.storage.base import ObjectInfo
from tests.support.memory_storage import MemoryStorage

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
KEEP = 30


class Vault(MemoryStorage):
    """Locks what is stored, as a bucket does; it is `now` there."""

    def __init__(self, days: int = KEEP) -> None:
        super().__init__()
        self.now, self.days = START, days
        self.stored: dict[str, datetime] = {}
        self.ends: dict[str, datetime] = {}
        self.extended = 0
        self.denies = False

    @property
    def locks(self) -> Vault:  # type: ignore[override]
        return self

    @property
    def seconds(self) -> float:
        return self.days * 86400.0

    def add(self, name: str) -> None:
        self.put(name, [name.encode()])
        self.stored[name] = self.now
        self.ends[name] = self.now + self.days * DAY

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (info._replace(modified=self.stored[info.name].timestamp()) for info in super().list(prefix))

    def extend(self, name: str, until: datetime) -> None:
        if self.denies:
            raise StorageDenied("no right to lock", subject=name)
        if name not in self.objects:
            raise ObjectMissing("there is no such object", subject=name)
        self.extended += 1
        self.ends[name] = max(self.ends[name], until)

    def until(self, name: str) -> datetime | None:
        return self.ends[name]


@pytest.fixture
def vault() -> Vault:
    return Vault()


def renew(vault: Vault, state: State) -> int:
    report = renew_locks(vault, state, vault.now)
    if report is None:
        return 0
    assert report.until <= min(vault.ends[name] for name in vault.objects if not name.startswith("probe/"))
    return report.renewed


def test_a_storage_without_locks_has_none_to_renew(state: State) -> None:
    assert renew_locks(MemoryStorage(), state, START) is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pauses=st.lists(st.floats(0.01, 6), min_size=5, max_size=60))
def test_backups_every_now_and_then_keep_everything_locked(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[float]
) -> None:
    vault, state = Vault(), State(tmp_path_factory.mktemp("state"))
    try:
        vault.add("repository.json")
        for number, pause in enumerate(pauses):
            vault.add(f"packs/00/{number}")
            renew(vault, state)
            vault.now += pause * DAY
            assert min(vault.ends.values()) > vault.now + (KEEP / 2 - max(pauses) - 0.001) * DAY
        # Each object once in each quarter of a lock's time, at most, and once more for the first time.
        quarters = sum(pauses) / (KEEP / 4)
        assert vault.extended <= len(vault.objects) * (quarters + 2)
    finally:
        state.close()


def test_what_is_young_is_left_for_later(vault: Vault, state: State) -> None:
    vault.add("packs/00/old")
    assert renew(vault, state) == 1  # nothing is known yet
    vault.now += 7 * DAY
    vault.add("packs/00/young")
    assert renew(vault, state) == 0
    vault.now += DAY
    assert renew(vault, state) == 1
    assert vault.ends["packs/00/old"] == vault.now + KEEP * DAY


def test_a_longer_time_is_given_to_all_at_once(vault: Vault, state: State) -> None:
    vault.add("packs/00/a")
    renew(vault, state)
    vault.days = 60
    assert renew(vault, state) == 1
    assert vault.ends["packs/00/a"] == START + 60 * DAY


def test_what_is_none_of_the_repositorys_is_not_locked(vault: Vault, state: State) -> None:
    vault.add("probe/x")
    vault.add("snapshots/a/b")
    assert renew(vault, state) == 1


def test_what_goes_meanwhile_is_no_failure(vault: Vault, state: State) -> None:
    for name in ("packs/00/a", "packs/00/b"):
        vault.add(name)
    listed = list(vault.list())
    vault.list = lambda prefix="": iter(listed)  # type: ignore[method-assign]
    vault.delete("packs/00/a")
    assert renew(vault, state) == 1


def test_what_failed_or_was_stopped_is_done_by_the_next(vault: Vault, state: State) -> None:
    vault.add("packs/00/a")
    vault.denies = True
    with pytest.raises(StorageDenied):
        renew(vault, state)
    vault.denies = False
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        renew_locks(vault, state, vault.now, stop=stop)
    assert renew(vault, state) == 1
