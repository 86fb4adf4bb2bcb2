"""What the server has, compared with the newest snapshot: what is explained, and what is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from backupd.errors import ConnectionFailed
from backupd.operations.audit import Means, audit
from backupd.operations.audit_report import AuditReport, Level, Severity, SourceResult, Wish
from backupd.operations.audit_source import Servers
from backupd.operations.backup import pull
from backupd.operations.selection import EVERYTHING, Selection
from backupd.operations.state import State
from backupd.repository.keys import Role, Secrets
from backupd.repository.repository import Repository
from backupd.sources.base import Source
from tests.operations.conftest import Backup
from tests.support.archive import NOON
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_pop3 import SimulatedPop3

Compared = Callable[..., AuditReport]


@pytest.fixture
def compared(storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount) -> Compared:
    """compared() audits at the level of source; the server is the account of `take`."""

    def run(
        source: Source | None = None, *, role: Role = Role.READER, selection: Selection = EVERYTHING, **wish: object
    ) -> AuditReport:
        servers = Servers(lambda _: source or account, lambda _: None, lambda _: selection)
        means = Means(None, lambda: NOON + timedelta(days=365), servers=servers, chance=random.Random(1))
        return audit(
            storage,
            lambda: Repository(storage, secrets.for_role(role)),
            Wish(Level.SOURCE, {"alice": None}, **wish),  # type: ignore[arg-type]
            means,
        )

    return run


def result(report: AuditReport) -> SourceResult:
    found = report.accounts[0].source
    assert found is not None
    return found


def told(report: AuditReport) -> list[tuple[str, str]]:
    return [(each.severity.value, each.what) for each in report.findings if each.severity is not Severity.NOTE]


@pytest.fixture
def full(account: SimulatedAccount, take: Backup) -> SimulatedAccount:
    account.create(b"Work")
    account.append(b"INBOX", *(message(f"In {number}") for number in range(20)))
    account.append(b"Work", message("File", attachments=[Attachment("a", noise(1, 50_000))]), flags=(b"\\Seen",))
    take()
    return account


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER])
def test_a_server_that_agrees(full: SimulatedAccount, compared: Compared, role: Role) -> None:
    report = compared(role=role)
    assert told(report) == []
    found = result(report)
    assert (found.mailboxes, found.agreed, found.bodies, found.unexplained) == (2, 21, 21, 0)
    assert (found.new, found.gone, found.changed) == (0, 0, 0)


def test_what_changed_since_the_snapshot_is_counted(full: SimulatedAccount, compared: Compared) -> None:
    full.append(b"INBOX", message("New"), message("Newer"))
    full.expunge(b"INBOX", 1, 2, 3)
    full.flag(b"INBOX", 4, b"\\Flagged")
    full.create(b"Fresh")
    full.append(b"Fresh", message("Elsewhere"))
    report = compared()
    assert told(report) == []
    assert (result(report).new, result(report).gone, result(report).changed) == (3, 3, 1)


def test_a_message_that_the_snapshot_should_have_is_told(
    account: SimulatedAccount, take: Backup, compared: Compared
) -> None:
    account.append(b"INBOX", *(message(f"In {number}") for number in range(5)))
    hidden = account.boxes[b"INBOX"].messages.pop(3)
    take()
    account.boxes[b"INBOX"].messages[3] = hidden
    report = compared()
    assert told(report) == [("warning", "there when the snapshot was taken, and not in it: UID 3")]
    assert result(report).unexplained == 1


def test_a_message_that_could_not_be_read_is_told(account: SimulatedAccount, take: Backup, compared: Compared) -> None:
    account.append(b"INBOX", message("One"), message("Two"))
    account.unreadable[b"INBOX", 2] = "NO [UNAVAILABLE]"
    take()
    account.unreadable.clear()
    assert ("warning", "could not be read when the snapshot was taken, and not in it: UID 2") in told(compared())


def test_other_bytes_under_the_same_uid_are_critical_whatever_their_size(
    full: SimulatedAccount, compared: Compared
) -> None:
    box = full.boxes[b"INBOX"].messages
    box[3].raw = box[3].raw.replace(b"In 2", b"In X")
    for role in (Role.READER, Role.WRITER):
        assert told(compared(role=role)) == [("critical", "UID 3: the server has other bytes than the archive")]
    # With another size it is looked at even if it is in no sample.
    box[3].raw += b"more\r\n"
    assert told(compared(sample=0)) == [("critical", "UID 3: the server has other bytes than the archive")]


def test_flags_that_differ_though_nothing_changed_since_are_told(full: SimulatedAccount, compared: Compared) -> None:
    full.boxes[b"INBOX"].messages[2].flags = (b"\\Answered",)
    what = "the server has other flags, which were not changed since the snapshot, for UID 2"
    assert told(compared()) == [("warning", what)]


def test_without_condstore_nobody_can_tell_when_flags_were_changed(
    full: SimulatedAccount, compared: Compared
) -> None:
    full.condstore = False
    full.boxes[b"INBOX"].messages[2].flags = (b"\\Answered",)
    report = compared()
    assert (told(report), result(report).changed) == ([], 1)


def test_another_date_is_told_and_the_same_moment_in_another_zone_is_not(
    full: SimulatedAccount, compared: Compared
) -> None:
    full.boxes[b"INBOX"].messages[2].date = b"17-Jul-2026 00:44:25 +0000"
    full.boxes[b"INBOX"].messages[3].date = b"18-Jul-2026 02:44:25 +0200"
    assert told(compared()) == [("warning", "the server has another date of arrival for UID 3")]


def test_a_reset_mailbox_cannot_be_compared_and_is_noted(full: SimulatedAccount, compared: Compared) -> None:
    full.reset(b"INBOX")
    report = compared()
    assert told(report) == []
    assert any("UIDVALIDITY has changed" in each.what for each in report.findings)


def test_a_mailbox_that_is_gone_is_noted_and_one_that_is_left_out_is_not_looked_at(
    full: SimulatedAccount, compared: Compared
) -> None:
    full.delete(b"Work")
    report = compared()
    assert [each.what for each in report.findings] == ["gone or renamed since the snapshot, with 1 message"]
    full.create(b"Junk")
    full.append(b"Junk", message("Spam"))
    assert result(compared(selection=Selection(exclude=("Junk",)))).new == 0


def test_a_refused_mailbox_and_a_server_that_is_away_are_unknown(full: SimulatedAccount, compared: Compared) -> None:
    full.refuse_select[b"Work"] = "NO [SERVERBUG]"
    report = compared()
    assert report.outcome == "unknown"
    assert result(report).agreed == 20

    class Away(SimulatedAccount):
        def open(self) -> object:  # type: ignore[override]
            raise ConnectionFailed("connection refused", subject="mail.example.com:993")

    report = compared(Away())
    assert told(report) == [("unknown", "the server could not be asked: connection refused")]
    assert report.findings[-1].account == "alice"


def test_a_cut_connection_is_no_difference(full: SimulatedAccount, compared: Compared) -> None:
    full.deadly[b"INBOX", 5] = 1
    report = compared()
    assert (told(report), result(report).bodies) == ([], 21)


def test_a_sample_is_as_large_as_it_should_be(full: SimulatedAccount, compared: Compared) -> None:
    full.fetched.clear()
    assert result(compared(sample=7)).bodies == 7
    assert len(full.fetched) == 7


def test_nothing_is_changed_on_the_server(full: SimulatedAccount, compared: Compared) -> None:
    before = msgspec.msgpack.encode(sorted(full.contents().items()))
    compared()
    assert msgspec.msgpack.encode(sorted(full.contents().items())) == before


def test_a_pop3_account_is_compared_by_what_the_server_lists(
    repository: Repository, storage: MemoryStorage, secrets: Secrets, state: State
) -> None:
    server = SimulatedPop3()
    names = server.put(*(message(f"Message {number}") for number in range(6)))
    pull(repository, server, "alice", state=state)
    server.remove(names[0])
    server.put(message("New"))
    server.commands.clear()
    servers = Servers(lambda _: None, lambda _: server, lambda _: EVERYTHING)
    means = Means(None, lambda: NOON, servers=servers)
    wish = Wish(Level.SOURCE, {"alice": None})

    report = audit(storage, lambda: Repository(storage, secrets), wish, means)

    found = result(report)
    assert (found.agreed, found.new, found.gone, found.bodies) == (5, 1, 1, 0)
    assert server.count("RETR") == server.count("DELE") == server.count("TOP") == 0
    server.uidl = False
    report = audit(storage, lambda: Repository(storage, secrets), wish, means)
    assert any("no UIDL" in each.what for each in report.findings)
