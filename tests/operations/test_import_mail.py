"""What an import promises, and what it and a server's mail do to each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from backupd.errors import Interrupted
from backupd.operations.backup import BackupReport, backup, pull
from backupd.operations.import_mail import import_mail, plan_import
from backupd.operations.standing import kept, read
from backupd.operations.state import State
from backupd.repository.repository import Repository
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import LargeBody
from backupd.sources.local.naming import mailbox
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_pop3 import SimulatedPop3
from tests.support.simulated_store import SimulatedStore

INBOX = mailbox(["INBOX"])
Take = Callable[..., BackupReport]


def mails(count: int, *, first: int = 0) -> list[bytes]:
    return [message(f"Message {number}") for number in range(first, first + count)]


@dataclass
class Bob:
    """An account, what is on its servers and on its owner's computer."""

    repository: Repository
    state: State
    pop3: SimulatedPop3 = field(default_factory=SimulatedPop3)
    imap: SimulatedAccount = field(default_factory=SimulatedAccount)
    computer: SimulatedStore = field(default_factory=SimulatedStore)

    def pull(self) -> BackupReport:
        return pull(self.repository, self.pop3, "bob", state=self.state)

    def back_up(self) -> BackupReport:
        return backup(self.repository, self.imap, "bob", state=self.state)

    def take_in(self, **options: object) -> BackupReport:
        return import_mail(self.repository, self.computer, "bob", state=self.state, **options)  # type: ignore[arg-type]

    def mail(self) -> dict[str, list[bytes]]:
        """The newest snapshot: bodies by mailbox; empty mailboxes are left out."""
        found = contents(self.repository, newest(self.repository, "bob"))
        return {name.decode(): sorted(raw for raw, *_ in some.values()) for name, some in found.items() if some}

    def flags(self, folder: bytes) -> dict[bytes, tuple[bytes, ...]]:
        """Flags by body."""
        found = contents(self.repository, newest(self.repository, "bob"))[folder]
        return {raw: flags for raw, flags, _ in found.values()}


@pytest.fixture
def bob(repository: Repository, state: State) -> Bob:
    return Bob(repository, state)


# Import alone


def test_every_byte_flag_date_and_folder_is_in_the_snapshot(bob: Bob, repository: Repository) -> None:
    nasty = [*nasty_mail().values(), *nasty_octets().values()]
    bob.computer.put("INBOX", *nasty)
    bob.computer.put("Work/2009", *mails(3), flags=(b"$Label1", b"\\Seen"), date=b"17-Jul-1996 02:44:25 -0700")
    bob.computer.put("Empty")

    report = bob.take_in()

    assert report.complete
    assert report.new == len(nasty) + 3
    assert report.stored > 0
    assert bob.mail() == {"INBOX": sorted(nasty), "Work/2009": sorted(mails(3))}
    assert b"Empty" in contents(repository, newest(repository, "bob"))
    for _, flags, date in contents(repository, newest(repository, "bob"))[b"Work/2009"].values():
        assert (flags, date) == ((b"$Label1", b"\\Seen"), b"17-Jul-1996 02:44:25 -0700")


def test_importing_the_same_again_adds_nothing(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(3), *mails(1))  # one of them twice
    bob.take_in()

    again = bob.take_in()

    assert again.snapshot is None
    assert (again.new, again.recognised) == (0, 4)


def test_importing_again_adds_only_what_is_new(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(3))
    bob.take_in()
    bob.computer.put("INBOX", *mails(1), *mails(1, first=7))

    report = bob.take_in()

    assert (report.new, report.recognised) == (2, 3)
    assert bob.mail() == {"INBOX": sorted([*mails(3), *mails(1), *mails(1, first=7)])}


def test_what_is_no_longer_on_the_computer_stays(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(3))
    bob.take_in()
    bob.computer.folders.clear()

    assert bob.take_in().snapshot is None
    assert bob.mail() == {"INBOX": sorted(mails(3))}


def test_flags_that_changed_are_taken_over(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(2))
    bob.take_in()
    bob.computer.folders.clear()
    bob.computer.put("INBOX", mails(2)[0], flags=(b"\\Seen",))
    bob.computer.put("INBOX", mails(2)[1])

    report = bob.take_in()

    assert (report.new, report.changed) == (0, 1)
    assert bob.flags(b"INBOX") == {mails(2)[0]: (b"\\Seen",), mails(2)[1]: ()}


def test_what_was_filed_meanwhile_moves_and_is_not_doubled(bob: Bob) -> None:
    bob.computer.put("Work")
    bob.computer.put("INBOX", *mails(3))
    bob.take_in()
    bob.computer.move(mails(3)[1], "Work")

    report = bob.take_in()

    assert (report.new, report.vanished) == (1, 1)
    assert bob.mail() == {"INBOX": sorted([mails(3)[0], mails(3)[2]]), "Work": [mails(3)[1]]}


