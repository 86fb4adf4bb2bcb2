"""Small packs become large ones while others read and write, and every message stays where it can be found."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from backupd.errors import Interrupted, StorageUnavailable
from backupd.operations.backup import backup
from backupd.operations.copy import copy
from backupd.operations.locks import renew_locks
from backupd.operations.prune import prune
from backupd.operations.state import State
from backupd.repository import marks, mending, names
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create
from tests.operations.conftest import CHEAP, Backup
from tests.operations.test_locks import Vault
from tests.support.mail import message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RUNS = 12


def count(storage: MemoryStorage, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in storage.objects)


@pytest.fixture
def frequent(take: Backup, account: SimulatedAccount) -> None:
    """Many runs, each of which brought one message."""
    for number in range(RUNS):
        account.append(b"INBOX", message(f"Message {number}"))
        take()


def everything(repository: Repository) -> list[object]:
    return [contents(repository, repository.snapshot(ref)) for ref in repository.refs()]


def test_small_packs_of_frequent_runs_are_merged_and_removed_a_day_later(
    frequent: None, repository: Repository, storage: MemoryStorage, account: SimulatedAccount
) -> None:
    before, kept = dict(storage.objects), everything(repository)

    first = prune(repository, now=NOW)
    assert (first.packs, first.into, first.removed, first.marked) == (RUNS, 1, 0, 2 * RUNS)
    # All is there as before; of the record, in fewer objects.
    assert {item for item in before.items() if not item[0].startswith(names.LOG)} <= set(storage.objects.items())
    assert everything(repository) == kept

    too_early = prune(repository, now=NOW + DAY / 2)
    assert (too_early.removed, too_early.marked, too_early.waiting) == (0, 0, 2 * RUNS)

    second = prune(repository, now=NOW + DAY)
    assert (second.removed, second.marked, second.waiting, second.needed) == (2 * RUNS, 0, 0, [])
    assert (count(storage, names.PACKS), count(storage, names.INDEX), count(storage, names.MARKS)) == (1, 1, 0)
    assert everything(repository) == kept
    assert contents(repository, newest(repository)) == account.contents()
    assert mending.examine(repository) == (frozenset(), ())
    third = prune(repository, now=NOW + 2 * DAY)
    assert (third.packs, third.removed, third.marked) == (0, 0, 0)


def test_backups_go_on_with_what_was_merged(
    frequent: None, take: Backup, repository: Repository, account: SimulatedAccount, state: State
) -> None:
    prune(repository, now=NOW)
    account.create(b"Other")
    account.append(b"Other", message("Message 3"))  # known, by now in a pack of another name
    prune(repository, now=NOW + DAY)
    assert take().notes == []
    assert contents(repository, newest(repository)) == account.contents()


def test_a_writers_key_is_enough(frequent: None, storage: MemoryStorage, secrets: Secrets) -> None:
    with Repository(storage, secrets) as reader, Repository(storage, secrets.for_role(Role.WRITER)) as writer:
        kept = everything(reader)
        assert prune(writer, now=NOW).packs == RUNS
        assert prune(writer, now=NOW + DAY).removed == 2 * RUNS
        assert everything(reader) == kept


def test_few_small_packs_are_left_alone(take: Backup, account: SimulatedAccount, repository: Repository) -> None:
    for number in range(7):
        account.append(b"INBOX", message(f"Message {number}"))
        take()
    report = prune(repository, now=NOW)
    assert (report.packs, report.marked) == (0, 0)


def test_merged_packs_are_of_the_usual_size_and_those_are_not_touched(
    take: Backup, account: SimulatedAccount, storage: MemoryStorage, repository: Repository
) -> None:
    for number in range(20):
        account.append(b"INBOX", message(f"Message {number}", noise(number, 30_000).hex()))
        take()
    sizes = Sizes(block=10_000, pack=200_000)
    report = prune(repository, now=NOW, sizes=sizes)
    prune(repository, now=NOW + DAY, sizes=sizes)
    packs = [len(data) for name, data in storage.objects.items() if name.startswith(names.PACKS)]
    assert report.into > 1
    assert len([size for size in packs if size < 200_000]) <= 1
    assert max(packs) < 300_000
    assert prune(repository, now=NOW + 2 * DAY, sizes=sizes, fewest=2).packs == 0
    assert contents(repository, newest(repository)) == account.contents()


def test_whoever_knows_the_old_places_only_finds_the_new_ones(
    frequent: None, storage: MemoryStorage, secrets: Secrets, tmp_path: Path, account: SimulatedAccount
) -> None:
    with Repository(storage, secrets) as pruning, Repository(storage, secrets, cache=tmp_path / "cache") as reading:
        prune(pruning, now=NOW)
        prune(pruning, now=NOW + DAY)
        assert contents(reading, newest(reading)) == account.contents()


def test_whoever_reads_for_long_finds_what_was_merged_twice(
    frequent: None,
    take: Backup,
    account: SimulatedAccount,
    storage: MemoryStorage,
    secrets: Secrets,
) -> None:
    with Repository(storage, secrets) as pruning, Repository(storage, secrets) as reading:
        for days in (0, 1):
            prune(pruning, now=NOW + days * DAY)
        before = newest(reading)
        assert len(contents(reading, before)[b"INBOX"]) == RUNS
        reading._reader._blocks.clear()  # as if it had read much since then
        reading._reader._plain.clear()
        for number in range(RUNS):
            account.append(b"INBOX", message(f"Later {number}"))
            take()
        for days in (2, 3):
            prune(pruning, now=NOW + days * DAY, fewest=2)
        assert len(contents(reading, before)[b"INBOX"]) == RUNS


def test_two_that_read_at_the_same_time_both_find_the_new_places(
    frequent: None, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    with Repository(storage, secrets) as pruning, Repository(storage, secrets) as reading:
        prune(pruning, now=NOW)
        prune(pruning, now=NOW + DAY)
        found: list[object] = []
        snapshot = newest(reading)
        threads = [threading.Thread(target=lambda: found.append(contents(reading, snapshot))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [account.contents()] * 4


def test_the_same_packs_merged_by_two_machines_become_one(
    frequent: None, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    with Repository(storage, secrets) as one, Repository(storage, secrets) as other:
        prune(one, now=NOW)
        for name in [name for name in storage.objects if name.startswith(names.MARKS)]:
            mark = storage.objects.pop(name)  # as if both had begun at the same time
            prune(other, now=NOW)
            storage.objects[name] = mark
        for days in range(1, 4):
            prune(one, now=NOW + days * DAY)
            prune(other, now=NOW + days * DAY)
        assert (count(storage, names.PACKS), count(storage, names.MARKS)) == (1, 0)
        assert contents(other, newest(other)) == account.contents()


def test_a_copy_that_has_both_loses_the_small_ones_too(
    frequent: None, storage: MemoryStorage, repository: Repository, secrets: Secrets, account: SimulatedAccount
) -> None:
    second = MemoryStorage()
    second.url = "memory:second"
    copy(storage, second)
    prune(repository, now=NOW)
    prune(repository, now=NOW + DAY)
    copy(storage, second)
    with Repository(second, secrets) as there:
        report = prune(there, now=NOW)
        assert report.packs == 0  # nothing moves
        assert report.marked == RUNS + RUNS + 1  # the small packs, and all indexes, which become one
        prune(there, now=NOW + DAY)
        assert contents(there, newest(there)) == account.contents()
    assert {name for name in second.objects if name.startswith(names.PACKS)} == {
        name for name in storage.objects if name.startswith(names.PACKS)
    }


def test_a_mark_that_names_what_is_needed_removes_nothing(
    frequent: None, storage: MemoryStorage, repository: Repository
) -> None:
    before = dict(storage.objects)
    everything_there = sorted(name for name in storage.objects if name.startswith((names.PACKS, names.INDEX)))
    marks.put(storage, everything_there, "forged", NOW - 100 * DAY)
    report = prune(repository, now=NOW, fewest=100)
    assert report.removed == 0
    assert sorted(report.needed) == everything_there
    prune(repository, now=NOW + DAY, fewest=100)  # the mark goes when all who may act on it know that all of it stays
    assert storage.objects == before


@pytest.mark.parametrize("forged", [b"{}", b"", b'{"format": 2, "why": "", "objects": []}'])
def test_a_mark_that_makes_no_sense_marks_nothing(
    frequent: None, storage: MemoryStorage, repository: Repository, forged: bytes
) -> None:
    name = f"{names.MARKS}{names.snapshot_id(NOW, names.sha256([forged]))}"
    storage.objects[name] = forged
    storage.objects[f"{names.MARKS}99999999T999999999Z-00000000"] = forged
    assert marks.read(storage) == []
    assert prune(repository, now=NOW + DAY).packs == RUNS


def test_a_damaged_pack_is_not_moved_and_makes_nothing_superfluous(
    frequent: None, storage: MemoryStorage, repository: Repository
) -> None:
    damaged = next(name for name in sorted(storage.objects) if name.startswith(names.PACKS))
    storage.objects[damaged] = storage.objects[damaged][:-1] + b"?"
    report = prune(repository, now=NOW)
    assert (report.packs, report.damaged) == (RUNS - 1, [damaged])
    prune(repository, now=NOW + DAY)
    assert damaged in storage.objects
    assert count(storage, names.PACKS) == 2


def test_the_good_one_of_two_packs_with_the_same_blobs_stays(
    frequent: None, storage: MemoryStorage, repository: Repository, account: SimulatedAccount
) -> None:
    prune(repository, now=NOW)
    for name in [name for name in storage.objects if name.startswith(names.MARKS)]:
        storage.delete(name)
    merged = max((name for name in storage.objects if name.startswith(names.PACKS)), key=lambda n: len(storage.get(n)))
    storage.objects[merged] = storage.objects[merged][:-1] + b"?"
    report = prune(repository, now=NOW)
    assert (report.packs, report.damaged) == (RUNS, [merged])
    assert names.proves(merged, [storage.objects[merged]])  # the same is put together again, in its place
    prune(repository, now=NOW + DAY)
    with Repository(storage, repository.secrets) as anew:
        assert contents(anew, newest(anew)) == account.contents()


def test_it_stops_in_order_and_goes_on_the_next_time(
    frequent: None, storage: MemoryStorage, repository: Repository, account: SimulatedAccount
) -> None:
    stop = threading.Event()
    done: list[str] = []

    def observe(event: object) -> None:
        done.append(str(event))
        if len(done) == 5:
            stop.set()

    with pytest.raises(Interrupted):
        prune(repository, now=NOW, observer=observe, stop=stop)
    assert count(storage, names.MARKS) == 1
    for days in range(1, 4):
        prune(repository, now=NOW + days * DAY, fewest=2)
    assert count(storage, names.PACKS) == 1
    assert contents(repository, newest(repository)) == account.contents()


def test_what_is_locked_is_removed_when_its_lock_has_ended_and_is_not_locked_again(
    take: Backup, account: SimulatedAccount, state: State, tmp_path: Path
) -> None:
    vault = Vault(days=10)
    vault.put = _locking(vault)  # type: ignore[method-assign]
    secrets = create(vault, "a passphrase", argon2=CHEAP)
    with Repository(vault, secrets) as repository:
        for number in range(RUNS):
            account.append(b"INBOX", message(f"Message {number}"))
            backup(repository, account, "bob", state=state)
        prune(repository, now=vault.now)
        vault.now += 2 * DAY
        waiting = prune(repository, now=vault.now)
        assert (waiting.removed, waiting.waiting) == (0, 2 * RUNS)
        assert waiting.locked_until == vault.now + 8 * DAY
        renew_locks(vault, state, vault.now)
        marked = marks.objects(marks.read(vault))
        for name in (name for name in vault.objects if not name.startswith(names.MARKS)):
            assert (vault.ends[name] > vault.now + 8 * DAY) == (name not in marked), name
        vault.now += 9 * DAY
        assert prune(repository, now=vault.now).removed == 2 * RUNS
        assert contents(repository, newest(repository, "bob")) == account.contents()


def _locking(vault: Vault):  # type: ignore[no-untyped-def]
    plain = MemoryStorage.put

    def put(name: str, data):  # type: ignore[no-untyped-def]
        plain(vault, name, data)
        vault.stored.setdefault(name, vault.now)
        vault.ends.setdefault(name, vault.now + vault.days * DAY)

    return put


# -- anything may happen, in any order ---------------------------------------------------------------------------------


class Fragile(MemoryStorage):
    """Fails for good when `left` more objects have been stored or removed."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.before_put = self._tick

    def _tick(self, name: str) -> None:
        if self.left is not None:
            if self.left == 0:
                raise StorageUnavailable("the line is cut", subject=name)
            self.left -= 1

    def delete(self, name: str) -> None:
        self._tick(name)
        super().delete(name)


