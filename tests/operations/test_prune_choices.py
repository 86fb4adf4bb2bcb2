"""What a prune moves, leaves and frees when snapshots were forgotten: its options, its report, and its memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.operations.backup import backup
from backupd.operations.prune import LEAST_GRACE, PruneReport, prune
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create
from backupd.storage.local import LocalStorage
from tests.operations.conftest import CHEAP
from tests.support.aged_storage import AgedStorage
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents
from tests.support.simulated_account import SimulatedAccount

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SIZES = Sizes(block=1_000, pack=5_000)
MESSAGES = 40


@pytest.fixture
def repository(storage: MemoryStorage, secrets: Secrets) -> Iterator[Repository]:
    """Blocks of one message, packs of five."""
    with Repository(storage, secrets, sizes=SIZES) as repository:
        yield repository


@pytest.fixture
def thinned(repository: Repository, account: SimulatedAccount, state: State) -> SimulatedAccount:
    """Of each pack, one message in two is needed by no snapshot any more; of the first ones, all but one in four."""
    account.append(b"INBOX", *(message(f"Message {each}", noise(each, 800).hex()) for each in range(MESSAGES)))
    backup(repository, account, "alice", state=state, clock=lambda: NOW - 2 * DAY)
    uids = list(account.boxes[b"INBOX"].messages)
    account.expunge(b"INBOX", *(uid for uid in uids if uid % 2 or (uid < MESSAGES / 2 and uid % 4)))
    backup(repository, account, "alice", state=state, clock=lambda: NOW - DAY)
    repository.remove_snapshot(repository.refs()[0])
    return account


def pruned(repository: Repository, now: datetime = NOW, **options: object) -> PruneReport:
    return prune(repository, now=now, sizes=SIZES, fewest=100, **options)  # type: ignore[arg-type]


def octets(storage: MemoryStorage) -> int:
    return sum(len(data) for name, data in storage.objects.items() if name.startswith(names.PACKS))


def whole(storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount) -> bool:
    """Whether somebody who comes now finds the newest snapshot whole."""
    with Repository(storage, secrets) as anew:
        return contents(anew, anew.snapshot(anew.refs()[-1])) == account.contents()


def test_what_was_needed_in_part_is_moved_and_the_rest_freed_a_day_later(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage, secrets: Secrets
) -> None:
    before = octets(storage)
    first = pruned(repository, max_unused=0)
    assert first.repacked > 5
    assert first.removed == first.unused == 0
    assert 0.3 * before < first.moved < 0.6 * before
    second = pruned(repository, NOW + DAY, max_unused=0)
    assert (second.removed, second.waiting) == (first.marked, 0)
    assert octets(storage) == before - first.repacked_octets - first.unneeded_octets + first.moved + 8 * first.into
    assert octets(storage) < 0.6 * before
    assert whole(storage, secrets, thinned)


def test_no_more_is_moved_than_it_takes(thinned: SimulatedAccount, repository: Repository) -> None:
    all_of_it = pruned(repository, max_unused=0, dry_run=True)
    some = pruned(repository, max_unused=0.3, dry_run=True)
    assert 0 < some.moved < all_of_it.moved
    assert some.unused > 0
    assert not some.over
    assert pruned(repository, max_unused=10**9, dry_run=True).moved == 0


def test_no_more_is_moved_than_may_be_and_what_is_left_is_said(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage, secrets: Secrets
) -> None:
    report = pruned(repository, max_unused=0, max_repack=6_000)
    assert 0 < report.moved <= 6_000
    assert report.over
    assert report.unused > 0
    rounds = 1
    while pruned(repository, NOW + rounds * DAY, max_unused=0, max_repack=6_000).over:
        rounds += 1
    assert 2 < rounds < 10  # night after night, to the end
    assert whole(storage, secrets, thinned)


def test_a_dry_run_says_what_a_prune_does_and_changes_nothing(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage
) -> None:
    before = dict(storage.objects)
    said = pruned(repository, max_unused=0, dry_run=True)
    assert storage.objects == before
    did = pruned(repository, max_unused=0)
    for name in ("repacked", "repacked_octets", "unneeded", "unneeded_octets", "moved", "marked", "marked_octets"):
        assert getattr(said, name) == getattr(did, name), name
    before = dict(storage.objects)
    said = pruned(repository, NOW + DAY, dry_run=True)
    assert storage.objects == before
    did = pruned(repository, NOW + DAY)
    assert (said.removed, said.freed) == (did.removed, did.freed)
    assert did.freed == _but_notes(before) - _but_notes(storage.objects)


def _mark(objects: dict[str, bytes]) -> int:
    return sum(len(data) for name, data in objects.items() if name.startswith(names.MARKS))


def _but_notes(objects: dict[str, bytes]) -> int:
    """Octets of all but marks and the signed record."""
    return sum(len(data) for name, data in objects.items() if not name.startswith((names.MARKS, names.LOG)))


def test_who_is_alone_frees_at_once(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage, secrets: Secrets
) -> None:
    report = pruned(repository, max_unused=0, alone=True)
    assert report.removed > 0
    assert (report.waiting, _mark(storage.objects)) == (0, 0)
    assert pruned(repository, max_unused=0, dry_run=True).marked == 0
    assert whole(storage, secrets, thinned)


def test_a_writers_key_frees_what_a_readers_does(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage, secrets: Secrets
) -> None:
    with Repository(storage, secrets.for_role(Role.WRITER), sizes=SIZES) as writer:
        said = pruned(writer, max_unused=0, dry_run=True)
    assert said == pruned(repository, max_unused=0, dry_run=True)
    assert said.hindrances == []


def test_what_shares_a_block_with_what_is_needed_stays_and_is_told(
    repository: Repository, storage: MemoryStorage, account: SimulatedAccount, state: State
) -> None:
    uids = account.append(b"INBOX", *(message(f"Message {each}", noise(each, 100).hex()) for each in range(2)))
    backup(repository, account, "alice", state=state, clock=lambda: NOW - 2 * DAY)
    gone = len(account.boxes[b"INBOX"].messages[uids[0]].raw)
    account.expunge(b"INBOX", uids[0])
    backup(repository, account, "alice", state=state, clock=lambda: NOW - DAY)
    repository.remove_snapshot(repository.refs()[0])
    report = prune(repository, now=NOW, sizes=SIZES, fewest=2)
    assert report.packs == 2
    assert report.beside >= gone  # it moves along with what is needed, and is told then and from then on
    assert pruned(repository, NOW + DAY).beside == report.beside


def test_a_snapshot_that_cannot_be_read_keeps_everything_and_is_told(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage
) -> None:
    (ref,) = repository.refs()
    forged = f"{ref.name[:-8]}00000000"
    storage.objects[forged] = b"not a snapshot"
    report = pruned(repository, max_unused=0)
    assert report.hindrances == [f"snapshot {forged.rpartition('/')[2]} cannot be read"]
    assert (report.marked, report.moved, report.unneeded) == (0, 0, 0)


def test_an_index_that_cannot_be_read_keeps_everything_and_is_told(
    thinned: SimulatedAccount, repository: Repository, storage: MemoryStorage
) -> None:
    forged = f"{names.INDEX}{'0' * 64}"
    storage.objects[forged] = b"not an index"
    report = pruned(repository, max_unused=0)
    assert report.hindrances == [f"{forged} cannot be read"]
    assert (report.moved, report.unneeded) == (0, 0)


def test_parts_that_messages_share_stay_as_long_as_one_of_them_does(
    repository: Repository, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount, state: State
) -> None:
    file = Attachment("a.bin", noise("file", 2_000))
    first, *_ = account.append(b"INBOX", *(message(f"Message {each}", attachments=[file]) for each in range(3)))
    backup(repository, account, "alice", state=state, clock=lambda: NOW - 2 * DAY)
    account.expunge(b"INBOX", first)
    backup(repository, account, "alice", state=state, clock=lambda: NOW - DAY)
    repository.remove_snapshot(repository.refs()[0])
    with Repository(storage, secrets.for_role(Role.WRITER), sizes=SIZES) as writer:
        pruned(writer, max_unused=0, alone=True)
    assert whole(storage, secrets, account)


def test_what_a_killed_run_left_goes_after_two_days_and_not_before(tmp_path: Path, account: SimulatedAccount) -> None:
    storage = AgedStorage(tmp_path / "repository")
    storage.ages = {}
    secrets = create(storage, "a passphrase", argon2=CHEAP)
    account.append(b"INBOX", message("Message"))
    with closing(State(tmp_path / "state")) as state, Repository(storage, secrets) as repository:
        backup(repository, account, "alice", state=state)
        left = names.pack(names.sha256([b"a pack that no index tells of"]))
        storage.put(left, [b"a pack that no index tells of"])
        stored = (tmp_path / "repository" / left).stat().st_mtime
        for age, leftovers in ((timedelta(hours=47), 0), (timedelta(hours=49), 1)):
            storage.ages = {left: age}
            assert prune(repository, now=datetime.fromtimestamp(stored, UTC)).leftovers == leftovers
        later = datetime.fromtimestamp(stored, UTC) + LEAST_GRACE
        storage.ages = {names.MARKS: timedelta(hours=4)}
        assert prune(repository, now=later, grace=LEAST_GRACE).removed == 1
        assert not (tmp_path / "repository" / left).exists()


def test_no_more_of_a_pack_is_in_memory_than_is_needed_of_it(tmp_path: Path) -> None:
    """Of twenty packs of a megabyte, each needed to a fiftieth: what is moved fits into one."""
    storage, account = LocalStorage(tmp_path / "repository"), SimulatedAccount()
    secrets = create(storage, "a passphrase", argon2=CHEAP)
    sizes = Sizes(block=20_000, pack=1_000_000)
    with closing(State(tmp_path / "state")) as state, Repository(storage, secrets, sizes=sizes) as repository:
        mails = (message(f"Message {each}", noise(each, 10_000).hex()) for each in range(2_000))
        account.append(b"INBOX", *mails)
        backup(repository, account, "alice", state=state, clock=lambda: NOW - 2 * DAY)
        uids = list(account.boxes[b"INBOX"].messages)
        account.expunge(b"INBOX", *(uid for uid in uids if uid % 50))
        backup(repository, account, "alice", state=state, clock=lambda: NOW - DAY)
        repository.remove_snapshot(repository.refs()[0])
        account.boxes.clear()
        tracemalloc.start()
        try:
            report = prune(repository, now=NOW, sizes=sizes, fewest=100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert report.repacked > 15
    assert peak < 6_000_000