def test_copies_in_two_folders_stay_two(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(2))
    bob.computer.put("Work", *mails(2))
    bob.take_in()

    assert bob.take_in().snapshot is None
    assert bob.mail() == {"INBOX": sorted(mails(2)), "Work": sorted(mails(2))}


def test_a_message_that_cannot_be_read_is_a_problem_and_stops_nothing(bob: Bob) -> None:
    bob.computer.broken = [LocalProblem(None, "/home/bob/Inbox", "cannot be read: Permission denied")]
    bob.computer.put("INBOX", *mails(2))

    report = bob.take_in()

    assert not report.complete
    assert [problem.what for problem in report.problems] == ["/home/bob/Inbox: cannot be read: Permission denied"]
    assert bob.mail() == {"INBOX": sorted(mails(2))}


def test_a_file_that_changes_while_it_is_read_is_a_problem_of_one_message(bob: Bob) -> None:
    def changed() -> Iterator[bytes]:
        yield b"shorter now"

    bob.computer.put("INBOX", *mails(1))
    bob.computer.folders["INBOX"].append(LocalMessage((INBOX,), LargeBody(changed, 17 << 20), "/home/bob/Inbox"))
    bob.computer.put("INBOX", *mails(1, first=1))

    report = bob.take_in()

    assert [problem.what.partition(":")[0] for problem in report.problems] == ["/home/bob/Inbox"]
    assert bob.mail() == {"INBOX": sorted(mails(2))}


def test_an_interrupted_import_keeps_what_it_read_and_goes_on(bob: Bob) -> None:
    stop = threading.Event()
    bob.computer.put("INBOX", *mails(9))

    class Half(SimulatedStore):
        def messages(self):  # type: ignore[no-untyped-def]
            for number, each in enumerate(bob.computer.messages()):
                if number == 5:
                    stop.set()
                yield each

    with pytest.raises(Interrupted):
        import_mail(bob.repository, Half(), "bob", state=bob.state, stop=stop)

    report = bob.take_in()

    assert (report.new, report.recognised) == (4, 5)
    assert bob.mail() == {"INBOX": sorted(mails(9))}


def test_into_puts_everything_below_a_mailbox(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(1))
    bob.computer.put("Work/2009", *mails(2))

    bob.take_in(into="Old computer")

    assert bob.mail() == {"Old computer/INBOX": mails(1), "Old computer/Work/2009": sorted(mails(2))}


def test_a_plan_tells_and_stores_nothing(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(3))
    bob.take_in()
    bob.computer.put("Work", *mails(2, first=5))
    objects = list(bob.repository.storage.list())

    plans = plan_import(bob.repository, bob.computer, "bob")

    assert [(each.mailbox, each.messages, each.new) for each in plans] == [("INBOX", 3, 0), ("Work", 2, 2)]
    assert list(bob.repository.storage.list()) == objects


# With a POP3 account


def test_what_is_on_the_computer_already_is_not_downloaded(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(3), flags=(b"\\Seen",))
    bob.take_in()
    bob.pop3.put(*mails(5))

    report = bob.pull()

    assert (report.new, report.recognised) == (2, 3)
    assert bob.pop3.count("RETR") == 2
    assert bob.mail() == {"INBOX": sorted(mails(5))}
    assert bob.flags(b"INBOX")[mails(1)[0]] == (b"\\Seen",)


def test_the_computer_tells_the_flags_of_what_came_by_pop3(bob: Bob) -> None:
    bob.pop3.put(*mails(3))
    bob.pull()
    bob.computer.put("INBOX", *mails(2), flags=(b"\\Flagged", b"\\Seen"))

    report = bob.take_in()

    assert (report.new, report.changed) == (0, 2)
    assert bob.mail() == {"INBOX": sorted(mails(3))}
    assert bob.flags(b"INBOX") == {
        mails(3)[0]: (b"\\Flagged", b"\\Seen"), mails(3)[1]: (b"\\Flagged", b"\\Seen"), mails(3)[2]: (),
    }  # fmt: skip


@pytest.mark.parametrize("pull_first", [True, False])
def test_mail_that_was_filed_on_the_computer_is_shown_there_and_nowhere_else(bob: Bob, pull_first: bool) -> None:
    bob.pop3.put(*mails(4))
    bob.computer.put("INBOX", mails(4)[0])
    bob.computer.put("Work", *mails(4)[1:3])
    bob.computer.put("Sent", message("Sent from here"))
    for step in (bob.pull, bob.take_in) if pull_first else (bob.take_in, bob.pull):
        step()
    bob.pop3.commands.clear()

    again = bob.pull()

    expected = {
        "INBOX": sorted([mails(4)[0], mails(4)[3]]),
        "Work": sorted(mails(4)[1:3]),
        "Sent": [message("Sent from here")],
    }
    assert bob.mail() == expected
    assert again.snapshot is None
    assert bob.pop3.commands == ["UIDL", "LIST", "QUIT"]
    assert bob.take_in().snapshot is None