class Prunes(RuleBasedStateMachine):
    """Two machines back up into one repository and prune it, and are killed at any moment; time goes by in between."""

    machines = Bundle("machines")

    def __init__(self) -> None:
        super().__init__()
        self.storage = Fragile()
        self.secrets = create(self.storage, "a passphrase", argon2=CHEAP)
        self.now = NOW
        self.number = 0
        self.taken: dict[str, object] = {}

    @initialize(target=machines)
    def first(self) -> int:
        return self._machine(1)

    @initialize(target=machines)
    def second(self) -> int:
        return self._machine(2)

    def _machine(self, number: int) -> int:
        if not hasattr(self, "folder"):
            import tempfile

            self.folder = Path(tempfile.mkdtemp(prefix="prunes-"))
            self.states, self.accounts = dict[int, State](), dict[int, SimulatedAccount]()
        self.states[number] = State(self.folder / str(number))
        self.accounts[number] = SimulatedAccount()
        return number

    def _open(self, machine: int) -> Repository:
        return Repository(self.storage, self.secrets, cache=self.states[machine].path)

    @rule(machine=machines, new=st.integers(1, 3), fails=st.none() | st.integers(0, 4))
    def back_up(self, machine: int, new: int, fails: int | None) -> None:
        account, name = self.accounts[machine], f"account{machine}"
        for _ in range(new):
            self.number += 1
            account.append(b"INBOX", message(f"Message {self.number % 7}"))  # the same mail again and again
        self.storage.left = fails
        try:
            with self._open(machine) as repository:
                report = backup(repository, account, name, state=self.states[machine], clock=lambda: self.now)
        except StorageUnavailable:
            return
        finally:
            self.storage.left = None
        assert not any("lost" in note or "missing" in note for note in report.notes), report.notes
        if report.snapshot:
            self.taken[report.snapshot] = account.contents()

    @rule(machine=machines, fails=st.none() | st.integers(0, 8), fewest=st.integers(2, 4))
    def prune(self, machine: int, fails: int | None, fewest: int) -> None:
        self.storage.left = fails
        try:
            with self._open(machine) as repository:
                prune(repository, now=self.now, fewest=fewest)
        except StorageUnavailable:
            pass
        finally:
            self.storage.left = None

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @invariant()
    def every_snapshot_can_be_restored(self) -> None:
        for machine in getattr(self, "states", {}):
            with self._open(machine) as repository:
                refs = {ref.id: ref for ref in repository.refs()}
                for snapshot, mail in self.taken.items():
                    assert contents(repository, repository.snapshot(refs[snapshot])) == mail

    def teardown(self) -> None:
        import shutil

        for state in getattr(self, "states", {}).values():
            state.close()
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)


TestPrunes = Prunes.TestCase
TestPrunes.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
