"""What a backup promises, on an account in memory. tests/test_round_trip.py has the same on a real server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backupd.errors import Busy, ConnectionLost, Interrupted, StorageDenied
from backupd.operations import session_pool
from backupd.operations.backup import backup
from backupd.operations.messages import MessageStore
from backupd.operations.selection import Selection
from backupd.operations.state import State
from backupd.operations.state_files import account_lock
from backupd.repository import mending, runs, segments
from backupd.repository.keys import Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from tests.operations.conftest import Backup
from tests.support.mail import Attachment, message, nasty_mail, nasty_octets, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount


def mails(count: int, *, first: int = 0) -> list[bytes]:
    return [message(f"Message {number}") for number in range(first, first + count)]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pool, "PAUSES", (0.0, 0.0, 0.0, 0.0))


def test_every_byte_flag_and_date_of_an_account_is_in_the_snapshot(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    account.append(b"INBOX", *nasty_mail().values(), *nasty_octets().values(), flags=(b"\\Seen", b"$Label1"))
    account.create(b"Archive/2026")
    account.append(b"Archive/2026", *mails(5), date=b" 1-Jan-2020 00:00:00 +0000")

    report = take()

    assert report.complete
    assert report.new == report.messages
    assert report.stored > 0
    assert contents(repository, newest(repository)) == account.contents()


def test_a_run_that_finds_nothing_changed_stores_nothing(
    take: Backup, account: SimulatedAccount, repository: Repository, state: State
) -> None:
    account.append(b"INBOX", *mails(3))
    first = take()
    objects = list(repository.storage.list())

    second = take()

    assert second.snapshot is None
    assert second.parent == first.snapshot
    assert list(repository.storage.list()) == objects
    assert [run.outcome for run in state.runs("alice")] == ["unchanged", "stored"]


def test_an_unchanged_mailbox_is_not_selected(take: Backup, account: SimulatedAccount) -> None:
    account.create(b"Quiet")
    account.append(b"Quiet", *mails(3))
    account.append(b"INBOX", *mails(1, first=10))
    take()
    account.append(b"INBOX", *mails(1, first=11))
    account.selected.clear()

    take()

    assert account.selected == [b"INBOX"]


@pytest.mark.parametrize("condstore", [True, False])
def test_only_what_is_new_is_fetched(repository: Repository, state: State, condstore: bool) -> None:
    account = SimulatedAccount(condstore=condstore)
    account.append(b"INBOX", *mails(20))
    backup(repository, account, "alice", state=state)
    account.fetched.clear()
    (new,) = account.append(b"INBOX", message("New"))
    account.flag(b"INBOX", 3, b"\\Flagged")
    account.expunge(b"INBOX", 7)

    report = backup(repository, account, "alice", state=state)

    assert account.fetched == [(b"INBOX", new)]
    assert (report.new, report.changed, report.vanished) == (1, 1, 1)
    assert contents(repository, newest(repository)) == account.contents()


def test_a_message_expunged_on_the_server_stays_restorable(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    account.append(b"INBOX", *mails(4))
    take()
    then = account.contents()
    account.expunge(b"INBOX", 1, 2)
    take()

    first, second = (repository.snapshot(ref) for ref in repository.refs("alice"))
    assert contents(repository, first) == then
    assert contents(repository, second) == account.contents()
    assert second.parent == repository.refs("alice")[0].id


@pytest.mark.parametrize("server_ids", [True, False])
@pytest.mark.parametrize("first_uid", [1, 5000])
def test_a_uidvalidity_reset_downloads_nothing_again(
    repository: Repository, state: State, server_ids: bool, first_uid: int
) -> None:
    account = SimulatedAccount(server_ids=server_ids)
    account.append(b"INBOX", *mails(30))
    backup(repository, account, "alice", state=state)
    account.fetched.clear()
    account.reset(b"INBOX", first_uid=first_uid)

    report = backup(repository, account, "alice", state=state)

    assert account.fetched == []
    assert report.recognised == 30
    assert report.losses == []
    assert "UIDVALIDITY" in report.notes[0]
    assert contents(repository, newest(repository)) == account.contents()


@pytest.mark.parametrize("server_ids", [True, False])
def test_moved_messages_and_renamed_mailboxes_are_not_downloaded_again_and_are_no_loss(
    repository: Repository, state: State, server_ids: bool
) -> None:
    account = SimulatedAccount(server_ids=server_ids)
    account.create(b"Projects")
    account.append(b"Projects", *mails(20))
    account.append(b"INBOX", *mails(20, first=20))
    account.create(b"Archive")
    backup(repository, account, "alice", state=state)
    account.fetched.clear()
    account.rename(b"Projects", b"Old projects")
    account.move(b"INBOX", b"Archive", *range(1, 19))

    report = backup(repository, account, "alice", state=state)

    assert account.fetched == []
    assert report.losses == []
    assert contents(repository, newest(repository)) == account.contents()


def test_equal_headers_over_different_bodies_are_never_taken_for_one_message(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    header = b"Subject: same\r\n\r\n"
    account.append(b"INBOX", header + b"one\r\n", header + b"two\r\n")
    take()
    account.reset(b"INBOX")
    account.fetched.clear()

    take()

    assert len(account.fetched) == 2
    assert contents(repository, newest(repository)) == account.contents()


def test_uids_that_start_again_without_a_new_uidvalidity_are_noticed(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    account.append(b"INBOX", *mails(5))
    take()
    uidvalidity = account.boxes[b"INBOX"].uidvalidity
    account.delete(b"INBOX")
    account.create(b"INBOX")
    account.boxes[b"INBOX"].uidvalidity = uidvalidity
    account.append(b"INBOX", *mails(3, first=100))

    take()

    assert contents(repository, newest(repository)) == account.contents()


class TestProblems:
    def test_a_message_the_server_cannot_give_is_reported_and_tried_again(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.append(b"INBOX", *mails(5))
        account.unreadable[b"INBOX", 3] = "NO [UNAVAILABLE] backend"

        report = take()

        assert not report.complete
        assert [(problem.mailbox, problem.uid) for problem in report.problems] == [("INBOX", 3)]
        assert newest(repository).mailboxes[0].missing == [3]
        assert take().snapshot is None
        account.unreadable.clear()
        assert take().complete
        assert contents(repository, newest(repository)) == account.contents()

    def test_a_message_that_kills_the_connection_costs_only_itself(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.append(b"INBOX", *mails(9))
        account.deadly[b"INBOX", 4] = 1000

        report = take()

        assert [problem.uid for problem in report.problems] == [4]
        stored = contents(repository, newest(repository))[b"INBOX"]
        assert sorted(stored) == [1, 2, 3, 5, 6, 7, 8, 9]

    def test_a_connection_cut_now_and_then_costs_nothing(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.append(b"INBOX", *mails(300))
        account.deadly.update({(b"INBOX", uid): 1 for uid in range(5, 300, 23)})

        assert take().complete
        assert contents(repository, newest(repository)) == account.contents()
        assert len(account.fetched) == 300

    def test_a_mailbox_that_cannot_be_opened_keeps_what_was_known_of_it(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.create(b"Shared")
        account.append(b"Shared", *mails(12))
        take()
        before = account.contents()
        account.append(b"Shared", message("unseen"))
        account.append(b"INBOX", message("seen"))
        account.refuse_select[b"Shared"] = "NO permission denied"

        report = take()

        assert [problem.uid for problem in report.problems] == [None]
        now = contents(repository, newest(repository))
        assert now[b"Shared"] == before[b"Shared"]
        assert now[b"INBOX"] == account.contents()[b"INBOX"]
        account.refuse_select.clear()
        assert take().complete
        assert contents(repository, newest(repository)) == account.contents()

    def test_a_message_expunged_while_it_is_fetched_is_no_problem(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.append(b"INBOX", *mails(3))
        account.before_fetch = lambda: account.boxes[b"INBOX"].messages.pop(2, None)  # type: ignore[assignment, return-value]

        assert take().complete
        assert contents(repository, newest(repository)) == account.contents()


class TestSuddenLoss:
    def test_it_is_recorded_and_pins_the_last_good_snapshot(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        account.append(b"INBOX", *mails(20))
        good = take().snapshot
        account.expunge(b"INBOX", *range(1, 9))

        report = take()

        (loss,) = report.losses
        assert (loss.name, loss.before, loss.gone, loss.pinned) == ("INBOX", 20, 8, good)
        assert newest(repository).losses == [loss]

    def test_a_mailbox_that_vanishes_is_one(self, take: Backup, account: SimulatedAccount) -> None:
        account.create(b"Projects")
        account.append(b"Projects", *mails(15))
        take()
        account.delete(b"Projects")

        assert [(loss.name, loss.gone) for loss in take().losses] == [("Projects", 15)]

    def test_a_server_that_suddenly_shows_nothing_is_one(
        self, take: Backup, account: SimulatedAccount, repository: Repository
    ) -> None:
        for name in (b"A", b"B"):
            account.create(name)
            account.append(name, *mails(15))
        then = account.contents()
        take()
        account.boxes.clear()

        report = take()

        assert {loss.mailbox for loss in report.losses} == {b"A", b"B", None}
        assert contents(repository, repository.snapshot(repository.refs("alice")[0])) == then

    def test_a_daily_tidying_is_none(self, take: Backup, account: SimulatedAccount) -> None:
        account.append(b"INBOX", *mails(30))
        take()
        account.expunge(b"INBOX", *range(1, 11))

        assert take().losses == []

    def test_messages_that_another_mailbox_holds_too_are_none(
        self, take: Backup, account: SimulatedAccount
    ) -> None:
        account.create(b"All mail")
        account.append(b"All mail", *mails(20))
        account.append(b"INBOX", *mails(20))
        take()
        account.expunge(b"INBOX", *range(1, 21))

        assert take().losses == []


class TestInterruption:
    def test_what_was_read_is_kept_and_the_next_run_goes_on(
        self, take: Backup, account: SimulatedAccount, repository: Repository, state: State
    ) -> None:
        account.append(b"INBOX", *mails(600))
        stop = threading.Event()
        account.on_message = lambda _name, _uid: stop.set() if len(account.fetched) >= 300 else None

        with pytest.raises(Interrupted):
            take(stop=stop)

        assert newest(repository).checkpoint
        assert state.runs("alice")[0].outcome == "interrupted"
        done = len(account.fetched)
        account.on_message = lambda _name, _uid: None

        assert take().complete
        assert len(account.fetched) - done <= 600 - 290
        assert contents(repository, newest(repository)) == account.contents()

    def test_a_server_that_stays_away_leaves_a_checkpoint(
        self, take: Backup, account: SimulatedAccount, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account.append(b"INBOX", *mails(600))

        def fail(_name: bytes, _uid: int) -> None:
            if len(account.fetched) >= 300:
                raise ConnectionLost("the server is gone")

        account.on_message = fail
        monkeypatch.setattr("backupd.operations.chunk.STRIKES", 100)

        with pytest.raises(ConnectionLost):
            take()

        account.on_message = lambda _name, _uid: None
        assert take().complete
        assert contents(repository, newest(repository)) == account.contents()

    def test_checkpoints_are_written_while_a_long_run_goes_on_and_removed_at_its_end(
        self, take: Backup, account: SimulatedAccount, repository: Repository, storage: MemoryStorage
    ) -> None:
        account.append(b"INBOX", *mails(900))
        written: list[str] = []
        storage.before_put = written.append

        report = take(checkpoint_seconds=0.0)

        assert len([name for name in written if name.startswith("snapshots/")]) > 1
        assert [ref.id for ref in repository.refs("alice")] == [report.snapshot]

    def test_a_writer_that_cannot_remove_leaves_its_checkpoints_and_completes(
        self,
        take: Backup,
        account: SimulatedAccount,
        repository: Repository,
        storage: MemoryStorage,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(name: str) -> None:
            raise StorageDenied("not permitted", subject=name)

        monkeypatch.setattr(storage, "delete", refuse)
        account.append(b"INBOX", *mails(900))

        report = take(checkpoint_seconds=0.0)

        assert report.complete
        *checkpoints, last = [repository.snapshot(ref) for ref in repository.refs("alice")]
        assert len(checkpoints) > 1
        assert all(each.checkpoint for each in checkpoints)
        assert (last.checkpoint, last.messages) == (False, 900)
        assert take().snapshot is None
        assert contents(repository, newest(repository)) == account.contents()

    def test_a_second_backup_of_the_same_account_is_told_that_one_is_running(
        self, take: Backup, state: State, tmp_path: Path
    ) -> None:
        with account_lock(tmp_path / "state", "alice"), pytest.raises(Busy) as caught:
            take()
        assert caught.value.exit_code == 11


def test_mailboxes_can_be_included_and_excluded(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    for name in (b"Junk", b"Junk/Old", b"Work", b"Junkyard"):
        account.create(name)
        account.append(name, *mails(1))

    take(selection=Selection(exclude=("Junk",)))

    assert [record.mailbox.name for record in newest(repository).mailboxes] == ["INBOX", "Work", "Junkyard"]


def test_a_clock_that_went_back_does_not_hide_the_newest_snapshot(
    take: Backup, account: SimulatedAccount, repository: Repository
) -> None:
    from datetime import UTC, datetime

    account.append(b"INBOX", *mails(1))
    take(clock=lambda: datetime(2030, 1, 1, tzinfo=UTC))
    account.append(b"INBOX", *mails(1, first=1))
    second = take(clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    assert repository.refs("alice")[-1].id == second.snapshot


def test_thousands_of_messages_with_long_attachment_names_fit_several_runs_of_envelopes(
    account: SimulatedAccount, take: Backup, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupd.operations.taking._RUN_OCTETS", 5_000)
    account.append(b"INBOX", *(message("s" * 900, attachments=[Attachment(f"{n}" * 80, b"x")]) for n in range(40)))
    take()
    record = newest(repository).mailboxes[0]
    rows = [row for segment in record.segments for row, _ in segments.read(repository, segment)]
    assert len({row.envelopes for row in rows}) > 5
    for number, row in enumerate(rows):
        run = runs.decode_envelopes(repository.get_run(row.envelopes, BlobKind.ENVELOPES), "x")
        assert f"{number}" * 80 in run[row.envelope].attachments[0].decode()


class TestSeveralAccountsAtOnceOnOneRepository:
    def test_each_snapshot_has_its_own_account(self, repository: Repository, state: State) -> None:
        shared = [message(f"To all {n}", attachments=[Attachment("report.pdf", noise(n, 50_000))]) for n in range(20)]
        accounts = {f"person-{n}": SimulatedAccount() for n in range(4)}
        for number, account in enumerate(accounts.values()):
            account.append(b"INBOX", *shared, *mails(300, first=1000 * number))

        with ThreadPoolExecutor(4) as pool:
            reports = list(pool.map(lambda name: backup(repository, accounts[name], name, state=state), accounts))

        assert all(report.complete for report in reports)
        assert not any(report.notes for report in reports)
        for name, account in accounts.items():
            assert contents(repository, newest(repository, name)) == account.contents()

    def test_packs_that_one_is_storing_are_nothing_that_another_must_make_up_for(
        self, storage: MemoryStorage, secrets: Secrets
    ) -> None:
        with Repository(storage, secrets, sizes=Sizes(block=1000, pack=3000)) as repository:
            store = MessageStore(repository)
            for mail in (message(f"{n}", noise(n, 2000).hex().encode()) for n in range(20)):
                store.store(mail)
            while not list(storage.list("packs/")):
                store.store(message("One more", noise(99, 2000).hex().encode()))
            assert not mending.examine(repository).unindexed
            repository.flush()
            assert not mending.examine(repository).unindexed
            assert not mending.examine(repository).lost
