"""What a restore promises, with a target in memory. tests/test_round_trip.py has the same with real ones."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from backupd.errors import ConnectionLost, Interrupted, UsageError, WrongKey
from backupd.operations import restore as restoring
from backupd.operations.backup import backup
from backupd.operations.restore import RestoreReport, restore
from backupd.operations.state import State
from backupd.repository.keys import Role
from backupd.repository.names import pack
from backupd.repository.repository import Repository
from tests.operations.conftest import Backup
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.memory_storage import MemoryStorage
from tests.support.memory_target import FarMemoryTarget, MemoryTarget
from tests.support.simulated_account import DATE, SimulatedAccount

Restore = Callable[..., RestoreReport]


def mails(count: int) -> list[bytes]:
    return [message(f"Message {number}") for number in range(count)]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PAUSES", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def target(repository: Repository) -> MemoryTarget:
    return MemoryTarget(repository.secrets.fingerprint)


@pytest.fixture
def put_back(repository: Repository, state: State, target: MemoryTarget) -> Restore:
    """put_back() restores the newest snapshot to the target; keyword arguments go to restore()."""

    def put_back(**options: object) -> RestoreReport:
        ref = repository.refs("alice")[-1]
        return restore(repository, ref, target.open, state=state, **options)  # type: ignore[arg-type]

    return put_back


def expected(account: SimulatedAccount) -> dict[bytes, list[tuple[bytes, tuple[bytes, ...], bytes]]]:
    return {name: list(messages.values()) for name, messages in account.contents().items()}


def test_every_byte_flag_and_date_comes_back(
    take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
) -> None:
    account.append(b"INBOX", *nasty_mail().values(), *nasty_octets().values(), flags=(b"$Label1", b"\\Seen"))
    account.create(b"Empty")
    take()

    report = put_back()

    assert target.boxes == expected(account)
    assert report.problems == []


def test_a_second_restore_writes_nothing(
    take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
) -> None:
    account.append(b"INBOX", *mails(5), mails(1)[0])
    take()
    put_back()

    (inbox,) = put_back().mailboxes

    assert (inbox.present, inbox.written) == (6, 0)
    assert target.boxes == expected(account)


def test_of_two_equal_messages_the_one_that_is_missing_is_written(
    take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
) -> None:
    twice = mails(1) * 2
    account.append(b"INBOX", *twice)
    take()
    target.boxes[b"INBOX"] = [(twice[0], (), DATE)]

    assert put_back().mailboxes[0].written == 1
    assert len(target.boxes[b"INBOX"]) == 2


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
) -> None:
    account.append(b"INBOX", *mails(5))
    take()
    target.boxes[b"INBOX"] = [(mails(1)[0], (), DATE)]

    (inbox,) = put_back(dry_run=True).mailboxes

    assert (inbox.messages, inbox.present, inbox.written) == (5, 1, 0)
    assert len(target.boxes[b"INBOX"]) == 1


def test_only_the_named_mailboxes_and_an_unknown_name_is_told(
    take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
) -> None:
    account.create(b"Work")
    account.create(b"Work/Old")
    account.append(b"Work/Old", *mails(1))
    take()

    put_back(mailboxes=["Work"])

    assert set(target.boxes) == {b"Work", b"Work/Old"}
    with pytest.raises(UsageError, match="INBOX, Work"):
        put_back(mailboxes=["Wrok"])


class TestMissingOnly:
    def test_what_the_account_has_anywhere_is_left_out(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
    ) -> None:
        account.create(b"Archive")
        account.append(b"INBOX", *mails(6))
        take()
        account.move(b"INBOX", b"Archive", 1, 2)
        account.expunge(b"INBOX", 3, 4)

        report = put_back(missing_only=True, elsewhere=account)

        assert [raw for raw, _, _ in target.boxes[b"INBOX"]] == mails(6)[2:4]
        assert report.mailboxes[0].present == 4

    def test_for_files_the_newest_snapshot_says_what_the_account_has(
        self, take: Backup, account: SimulatedAccount, repository: Repository, state: State, target: MemoryTarget
    ) -> None:
        account.append(b"INBOX", *mails(6))
        take()
        account.expunge(b"INBOX", 3, 4)
        take()

        restore(repository, repository.refs("alice")[0], target.open, missing_only=True, state=state)

        assert [raw for raw, _, _ in target.boxes[b"INBOX"]] == mails(6)[2:4]


class TestTrouble:
    @pytest.mark.parametrize("batch", [1, 7])
    def test_a_lost_connection_costs_nothing_and_doubles_nothing(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget, batch: int
    ) -> None:
        account.append(b"INBOX", *mails(40))
        take()
        target.batch = batch
        target.deadly = dict.fromkeys(mails(40)[3::9], 1)

        report = put_back()

        assert Counter(target.boxes[b"INBOX"]) == Counter(expected(account)[b"INBOX"])
        assert report.problems == []

    @pytest.mark.parametrize("batch", [1, 7])
    def test_a_message_that_ends_the_connection_each_time_costs_only_itself(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget, batch: int
    ) -> None:
        account.append(b"INBOX", *mails(40))
        take()
        target.batch = batch
        target.deadly = {mails(40)[10]: 1000}

        report = put_back()

        assert [problem.uid for problem in report.problems] == [11]
        assert len(target.boxes[b"INBOX"]) == 39
        assert len(set(target.boxes[b"INBOX"])) == 39

    def test_a_server_that_stays_away_ends_it(
        self, take: Backup, account: SimulatedAccount, repository: Repository, state: State, target: MemoryTarget
    ) -> None:
        account.append(b"INBOX", *mails(10))
        take()
        target.deadly = dict.fromkeys(mails(10), 1000)
        opened = 0

        def open_target() -> MemoryTarget:
            nonlocal opened
            opened += 1
            if opened > 1:
                raise ConnectionLost("nobody answers")
            return target

        with pytest.raises(ConnectionLost):
            restore(repository, repository.refs("alice")[-1], open_target, state=state)

    def test_a_refused_message_is_reported_and_the_rest_written(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
    ) -> None:
        account.append(b"INBOX", *mails(5))
        take()
        target.refused = {mails(5)[2]}

        report = put_back()

        assert [(problem.uid, problem.what) for problem in report.problems] == [(3, "NO [TOOBIG] too large")]
        assert (report.mailboxes[0].written, report.mailboxes[0].refused) == (4, 1)

    def test_a_damaged_message_costs_only_itself(
        self, take: Backup, account: SimulatedAccount, repository: Repository, storage: MemoryStorage, state: State
    ) -> None:
        account.append(b"INBOX", *mails(3))
        take()
        account.append(b"INBOX", message("in another block"))
        take()
        where = repository.index.find(repository.secrets.content_id(mails(3)[1]))
        assert where
        name = pack(where.pack.hex())
        data = bytearray(storage.objects[name])
        data[where.offset + where.length - 20] ^= 1
        storage.objects[name] = bytes(data)
        target = MemoryTarget(repository.secrets.fingerprint)

        with Repository(storage, repository.secrets) as fresh:
            report = restore(fresh, fresh.refs("alice")[-1], target.open, state=state)

        assert [problem.uid for problem in report.problems] == [1, 2, 3]
        assert (report.mailboxes[0].unreadable, report.mailboxes[0].refused) == (3, 0)
        assert all(name in problem.what for problem in report.problems)
        assert [raw for raw, _, _ in target.boxes[b"INBOX"]] == [message("in another block")]

    def test_an_interrupted_restore_goes_on_where_it_was(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
    ) -> None:
        account.append(b"INBOX", *mails(60))
        take()
        stop = threading.Event()
        target.after_write = lambda _raw: stop.set() if len(target.boxes[b"INBOX"]) == 20 else None

        with pytest.raises(Interrupted):
            put_back(stop=stop)

        assert len(target.boxes[b"INBOX"]) < 60
        target.after_write = lambda _raw: None
        put_back()
        assert target.boxes == expected(account)

    def test_on_a_server_that_changes_headers_an_interrupted_restore_still_doubles_nothing(
        self, take: Backup, account: SimulatedAccount, put_back: Restore, target: MemoryTarget
    ) -> None:
        account.append(b"INBOX", *mails(200))
        take()
        target._rewrite = lambda raw: b"X-Received: by this server\r\n" + raw
        target.boxes[b"INBOX"] = [(b"Subject: was here before\r\n\r\n", (), DATE)]
        stop = threading.Event()
        target.after_write = lambda _raw: stop.set() if len(target.boxes[b"INBOX"]) == 101 else None
        with pytest.raises(Interrupted):
            put_back(stop=stop)

        target.after_write = lambda _raw: None
        put_back()

        assert len(target.boxes[b"INBOX"]) == 201
        assert len(set(target.boxes[b"INBOX"])) == 201


class TestFarTarget:
    """Small mailboxes go to a far target together."""

    @pytest.fixture
    def target(self, repository: Repository) -> FarMemoryTarget:
        return FarMemoryTarget(repository.secrets.fingerprint)

    @pytest.fixture
    def five(self, take: Backup, account: SimulatedAccount) -> SimulatedAccount:
        """An account of five mailboxes of five messages each, and an empty one; some messages are in two of them."""
        for number, name in enumerate((b"INBOX", b"One", b"Two", b"Three", b"Four")):
            if name != b"INBOX":
                account.create(name)
            account.append(name, *mails(number + 5)[number:], flags=(b"\\Seen",))
        account.create(b"Empty")
        take()
        return account

    def test_all_comes_back_in_one_go(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        report = put_back()

        assert target.boxes == expected(five)
        assert target.written_at_once == sum(each.written for each in report.mailboxes) == 25

    def test_a_second_restore_writes_nothing(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        put_back()
        report = put_back()

        assert target.boxes == expected(five)
        assert [(each.present, each.written) for each in report.mailboxes if each.messages] == [(5, 0)] * 5

    def test_a_mailbox_that_is_not_made_at_once_is_made_alone(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        target.unmade = frozenset({b"Two", b"Empty"})

        assert put_back().problems == []
        assert target.boxes == expected(five)
        assert target.written_at_once == 20

    def test_a_refused_message_costs_that_message_and_its_mailbox_is_named(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        target.refused = {mails(1)[0]}

        (problem,) = put_back().problems

        assert (problem.mailbox, problem.uid) == ("INBOX", 1)
        assert sum(map(len, target.boxes.values())) == 24

    @pytest.mark.parametrize("deadly", [1, 4, 7])
    def test_after_a_lost_connection_nothing_is_there_twice(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget, deadly: int
    ) -> None:
        target.deadly = {mails(8)[deadly]: 1}
        target.batch = 3

        assert put_back().problems == []
        assert {name: Counter(box) for name, box in target.boxes.items()} == {
            name: Counter(box) for name, box in expected(five).items()
        }

    def test_a_message_that_ends_every_connection_is_found(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        target.deadly = {mails(1)[0]: 100}

        (problem,) = put_back().problems

        assert (problem.mailbox, problem.uid) == ("INBOX", 1)
        assert sum(map(len, target.boxes.values())) == 24

    def test_stopped_it_goes_on_from_there(
        self, five: SimulatedAccount, put_back: Restore, target: FarMemoryTarget
    ) -> None:
        stop = threading.Event()
        target.after_write = lambda raw: stop.set() if raw == mails(7)[6] else None

        with pytest.raises(Interrupted):
            put_back(stop=stop)
        assert 0 < sum(map(len, target.boxes.values())) < 25
        put_back()

        assert {name: Counter(box) for name, box in target.boxes.items()} == {
            name: Counter(box) for name, box in expected(five).items()
        }


def test_a_writer_cannot_restore(
    take: Backup, account: SimulatedAccount, storage: MemoryStorage, repository: Repository, state: State
) -> None:
    account.append(b"INBOX", *mails(1))
    take()
    with Repository(storage, repository.secrets.for_role(Role.WRITER)) as writer:
        target = MemoryTarget(writer.secrets.fingerprint)
        with pytest.raises(WrongKey) as caught:
            restore(writer, writer.refs("alice")[-1], target.open, state=state)
    assert caught.value.exit_code == 12
    assert target.opened == 0


def test_a_writer_can_back_up_everything_a_reader_restores(
    account: SimulatedAccount, storage: MemoryStorage, repository: Repository, state: State, put_back: Restore,
    target: MemoryTarget,
) -> None:  # fmt: skip
    account.append(b"INBOX", *mails(30))
    with Repository(storage, repository.secrets.for_role(Role.WRITER)) as writer:
        backup(writer, account, "alice", state=state)
        account.append(b"INBOX", *mails(3))
        account.flag(b"INBOX", 2, b"\\Flagged")
        account.reset(b"INBOX")
        backup(writer, account, "alice", state=state)
    repository.refresh()

    put_back()

    assert target.boxes == expected(account)
