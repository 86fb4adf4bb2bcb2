"""What a backup of a POP3 account promises, on an account in memory. tests/cli/test_pop3.py has it on a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from backupd.errors import ConnectionFailed, ConnectionLost, Interrupted, LoginRefused, StorageFull
from backupd.operations import pull as pull_module
from backupd.operations.backup import BackupReport, pull
from backupd.operations.chunk import STALLS, STRIKES
from backupd.operations.state import State
from backupd.repository import segments
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository
from backupd.sources.pop3.source import Pop3Source
from backupd.wire.pop3_settings import Pop3Settings
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.scripted_pop3 import CAPABILITIES, PASSWORD, USER, Scripted, ScriptedPop3
from tests.support.simulated_pop3 import Session, SimulatedPop3

Pull = Callable[..., BackupReport]
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=10)
        return self.now


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_module, "PAUSES", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def server() -> SimulatedPop3:
    return SimulatedPop3()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def take(repository: Repository, state: State, server: SimulatedPop3, clock: Clock) -> Pull:
    def take(**options: object) -> BackupReport:
        return pull(repository, server, "bob", state=state, clock=clock, **options)  # type: ignore[arg-type]

    return take


def mails(count: int, *, first: int = 0) -> list[bytes]:
    return [message(f"Message {number}") for number in range(first, first + count)]


def bodies(repository: Repository) -> list[bytes]:
    """All messages of the newest snapshot's INBOX."""
    return sorted(raw for raw, *_ in contents(repository, newest(repository, "bob"))[b"INBOX"].values())


def gone(repository: Repository) -> list[int]:
    """UIDs that the newest snapshot marks as gone from the server."""
    return [
        state.uid
        for record in newest(repository, "bob").mailboxes
        for segment in record.segments
        for _, state in segments.read(repository, segment)
        if state.gone
    ]


