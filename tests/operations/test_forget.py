"""Forgetting snapshots: by rules, by name, never what is held or pinned, and told snapshot by snapshot."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from backupd.errors import Damaged, Interrupted, StorageDenied, UsageError
from backupd.operations import hold
from backupd.operations.backup import backup
from backupd.operations.forget import ForgetReport, forget, forget_snapshots, rules_of
from backupd.operations.locks import renew_locks
from backupd.operations.retention import Rules
from backupd.operations.state import State
from backupd.repository import marks, names
from backupd.repository.keys import Role, Secrets
from backupd.repository.repository import Repository, create
from backupd.repository.snapshots import Loss, SnapshotRef
from tests.operations.conftest import CHEAP, Backup
from tests.operations.test_locks import Vault
from tests.support import archive
from tests.support.archive import NOON
from tests.support.config import write
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAST = {"alice": Rules(keep_last=1)}


def hourly(repository: Repository, count: int, account: str = "alice") -> list[SnapshotRef]:
    """Snapshots of as many hours, the oldest first; the newest is NOON's."""
    return [archive.put(repository, account=account, time=NOON - HOUR * age) for age in reversed(range(count))]


def there(repository: Repository) -> list[str]:
    return [ref.id for ref in repository.refs()]


def reasons(report: ForgetReport) -> dict[str, list[str]]:
    return {line.id: line.reasons for line in report.snapshots}


def test_what_no_rule_keeps_is_removed(repository: Repository) -> None:
    refs = hourly(repository, 5)
    report = forget(repository, {"alice": Rules(keep_last=2)}, now=NOON)
    assert there(repository) == [ref.id for ref in refs[3:]]
    assert (report.forgotten, report.kept, report.locked) == (3, 2, 0)
    assert reasons(report)[refs[3].id] == ["last 2"]
    assert reasons(report)[refs[0].id] == []


def test_a_dry_run_says_the_same_and_removes_nothing(repository: Repository) -> None:
    refs = hourly(repository, 5)
    dry = forget(repository, LAST, now=NOON, dry_run=True)
    assert there(repository) == [ref.id for ref in refs]
    wet = forget(repository, LAST, now=NOON)
    assert (dry.snapshots, dry.forgotten, dry.dry_run) == (wet.snapshots, wet.forgotten, True)


def test_accounts_that_are_not_asked_for_are_left_alone(repository: Repository) -> None:
    hourly(repository, 3)
    bobs = hourly(repository, 3, "bob")
    forget(repository, LAST, now=NOON)
    assert len(there(repository)) == 4
    assert set(there(repository)) > {ref.id for ref in bobs}


def test_an_account_without_rules_keeps_all_and_is_told(repository: Repository) -> None:
    hourly(repository, 3)
    report = forget(repository, {"alice": Rules()}, now=NOON)
    assert (report.forgotten, report.without_rules) == (0, ["alice"])