def test_filing_after_a_pull_and_an_import_moves(bob: Bob) -> None:
    bob.pop3.put(*mails(3))
    bob.computer.put("INBOX", *mails(3))
    bob.computer.put("Work")
    bob.pull()
    bob.take_in()
    bob.computer.move(mails(3)[0], "Work")

    bob.take_in()

    assert bob.mail() == {"INBOX": sorted(mails(3)[1:]), "Work": [mails(3)[0]]}
    assert bob.pull().snapshot is None


def test_imported_mail_stays_through_every_pull(bob: Bob) -> None:
    bob.computer.put("Sent", *mails(3))
    bob.take_in()
    bob.pop3.put(*mails(2, first=5))

    bob.pull()

    assert bob.mail() == {"INBOX": sorted(mails(2, first=5)), "Sent": sorted(mails(3))}


# With an IMAP account


def test_adopted_mail_is_not_downloaded_again(bob: Bob) -> None:
    bob.computer.put("INBOX", *mails(5))
    bob.computer.put("Work", *mails(3, first=15))
    bob.take_in()
    bob.imap.append(b"INBOX", *mails(6))
    bob.imap.create(b"Work")
    bob.imap.append(b"Work", *mails(3, first=15))

    report = bob.back_up()

    assert (report.new, report.recognised) == (1, 8)
    assert bob.mail() == {"INBOX": sorted(mails(6)), "Work": sorted(mails(3, first=15))}
    assert bob.back_up().snapshot is None


def test_imported_folders_stay_beside_those_of_the_server(bob: Bob) -> None:
    bob.imap.append(b"INBOX", *mails(2))
    bob.back_up()
    bob.computer.put("INBOX", *mails(3))
    bob.computer.put("Old", *mails(2, first=8))

    report = bob.take_in()

    expected = {
        "INBOX": sorted(mails(2)),
        "Imported/INBOX": [mails(3)[2]],
        "Old": sorted(mails(2, first=8)),
    }
    assert report.new == 3
    assert bob.mail() == expected
    assert bob.back_up().snapshot is None
    bob.imap.append(b"INBOX", *mails(1, first=20))
    assert bob.back_up().losses == []
    assert bob.mail() == expected | {"INBOX": sorted([*mails(2), *mails(1, first=20)])}
    assert bob.take_in().snapshot is None


def test_an_account_that_went_from_pop3_to_imap_keeps_everything_once(bob: Bob) -> None:
    bob.pop3.put(*mails(4))
    bob.computer.put("Work", *mails(2, first=5))
    bob.pull()
    bob.take_in()
    bob.imap.append(b"INBOX", *mails(4)[1:])  # the provider's migration has lost one
    bob.imap.create(b"Work")
    bob.imap.append(b"Work", *mails(2, first=5))

    report = bob.back_up()

    assert (report.new, report.recognised) == (0, 5)
    assert bob.mail() == {
        "INBOX": sorted(mails(4)[1:]), "Work": sorted(mails(2, first=5)), "Imported/INBOX": mails(1),
    }  # fmt: skip


def test_an_account_that_went_from_imap_to_pop3_keeps_everything_once(bob: Bob) -> None:
    bob.imap.append(b"INBOX", *mails(4))
    bob.imap.create(b"Work")
    bob.imap.append(b"Work", *mails(2, first=5))
    bob.back_up()
    bob.pop3.put(*mails(4)[1:], *mails(1, first=9))

    report = bob.pull()

    assert (report.new, report.recognised) == (1, 3)
    assert bob.mail() == {"INBOX": sorted([*mails(4), *mails(1, first=9)]), "Work": sorted(mails(2, first=5))}


@pytest.mark.parametrize("lost", [False, True], ids=["state kept", "state lost"])
def test_an_import_makes_no_account_fresher(bob: Bob, lost: bool) -> None:
    """What was read from files says nothing of what the server has."""

    def proved() -> str | None:
        if lost:
            return read(bob.repository, None, "bob")[0].proved
        return kept(bob.state)["bob"].proved

    bob.computer.put("INBOX", message("from the computer"))
    bob.take_in()
    assert proved() is None
    bob.pop3.put(message("from the server"))
    pulled = bob.pull()
    assert proved() == pulled.started
    bob.computer.put("INBOX", message("found later"))
    assert bob.take_in().snapshot
    assert bob.take_in().snapshot is None
    assert proved() == pulled.started