def test_every_byte_of_the_maildrop_is_in_the_snapshot(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    sent = [*nasty_mail().values(), *nasty_octets().values(), *mails(20)]
    server.put(*sent)

    report = take()

    assert report.complete
    assert report.new == len(sent)
    assert report.stored > 0
    assert bodies(repository) == sorted(sent)


def test_two_messages_that_are_equal_are_two(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    server.put(*mails(1), *mails(1))

    take()
    second = take()

    assert bodies(repository) == mails(1) * 2
    assert second.snapshot is None


def test_nothing_new_costs_one_listing_and_stores_nothing(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(*mails(5))
    take()
    objects = list(repository.storage.list())
    server.commands.clear()

    report = take()

    assert report.snapshot is None
    assert server.commands == ["UIDL", "LIST", "QUIT"]
    assert list(repository.storage.list()) == objects


def test_an_unchanged_listing_is_believed_only_beside_the_snapshot_it_was_of(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(*mails(3))
    take()
    repository.remove_snapshot(repository.refs("bob")[-1])

    assert take().new == 3
    assert bodies(repository) == sorted(mails(3))


def test_only_what_is_new_is_downloaded(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    server.put(*mails(5))
    take()
    server.commands.clear()
    server.put(*mails(2, first=5))

    report = take()

    assert (report.new, server.count("RETR")) == (2, 2)
    assert bodies(repository) == sorted(mails(7))


def test_what_the_server_no_longer_has_stays_and_is_marked_as_gone(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(5))
    take()
    server.remove(*names[1:3])

    report = take()
    again = take()

    assert report.vanished == 2
    assert bodies(repository) == sorted(mails(5))
    assert gone(repository) == [2, 3]
    assert again.snapshot is None


def test_what_comes_back_is_not_gone_any_more(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    server.put(*mails(5))
    take()
    kept, server.mail = server.mail, []
    empty = take()
    server.mail = kept
    server.commands.clear()

    take()

    assert empty.vanished == 5
    assert any("lists no message" in note for note in empty.notes)
    assert gone(repository) == []
    assert server.count("RETR") == 0


def test_other_uidls_after_a_migration_cost_headers_only(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(*mails(5))
    take()
    server.rename()
    server.commands.clear()

    report = take()
    again = take()

    assert (report.new, report.recognised, report.vanished) == (0, 5, 0)
    assert (server.count("TOP"), server.count("RETR")) == (5, 0)
    assert bodies(repository) == sorted(mails(5))
    assert gone(repository) == []
    assert again.snapshot is None


def test_without_top_a_migration_costs_downloads_and_still_no_duplicates(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.top = False
    server.put(*mails(5))
    take()
    server.rename()

    report = take()

    assert (report.new, report.recognised) == (0, 5)
    assert bodies(repository) == sorted(mails(5))


def test_a_uidl_that_is_given_to_another_message_hides_nothing(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(*mails(2))
    take()
    name = server.mail[1][0]
    other = message("Something else, and longer", size=500)
    server.mail[1] = (name, other)

    report = take()

    assert report.new == 1
    assert bodies(repository) == sorted([*mails(2), other])
    assert gone(repository) == [2]


def test_without_uidl_messages_are_told_apart_by_their_headers(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.uidl = False
    server.put(*mails(5))
    take()
    server.commands.clear()
    server.mail.pop(0)
    server.put(*mails(1, first=9))

    report = take()
    again = take()

    assert (report.new, server.count("RETR")) == (1, 1)
    assert bodies(repository) == sorted([*mails(5), *mails(1, first=9)])
    assert gone(repository) == [1]
    assert again.snapshot is None


def test_without_uidl_and_top_everything_is_read_and_nothing_stored_twice(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.uidl = server.top = False
    server.put(*mails(5), *mails(1))
    take()

    again = take()

    assert again.snapshot is None
    assert bodies(repository) == sorted([*mails(5), *mails(1)])


def test_headers_without_a_message_id_do_not_prove_that_two_messages_are_one(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(b"Subject: report\r\n\r\nall is well\r\n")
    take()
    server.mail = []
    server.put(b"Subject: report\r\n\r\nfire! fire\r\n")

    report = take()

    assert report.new == 1
    assert bodies(repository) == [b"Subject: report\r\n\r\nall is well\r\n", b"Subject: report\r\n\r\nfire! fire\r\n"]


def test_equal_uidls_are_no_identity(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    same_size = [message(f"Message {number}") for number in range(3)]
    server.mail = [(b"same", raw) for raw in same_size]
    take()

    again = take()

    assert again.snapshot is None
    assert bodies(repository) == sorted(same_size)


def test_wrong_sizes_do_no_harm(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    server.wrong_size = lambda raw: -1
    server.put(*mails(5))
    take()
    server.commands.clear()
    again = take()
    asked = server.count("RETR")
    server.rename()

    late = take()

    assert again.snapshot is None
    assert asked == 0
    assert (late.new, late.recognised) == (0, 5)  # by content: without a size, a header proves little
    assert bodies(repository) == sorted(mails(5))


def test_a_message_that_is_refused_stops_nothing_and_is_asked_for_again(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(5))
    server.refused[names[2]] = "-ERR [SYS/PERM] cannot be read"

    first = take()
    server.refused.clear()
    second = take()

    assert [problem.what for problem in first.problems] == [
        "message 3 (UIDL 00000003): -ERR [SYS/PERM] cannot be read"
    ]
    assert not first.complete
    assert second.complete
    assert bodies(repository) == sorted(mails(5))


def test_a_connection_that_breaks_is_made_again_and_goes_on(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(5))
    server.deadly = {names[1]: 1, names[3]: 2}

    report = take()

    assert report.complete
    assert report.new == 5
    assert bodies(repository) == sorted(mails(5))


def test_a_message_that_always_breaks_the_connection_is_left_out(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(5))
    server.deadly = {names[1]: 1000}

    report = take()

    assert len(report.problems) == 1
    assert "failed 3 times" in report.problems[0].what
    assert len(bodies(repository)) == 4


def test_a_server_that_stalls_at_every_message_ends_the_run_and_what_was_read_is_kept(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(30))
    server.deadly, server.stalls = dict.fromkeys(names[10:], 1000), True

    with pytest.raises(ConnectionLost):
        take()

    given_up = sum(server.deadly[name] == 1000 - STRIKES for name in names[10:])
    assert STALLS <= given_up <= STALLS + 1
    assert newest(repository, "bob").checkpoint
    server.deadly = {}
    assert take().new == 20


def test_a_mailbox_in_use_is_tried_again(take: Pull, server: SimulatedPop3) -> None:
    server.put(*mails(1))
    server.in_use = 3

    assert take().new == 1


def test_a_server_that_asks_for_a_pause_gets_it(take: Pull, server: SimulatedPop3) -> None:
    server.put(*mails(1))
    server.in_use, server.pause = 1, 0.2

    assert take().new == 1

    server.in_use, server.pause = 1, 86400.0
    with pytest.raises(ConnectionFailed):
        take()


def test_a_mailbox_that_stays_in_use_fails_the_run(take: Pull, server: SimulatedPop3, state: State) -> None:
    server.in_use = 1000

    with pytest.raises(ConnectionFailed, match="in use"):
        take()

    assert state.runs("bob")[0].outcome == "failed"


def test_an_interrupted_pull_goes_on_where_it_was(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    names = server.put(*mails(10))
    stop = threading.Event()
    server.on_message = lambda name: stop.set() if name == names[6] else None
    with pytest.raises(Interrupted):
        take(stop=stop)
    server.on_message = lambda name: None
    server.commands.clear()

    report = take()

    assert server.count("RETR") == report.new < 5
    assert bodies(repository) == sorted(mails(10))


@pytest.mark.parametrize("capabilities", [CAPABILITIES, ("TOP", "UIDL")], ids=["pipelined", "one by one"])
def test_a_pull_that_is_stopped_among_headers_takes_none_for_a_message(
    repository: Repository, state: State, capabilities: tuple[str, ...]
) -> None:
    old, fresh = mails(30), message("New", "a body that is in no header\r\n")
    script = Scripted(mail=[(b"a%d" % number, raw) for number, raw in enumerate(old)], capabilities=capabilities)
    stop = threading.Event()
    with ScriptedPop3(script) as server:
        source = Pop3Source(Pop3Settings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=10))
        pull(repository, source, "bob", state=state)
        script.mail = [(b"new", fresh), *((b"b%d" % number, raw) for number, raw in enumerate(old))]
        script.before = lambda line: stop.set() if line.startswith(b"TOP 5 ") else None
        with pytest.raises(Interrupted):
            pull(repository, source, "bob", state=state, stop=stop)

        assert pull(repository, source, "bob", state=state).complete

    assert bodies(repository) == sorted([*old, fresh])


def test_no_dele_is_ever_sent_without_delete_after(take: Pull, server: SimulatedPop3) -> None:
    names = server.put(*mails(5))
    server.deadly = {names[3]: 2}
    server.refused[names[4]] = "-ERR no"
    take()
    server.rename()
    take()

    assert server.count("DELE") == 0


@pytest.mark.parametrize("host", ["pop.example.com", "pop.gmail.com"])
def test_what_was_read_is_in_a_snapshot_before_the_session_ends(
    take: Pull, server: SimulatedPop3, repository: Repository, host: str
) -> None:
    """Some servers remove, when a session ends, what was read in it, or never show it again."""
    server.host = host
    server.put(*mails(3))
    kept: list[list[bytes]] = []

    def removes() -> None:
        kept.append(bodies(repository))
        server.mail = mails_of_the_next_session.pop() if mails_of_the_next_session else []

    mails_of_the_next_session = [[(b"%d" % n, raw) for n, raw in enumerate(mails(2, first=3))]]
    server.on_quit = removes

    report = take()

    gmail = host == "pop.gmail.com"
    assert kept == ([sorted(mails(3)), sorted(mails(5)), sorted(mails(5))] if gmail else [sorted(mails(3))])
    assert report.complete
    assert report.new == (5 if gmail else 3)
    assert [snapshot.checkpoint for snapshot in map(repository.snapshot, repository.refs("bob"))] == [False]
    assert gone(repository) == []


def test_a_session_whose_mail_cannot_be_stored_does_not_end_as_it_should(
    take: Pull, server: SimulatedPop3, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("the disk is full")

    server.put(*mails(3))
    monkeypatch.setattr(repository, "store_snapshot", full)

    with pytest.raises(StorageFull):
        take()

    assert server.commands[-1] == "(closed)"
    assert server.count("QUIT") == 0


def test_a_connection_that_breaks_at_quit_has_lost_nothing(
    take: Pull, server: SimulatedPop3, repository: Repository
) -> None:
    server.put(*mails(3))
    server.lose_quit = True

    report = take()

    assert report.complete
    assert server.count("RETR") == 3
    assert bodies(repository) == sorted(mails(3))


def test_a_wrong_password_is_tried_once_in_a_run(
    take: Pull, server: SimulatedPop3, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(*mails(1))
    take(delete_after=MONTH)
    clock.now = START + timedelta(days=31)
    tried = []

    def refuse() -> Session:
        tried.append(1)
        raise LoginRefused("wrong password")

    monkeypatch.setattr(server, "open", refuse)
    with pytest.raises(LoginRefused):
        take(delete_after=MONTH)

    assert len(tried) == 1


def test_a_lost_pack_is_made_up_for_from_the_server(
    take: Pull, server: SimulatedPop3, repository: Repository, storage: MemoryStorage, secrets: Secrets, state: State
) -> None:
    server.put(*mails(5))
    take()
    for info in list(storage.list("packs/")):
        storage.delete(info.name)
    server.commands.clear()

    with Repository(storage, secrets) as again:
        report = pull(again, server, "bob", state=state)
        assert report.new == 5
        assert bodies(again) == sorted(mails(5))


def test_dates_come_from_the_way_of_the_message(take: Pull, server: SimulatedPop3, repository: Repository) -> None:
    server.put(
        b"Received: by a; Wed, 17 Jul 1996 02:44:25 -0700\r\nReceived: by b; Wed, 17 Jul 1996 01:00:00 +0000\r\n"
        b"Date: Tue, 16 Jul 1996 23:00:00 +0000\r\n\r\nx\r\n",
        b"Date: Tue, 16 Jul 1996 23:00:00 +0000\r\n\r\nsent from here\r\n",
        b"Subject: none\r\n\r\nx\r\n",
    )

    take()

    dates = [
        row.internaldate
        for record in newest(repository, "bob").mailboxes
        for segment in record.segments
        for row, _ in segments.read(repository, segment)
    ]
    assert dates == [b"17-Jul-1996 02:44:25 -0700", b"16-Jul-1996 23:00:00 +0000", b" 1-Nov-2026 12:00:00 +0000"]


# delete_after

MONTH = timedelta(days=30)


def test_what_was_in_a_snapshot_for_long_enough_is_deleted_and_stays_in_the_snapshots(
    take: Pull, server: SimulatedPop3, repository: Repository, clock: Clock
) -> None:
    server.put(*mails(3))
    take(delete_after=MONTH)
    clock.now = START + timedelta(days=20)
    server.put(*mails(2, first=3))
    early = take(delete_after=MONTH)
    clock.now = START + timedelta(days=31)

    late = take(delete_after=MONTH)

    assert early.vanished == 0
    assert late.vanished == 3
    assert [raw for _, raw in server.mail] == mails(2, first=3)
    assert bodies(repository) == sorted(mails(5))
    assert gone(repository) == [1, 2, 3]
    assert any("3 deleted from the server" in note for note in late.notes)


def test_nothing_is_deleted_that_a_copy_does_not_have(
    take: Pull, server: SimulatedPop3, repository: Repository, storage: MemoryStorage, clock: Clock
) -> None:
    copy = MemoryStorage()
    server.put(*mails(3))
    take(delete_after=MONTH)
    clock.now = START + timedelta(days=31)

    behind = take(delete_after=MONTH, copies=lambda: [copy])
    for info in storage.list():
        copy.put(info.name, [storage.get(info.name)])
    clock.now = START + timedelta(days=32)
    done = take(delete_after=MONTH, copies=lambda: [copy])

    assert any("nothing was deleted" in note for note in behind.notes)
    assert done.vanished == 3
    assert server.mail == []


@pytest.mark.parametrize("where", ["repository", "copy"])
def test_nothing_is_deleted_whose_pack_is_damaged(
    take: Pull, server: SimulatedPop3, storage: MemoryStorage, clock: Clock, where: str
) -> None:
    copy = MemoryStorage()
    server.put(*mails(3))
    take(delete_after=MONTH)
    for info in storage.list():
        copy.put(info.name, [storage.get(info.name)])
    damaged = storage if where == "repository" else copy
    for info in list(damaged.list("packs/")):
        data = bytearray(damaged.get(info.name))
        data[-1] ^= 1
        damaged.replace(info.name, [data])
    clock.now = START + timedelta(days=31)

    report = take(delete_after=MONTH, copies=lambda: [copy])

    assert server.count("DELE") == 0
    assert len(server.mail) == 3
    # Of a pack whose lists are damaged all is stored again; where it is a message that is, nothing is deleted.
    expected = ("stored again", "nothing was deleted") if where == "repository" else ("nothing was deleted",)
    assert any(each in note for note in report.notes for each in expected)


def test_a_message_that_is_another_one_now_is_not_deleted(take: Pull, server: SimulatedPop3, clock: Clock) -> None:
    server.put(*mails(2))
    take(delete_after=MONTH)
    name, raw = server.mail[0]
    server.mail[0] = (name, raw.replace(b"Message 0", b"Message X"))  # the same UIDL and size
    clock.now = START + timedelta(days=31)

    report = take(delete_after=MONTH)

    assert [name for name, _ in server.mail] == [name]
    assert any("not the one that is stored" in note for note in report.notes)


def test_a_quit_that_is_not_confirmed_counts_for_nothing(
    take: Pull, server: SimulatedPop3, repository: Repository, clock: Clock
) -> None:
    server.put(*mails(3))
    take(delete_after=MONTH)
    clock.now = START + timedelta(days=31)
    server.lose_quit = True
    unsure = take(delete_after=MONTH)
    assert any("may still be there" in note for note in unsure.notes)
    assert len(server.mail) == 3
    assert gone(repository) == []
    server.lose_quit = False

    report = take(delete_after=MONTH)

    assert report.vanished == 3
    assert bodies(repository) == sorted(mails(3))