def test_an_accounts_own_rules_take_the_place_of_the_default(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from backupd import config

    text = """\
repository: {url: r, passphrase: x}
retention: {keep_daily: 30, keep_within: 7d}
accounts:
  alice: {imap: {host: h, username: u, password: p}}
  bob: {imap: {host: h, username: u, password: p}, retention: {keep_last: 3}}
  carol: {imap: {host: h, username: u, password: p}, retention: {}}
"""
    loaded = config.load(write(tmp_path, text))
    found = rules_of(loaded)
    assert found["alice"] == Rules(keep_daily=30, keep_within=7 * DAY)
    assert found["bob"] == Rules(keep_last=3)
    assert found["carol"].are_none
    assert rules_of(loaded, ["gone"]) == {"gone": found["alice"]}


def test_the_pinned_snapshot_and_the_one_that_tells_of_the_loss_stay_until_it_is_accepted(
    repository: Repository, state: State
) -> None:
    good, *between = hourly(repository, 3)
    tells = archive.put(repository, time=NOON + HOUR, losses=[Loss(b"INBOX", "INBOX", 100, 90, good.id)])
    newest = archive.put(repository, time=NOON + 2 * HOUR)
    report = forget(repository, LAST, state=state, now=NOON)
    assert there(repository) == [good.id, tells.id, newest.id]
    assert reasons(report)[good.id] == ["pinned by the tripwire since 2026-11-01 13:00"]
    assert reasons(report)[tells.id] == [f"tells why {good.short} is pinned"]
    assert len(between) == 2

    (accepted,) = hold.accept_loss(repository, "alice", state=state, reason="a clean-up", now=NOON)
    assert (accepted.snapshot, accepted.what) == (tells.id, ["90 of 100 messages gone from INBOX"])
    forget(repository, LAST, state=state, now=NOON)
    assert there(repository) == [newest.id]


def test_checkpoints_of_interrupted_runs_go_when_a_complete_snapshot_is_there(
    repository: Repository, state: State
) -> None:
    first = archive.put(repository, time=NOON - HOUR, checkpoint=True)
    assert forget(repository, LAST, state=state, now=NOON).forgotten == 0
    done = archive.put(repository, time=NOON)
    forget(repository, LAST, state=state, now=NOON)
    assert there(repository) == [done.id]
    assert first.id not in there(repository)


def test_backups_go_on_after_all_but_the_newest_was_forgotten(
    take: Backup, repository: Repository, account: SimulatedAccount, state: State
) -> None:
    for number in range(4):
        account.append(b"INBOX", message(f"Message {number}"))
        take()
    assert forget(repository, LAST, state=state, now=NOON + 9999 * DAY).forgotten == 3
    account.fetched.clear()
    account.append(b"INBOX", message("New"))
    report = take()
    assert (report.new, account.fetched, report.notes) == (1, [(b"INBOX", 5)], [])


# -- by name -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_that_is_named_goes_whatever_the_rules_say(repository: Repository) -> None:
    refs = hourly(repository, 3)
    report = forget_snapshots(repository, [refs[2], refs[2]], now=NOON)
    assert (report.forgotten, there(repository)) == (1, [refs[0].id, refs[1].id])


def test_one_that_is_held_stays_and_so_do_those_that_were_named_beside_it(repository: Repository) -> None:
    refs = hourly(repository, 3)
    hold.add(repository, refs[1].id, ["alice"], reason="a lawsuit", now=NOON)
    with pytest.raises(UsageError, match="a lawsuit"):
        forget_snapshots(repository, refs[:2], now=NOON)
    assert len(there(repository)) == 3


def test_a_damaged_one_stays_until_it_is_named(storage: MemoryStorage, repository: Repository) -> None:
    refs = hourly(repository, 3)
    storage.objects[refs[0].name] = b"no snapshot"
    report = forget(repository, LAST, now=NOON)
    assert reasons(report)[refs[0].id] == ["cannot be read"]
    (line,) = forget_snapshots(repository, [refs[0]], accounts=["alice"], now=NOON).snapshots
    assert (line.account, line.damaged) == ("alice", True)
    assert there(repository) == [refs[2].id]


@pytest.mark.parametrize("held", ["alice", "the snapshot"])
def test_a_hold_keeps_what_cannot_be_read_too(storage: MemoryStorage, repository: Repository, held: str) -> None:
    refs = hourly(repository, 2)
    one = hold.add(repository, refs[0].id if held != "alice" else held, ["alice"], reason="a lawsuit", now=NOON)
    storage.objects[refs[0].name] = b"no snapshot"
    with pytest.raises(UsageError, match="a lawsuit"):
        forget_snapshots(repository, [refs[0]], now=NOON)
    hold.remove(repository, one.id, now=NOON)
    forget_snapshots(repository, [refs[0]], now=NOON)
    assert there(repository) == [refs[1].id]


def test_what_another_machine_forgot_meanwhile_is_no_failure(repository: Repository) -> None:
    refs = hourly(repository, 3)
    repository.remove_snapshot(refs[0])
    assert forget_snapshots(repository, refs[:2], now=NOON).forgotten == 1
    assert there(repository) == [refs[2].id]


# -- what stands in the way --------------------------------------------------------------------------------------------


def test_as_long_as_a_hold_cannot_be_read_nothing_is_forgotten(storage: MemoryStorage, repository: Repository) -> None:
    refs = hourly(repository, 3)
    held = hold.add(repository, refs[0].id, ["alice"], reason="a lawsuit", now=NOON)
    name = names.hold(held.id)
    storage.objects[name] = storage.objects[name][:-1] + b"?"
    with pytest.raises(Damaged, match="hold"):
        forget(repository, LAST, now=NOON)
    assert len(there(repository)) == 3


def test_a_writers_key_is_enough(storage: MemoryStorage, secrets: Secrets, repository: Repository) -> None:
    hourly(repository, 3)
    with Repository(storage, secrets.for_role(Role.WRITER)) as writer:
        hold.add(writer, "alice", ["alice"], reason="all of it", now=NOON)
        assert forget(writer, LAST, now=NOON).forgotten == 0
        assert hold.listed(writer, now=NOON).holds[0].reason == "all of it"


def test_credentials_that_may_not_delete_are_told_what_they_lack(
    storage: MemoryStorage, repository: Repository
) -> None:
    hourly(repository, 3)

    def denied(name: str) -> None:
        raise StorageDenied("the service does not permit this", subject=name)

    storage.delete = denied  # type: ignore[method-assign]
    with pytest.raises(StorageDenied, match="s3-policy --role pruner"):
        forget(repository, LAST, now=NOON)


def test_it_stops_in_order_and_goes_on_the_next_time(repository: Repository) -> None:
    hourly(repository, 5)
    stop = threading.Event()
    done: list[object] = []

    def observe(event: object) -> None:
        done.append(event)
        if len(done) == 3:
            stop.set()

    with pytest.raises(Interrupted):
        forget(repository, LAST, now=NOON, observer=observe, stop=stop)
    assert len(there(repository)) == 3
    assert forget(repository, LAST, now=NOON).forgotten == 2


def test_each_snapshot_is_read_once(storage: MemoryStorage, repository: Repository, state: State) -> None:
    hourly(repository, 5)
    forget(repository, {"alice": Rules(keep_last=3)}, state=state, now=NOON)
    read: list[str] = []
    plain = storage.get

    def get(name: str, offset: int = 0, length: int | None = None) -> bytes:
        read.append(name)
        return plain(name, offset, length)

    storage.get = get  # type: ignore[method-assign]
    newest = archive.put(repository, time=NOON + HOUR)
    report = forget(repository, {"alice": Rules(keep_last=2)}, state=state, now=NOON)
    assert (report.forgotten, read) == (2, [newest.name])
    assert len(state.facts(repository.secrets.repository.hex(), "", "~")) == 2


@pytest.fixture
def vault() -> Vault:
    return Vault(days=10)


def test_what_is_locked_goes_when_its_lock_has_ended_and_is_not_locked_again(
    vault: Vault, account: SimulatedAccount, state: State
) -> None:
    plain = MemoryStorage.put

    def put(name, data):  # type: ignore[no-untyped-def]
        plain(vault, name, data)
        vault.stored.setdefault(name, vault.now)
        vault.ends.setdefault(name, vault.now + vault.days * DAY)

    vault.put = put  # type: ignore[method-assign]
    secrets = create(vault, "a passphrase", argon2=CHEAP)
    with Repository(vault, secrets) as repository:
        refs = []
        for number in range(3):
            account.append(b"INBOX", message(f"Message {number}"))
            backup(repository, account, "alice", state=state, clock=lambda: vault.now)
            vault.now += HOUR
            refs = repository.refs()
        waiting = forget(repository, LAST, now=vault.now)
        assert (waiting.forgotten, waiting.locked, len(there(repository))) == (0, 2, 3)
        assert waiting.locked_until == vault.now + 10 * DAY - 2 * HOUR
        forget(repository, LAST, now=vault.now)
        assert len(marks.read(vault)) == 1

        vault.now += 5 * DAY
        renew_locks(vault, state, vault.now)
        longer = {name for name, end in vault.ends.items() if end > vault.now + 9 * DAY}
        assert refs[2].name in longer
        assert not longer & {refs[0].name, refs[1].name}
        # Kept after all: its lock is made longer again.
        forget(repository, {"alice": Rules(keep_last=2)}, now=vault.now)
        vault.now += 3 * DAY
        renew_locks(vault, state, vault.now)
        assert vault.ends[refs[1].name] > vault.now + 9 * DAY
        assert vault.ends[refs[0].name] < vault.now + 9 * DAY

        vault.now += 3 * DAY
        assert forget(repository, LAST, now=vault.now).forgotten == 1
        assert [ref.id for ref in repository.refs()] == [refs[1].id, refs[2].id]
