"""The IMAP source against a real server, with and without its extensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus, MessageState
from backupd.sources.base import Discovered, Fetched, Known, Scan
from backupd.sources.imap import ImapSource
from backupd.sources.imap.session import ImapSession
from backupd.wire.imap_connection import ImapSettings
from tests.conftest import StartDovecot
from tests.support.dovecot_account import Account
from tests.support.mail import large_message, message, nasty_mail, nasty_octets

NO_QRESYNC = ("QRESYNC",)
NO_CONDSTORE = ("QRESYNC", "CONDSTORE")
PLAIN = "QRESYNC CONDSTORE ESEARCH LIST-STATUS LIST-EXTENDED SPECIAL-USE STATUS=SIZE ENABLE ID LITERAL+ SASL-IR".split()
SERVERS = {"everything": (), "no QRESYNC": NO_QRESYNC, "no CONDSTORE": NO_CONDSTORE, "plain": tuple(PLAIN)}


@pytest.fixture(params=list(SERVERS))
def server_account(request: pytest.FixtureRequest, start_dovecot: StartDovecot) -> Account:
    """A new account, on servers that can ever less."""
    return start_dovecot(hide=SERVERS[request.param]).account()


def source(account: Account, **more: object) -> ImapSource:
    return ImapSource(
        ImapSettings(
            account.host, account.username, account.password, port=account.tls_port, ca_file=account.ca_file, **more
        )  # type: ignore[arg-type]
    )


@pytest.fixture
def session(server_account: Account) -> Iterator[ImapSession]:
    opened = source(server_account).open()
    yield opened
    opened.close()


def found(session: ImapSession, name: bytes = b"INBOX") -> Discovered:
    return next(one for one in session.discover() if one.mailbox.raw_name == name)


def box(session: ImapSession, name: bytes = b"INBOX") -> Mailbox:
    return found(session, name).mailbox


def fetched(session: ImapSession, mailbox: Mailbox, uids: UidSet | None = None) -> dict[int, Fetched]:
    wanted = uids if uids is not None else session.scan(mailbox, None).uids
    items = list(session.fetch(mailbox, wanted))
    assert all(isinstance(one, Fetched) for one in items)
    assert len({one.facts.uid for one in items if isinstance(one, Fetched)}) == len(items)
    return {one.facts.uid: one for one in items if isinstance(one, Fetched)}


def octets(one: Fetched) -> bytes:
    return one.body if isinstance(one.body, bytes) else b"".join(one.body.chunks())


def remember(session: ImapSession, mailbox: Mailbox, scan: Scan) -> Known:
    """What a snapshot would keep of this scan."""
    states = {one.state.uid: one.state for one in session.describe(mailbox, scan.uids)}

    def all_states() -> Iterable[MessageState]:
        return (states[uid] for uid in scan.uids)

    return Known(status=scan.status, uids=scan.uids, states=all_states)


def test_discovery_finds_every_mailbox_with_its_positions(server_account: Account, session: ImapSession) -> None:
    server_account.create("Work", "Work/2026", "Sent")
    server_account.subscribe("Work")
    server_account.append("Work", message("one"))
    everything = {one.mailbox.raw_name: one for one in session.discover()}
    assert set(everything) == {b"INBOX", b"Work", b"Work/2026", b"Sent"}
    work, truth = everything[b"Work"], server_account.status("Work")
    assert work.mailbox.subscribed
    assert not everything[b"INBOX"].mailbox.subscribed
    assert work.mailbox.delimiter == b"/"
    assert work.status.messages == 1
    assert (work.status.uidnext, work.status.uidvalidity) == (truth["UIDNEXT"], truth["UIDVALIDITY"])
    assert work.status.highestmodseq in (truth["HIGHESTMODSEQ"], None)
    assert everything[b"Sent"].mailbox.special_use == (b"\\Sent",)
    assert everything[b"Sent"].mailbox.attributes in ((b"\\HasNoChildren",), (b"\\HasNoChildren", b"\\UnMarked"), ())


def test_discovery_is_one_round_trip_where_the_server_can(account: Account) -> None:
    account.create(*(f"Folder {number}" for number in range(150)))
    session = source(account).open()
    before = session._link.connection.stream.round_trips
    assert len(session.discover()) == 151
    assert session._link.connection.stream.round_trips - before == 1
    session.close()


def test_every_message_comes_as_it_is_stored(server_account: Account, session: ImapSession) -> None:
    mails = [*nasty_mail().values(), large_message(5 << 20)]
    server_account.append_many(
        "INBOX", [(raw, (b"\\Flagged", b"$Work"), b"17-Jul-1996 02:44:25 -0700") for raw in mails]
    )
    truth = {one.uid: one for one in server_account.messages("INBOX")}
    got = fetched(session, box(session))
    assert {uid: octets(one) for uid, one in got.items()} == {uid: one.raw for uid, one in truth.items()}
    assert {uid: one.state.flags for uid, one in got.items()} == {uid: one.flags for uid, one in truth.items()}
    assert {uid: one.facts.internaldate for uid, one in got.items()} == {
        uid: one.internaldate for uid, one in truth.items()
    }
    assert {one.note for one in got.values()} == {""}


def test_messages_with_nul_come_as_the_server_gives_them(dovecot_account_with_octets: Account) -> None:
    session = source(dovecot_account_with_octets).open()
    truth = {one.uid: one.raw for one in dovecot_account_with_octets.messages("INBOX")}
    assert {uid: octets(one) for uid, one in fetched(session, box(session)).items()} == truth
    session.close()


@pytest.fixture
def dovecot_account_with_octets(account: Account) -> Account:
    account.deliver("INBOX", [raw for raw in nasty_octets().values() if raw])
    return account


def test_reading_changes_no_flag(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [message(f"{number}") for number in range(20)])
    before, status = server_account.messages("INBOX"), server_account.status("INBOX")
    mailbox = box(session)
    scan = session.scan(mailbox, None)
    assert len(fetched(session, mailbox)) == len(list(session.headers(mailbox, scan.uids))) == 20
    session.scan(mailbox, remember(session, mailbox, scan))
    assert server_account.messages("INBOX") == before
    assert server_account.status("INBOX") == status
    assert all(not one.flags for one in before)
    with server_account.wire() as wire:  # \Recent too is left for the user's own client
        assert any(b" 20 RECENT" in line for line in wire.command(b"EXAMINE INBOX"))


def test_the_first_scan_says_that_all_is_new(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [message(f"{number}") for number in range(5)])
    scan = session.scan(box(session), None)
    assert scan.reset
    assert list(scan.uids) == [1, 2, 3, 4, 5]
    assert scan.status.messages == 5
    assert scan.status.uidnext == 6


def test_a_scan_tells_what_came_went_and_changed(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [message(f"{number}") for number in range(10)])
    mailbox = box(session)
    known = remember(session, mailbox, session.scan(mailbox, None))
    server_account.append("INBOX", message("new"))
    server_account.expunge("INBOX", "2:3")
    server_account.store("INBOX", "5,11", [b"\\Seen", b"$Later"])
    again = source(server_account).open()
    scan = again.scan(mailbox, known)
    assert not scan.reset
    assert list(scan.uids) == [1, *range(4, 12)]
    assert list(scan.vanished) == [2, 3]
    assert [(one.uid, one.flags) for one in scan.changed] == [(5, (b"$Later", b"\\Seen"))]
    again.close()


def test_a_scan_of_what_has_not_changed_finds_nothing(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [(message(f"{number}"), (b"\\Seen",)) for number in range(10)])
    mailbox = box(session)
    known = remember(session, mailbox, session.scan(mailbox, None))
    scan = session.scan(mailbox, known)
    assert (scan.uids, scan.vanished, scan.changed, scan.reset) == (known.uids, UidSet.EMPTY, (), False)


def test_a_scan_with_qresync_is_one_round_trip(account: Account) -> None:
    account.append_many("INBOX", [message(f"{number}") for number in range(10)])
    session = source(account).open()
    mailbox = box(session)
    known = remember(session, mailbox, session.scan(mailbox, None))
    account.store("INBOX", 4, [b"\\Answered"])
    before = session._link.connection.stream.round_trips
    scan = session.scan(mailbox, known)
    assert [one.uid for one in scan.changed] == [4]
    assert session._link.connection.stream.round_trips - before == 1
    session.close()


def test_another_uidvalidity_means_that_nothing_known_applies(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [message(f"{number}") for number in range(3)])
    mailbox = box(session)
    known = remember(session, mailbox, session.scan(mailbox, None))
    new = server_account.reset_uidvalidity("INBOX")
    again = source(server_account).open()
    scan = again.scan(mailbox, known)
    assert (scan.reset, scan.vanished, scan.changed) == (True, UidSet.EMPTY, ())
    assert scan.status.uidvalidity == new
    assert len(scan.uids) == 3
    again.close()


def test_a_server_put_back_from_its_own_backup_has_all_flags_compared(account: Account) -> None:
    account.append_many("INBOX", [message(f"{number}") for number in range(6)])
    session = source(account).open()
    mailbox = box(session)
    known = remember(session, mailbox, session.scan(mailbox, None))
    account.store("INBOX", 3, [b"\\Seen"])
    ahead = MailboxStatus(
        known.status.messages, known.status.uidnext, known.status.uidvalidity, (known.status.highestmodseq or 0) + 999
    )
    scan = session.scan(mailbox, Known(ahead, known.uids, known.states))
    assert [one.uid for one in scan.changed] == [3]
    session.close()


def test_messages_expunged_meanwhile_cost_no_other(server_account: Account, session: ImapSession) -> None:
    server_account.append_many("INBOX", [message(f"{number}") for number in range(8)])
    mailbox = box(session)
    uids = session.scan(mailbox, None).uids
    server_account.expunge("INBOX", "3,7")
    # The server may still have them for a session that was opened before.
    assert {1, 2, 4, 5, 6, 8} <= set(fetched(session, mailbox, uids)) <= set(uids)
    again = source(server_account).open()
    assert sorted(fetched(again, mailbox, uids)) == [1, 2, 4, 5, 6, 8]
    assert sorted(one.facts.uid for one in again.describe(mailbox, uids)) == [1, 2, 4, 5, 6, 8]
    again.close()


def test_describe_tells_all_but_the_bytes(server_account: Account, session: ImapSession) -> None:
    raw = message("described")
    server_account.append("INBOX", raw, (b"\\Draft", b"Keyword"), b"01-Jan-2001 00:00:00 +0000")
    mailbox = box(session)
    (one,) = session.describe(mailbox, session.scan(mailbox, None).uids)
    assert one.facts.size == len(raw)
    assert one.facts.internaldate == b"01-Jan-2001 00:00:00 +0000"
    assert one.state.flags == (b"Keyword", b"\\Draft")


def test_headers_end_with_their_empty_line(server_account: Account, session: ImapSession) -> None:
    mails = [message(f"{number}") for number in range(3)]
    server_account.append_many("INBOX", mails)
    mailbox = box(session)
    heads = dict(session.headers(mailbox, session.scan(mailbox, None).uids))
    assert heads == {uid: raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" for uid, raw in enumerate(mails, 1)}


NAMES: list[bytes] = [
    b"with space", b"quote\"d", b"back\\slash", b"&AOQA9gD8-", b"per%cent", b"star*", b"(brackets)", b"[Gmail]",
    b"{5}", b"NIL", b"..", b"deep/er/still", b"trailing ", b"tab\tbed", b"x" * 200,
]  # fmt: skip


def test_names_of_every_shape_are_found_and_read(server_account: Account, session: ImapSession) -> None:
    usable = []
    for number, name in enumerate(NAMES):
        try:
            server_account.create(name)
        except AssertionError:
            continue  # this server does not allow the name
        server_account.append(name, message(f"in {number}"))
        usable.append(name)
    assert len(usable) > 10
    listed = {one.mailbox.raw_name: one for one in session.discover()}
    for name in usable:
        assert listed[name].status.messages == 1, name
        (one,) = fetched(session, listed[name].mailbox).values()
        assert octets(one) == server_account.messages(name)[0].raw


def test_a_mailbox_that_only_holds_others_is_not_opened(account: Account) -> None:
    maildir = account.server.account("maildir-fs")
    maildir.create("parent/child")
    session = source(maildir).open()
    listed = {one.mailbox.raw_name: one for one in session.discover()}
    if not listed[b"parent"].mailbox.selectable:
        assert listed[b"parent"].status == MailboxStatus()
    assert listed[b"parent/child"].status.messages == 0
    session.close()


def test_a_prefix_and_a_dot_as_delimiter_are_kept(account: Account) -> None:
    prefixed = account.server.account("maildir-prefix")
    prefixed.create("INBOX.Work.2026")
    prefixed.append("INBOX.Work.2026", message("prefixed"))
    session = source(prefixed).open()
    one = found(session, b"INBOX.Work.2026")
    assert one.mailbox.delimiter == b"."
    assert len(fetched(session, one.mailbox)) == 1
    session.close()


def test_large_messages_go_to_the_spool_folder_and_leave_nothing(account: Account, tmp_path: object) -> None:
    raw = large_message(9 << 20)
    account.append("INBOX", raw)
    session = source(account, spool_folder=tmp_path).open()
    (one,) = fetched(session, box(session)).values()
    assert not isinstance(one.body, bytes)
    assert one.body.size == len(raw)
    assert b"".join(one.body.chunks()) == b"".join(one.body.chunks()) == raw
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]
    session.close()
