"""Servers that count, list and remember in their own ways: no message is missed, and none is taken for another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import pytest

from backupd.errors import ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus, MessageState
from backupd.sources.base import Known, Scan
from backupd.sources.imap import ImapSource
from backupd.sources.imap.session import ImapSession
from backupd.wire.imap_connection import ImapSettings
from tests.support.mail import message
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Box, ScriptedImap, done

INBOX = Mailbox(raw_name=b"INBOX", name="INBOX", delimiter=b"/")

Open = Callable[[ScriptedImap], ImapSession]


@pytest.fixture
def open_session() -> Iterator[Open]:
    opened: list[ImapSession] = []

    def start(server: ScriptedImap) -> ImapSession:
        settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5)
        opened.append(ImapSource(settings, sleep=lambda seconds: None).open())
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def box_of(uids: Iterable[int], **more: object) -> Box:
    return Box({uid: message(f"number {uid}") for uid in uids}, **more)  # type: ignore[arg-type]


def known_of(scan: Scan, flags: dict[int, tuple[bytes, ...]] | None = None, modseq: int | None = None) -> Known:
    states = [MessageState(uid, (flags or {}).get(uid, ()), modseq=modseq) for uid in scan.uids]
    return Known(scan.status, scan.uids, lambda: states)


# -- which UIDs there are ----------------------------------------------------------------------------------------------


def test_a_search_cut_short_is_noticed_and_made_good(open_session: Open) -> None:
    uids = range(1, 5001)
    with ScriptedImap({b"INBOX": box_of(uids)}) as server:
        server.on(
            rb"UID SEARCH", done(b"%TAG%", b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids[:4000]) + b"\r\n")
        )
        scan = open_session(server).scan(INBOX, None)
        assert list(scan.uids) == list(uids)
        assert scan.status.messages == 5000


@pytest.mark.parametrize("reply", [b"%TAG% NO [CANNOT] no\r\n", b"%TAG% BAD what\r\n", b"%TAG% OK nothing\r\n"])
@pytest.mark.parametrize("more", [b"", b" ESEARCH"])
def test_a_server_that_cannot_search_is_listed(open_session: Open, reply: bytes, more: bytes) -> None:
    with ScriptedImap({b"INBOX": box_of([3, 9, 10])}, capabilities=CAPABILITIES + more) as server:
        server.on(rb"UID SEARCH", reply)
        assert list(open_session(server).scan(INBOX, None).uids) == [3, 9, 10]


def test_esearch_and_plain_search_agree(open_session: Open) -> None:
    uids = [1, 2, 3, 50, 51, 4_294_967_295]
    for more in (b"", b" ESEARCH"):
        with ScriptedImap({b"INBOX": box_of(uids)}, capabilities=CAPABILITIES + more) as server:
            assert list(open_session(server).scan(INBOX, None).uids) == uids


def test_an_empty_mailbox_is_empty(open_session: Open) -> None:
    for more in (b"", b" ESEARCH"):
        with ScriptedImap(capabilities=CAPABILITIES + more) as server:
            scan = open_session(server).scan(INBOX, None)
            assert (scan.uids, scan.status.messages) == (UidSet.EMPTY, 0)


def test_mail_that_arrives_while_scanning_is_no_contradiction(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2, 3])}, capabilities=CAPABILITIES + b" ESEARCH") as server:

        def search(command: bytes) -> bytes:
            server.boxes[b"INBOX"].messages[4] = message("late")
            return done(b"%TAG%", b'* ESEARCH (TAG "%TAG%") UID ALL 1:4\r\n* 4 EXISTS\r\n')

        server.on(rb"UID SEARCH", search)
        scan = open_session(server).scan(INBOX, None)
        assert list(scan.uids) == [1, 2, 3, 4]
        assert scan.status.uidnext == 4  # as of EXAMINE: the next run looks again
        assert not server.received(rb"FETCH")


def test_a_message_inserted_in_the_middle_is_found(open_session: Open) -> None:
    """Dovecot's dsync merges mailboxes; UIDNEXT alone would not tell."""
    with ScriptedImap({b"INBOX": box_of([1, 2, 9], uidnext=10)}) as server:
        session = open_session(server)
        known = known_of(session.scan(INBOX, None))
        server.boxes[b"INBOX"].messages[5] = message("inserted")
        del server.boxes[b"INBOX"].messages[2]
        scan = session.scan(INBOX, known)
        assert list(scan.uids - known.uids) == [5]
        assert list(scan.vanished) == [2]


# -- UIDVALIDITY -------------------------------------------------------------------------------------------------------


def test_uidvalidity_that_only_status_tells_is_asked_for(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1])}) as server:
        server.on(rb"EXAMINE", done(b"%TAG%", b"* 1 EXISTS\r\n"))
        scan = open_session(server).scan(INBOX, None)
        assert (scan.status.uidvalidity, scan.status.uidnext) == (7, 2)


def test_without_uidvalidity_nothing_known_is_trusted(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2], uidvalidity=None)}) as server:
        session = open_session(server)
        first = session.scan(INBOX, None)
        assert first.status.uidvalidity is None
        again = session.scan(INBOX, known_of(first))
        assert again.reset
        assert list(again.uids) == [1, 2]


def test_a_uidvalidity_of_zero_is_one(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2], uidvalidity=0)}) as server:
        session = open_session(server)
        assert not session.scan(INBOX, known_of(session.scan(INBOX, None))).reset


def test_uids_that_do_not_last_are_not_trusted(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2])}) as server:
        examined = b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT 3] next\r\n* NO [UIDNOTSTICKY] sorry\r\n"
        server.on(rb"EXAMINE", done(b"%TAG%", examined))
        session = open_session(server)
        assert session.scan(INBOX, known_of(session.scan(INBOX, None))).reset


def test_another_uidvalidity_is_a_reset(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2])}) as server:
        session = open_session(server)
        known = known_of(session.scan(INBOX, None))
        server.boxes[b"INBOX"].uidvalidity = 8
        scan = session.scan(INBOX, known)
        assert (scan.reset, scan.vanished, scan.changed) == (True, UidSet.EMPTY, ())


# -- what changed ------------------------------------------------------------------------------------------------------


def test_flags_are_compared_one_by_one_on_a_plain_server(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of(range(1, 101))}) as server:
        session = open_session(server)
        box = server.boxes[b"INBOX"]
        known = known_of(session.scan(INBOX, None), {7: (b"\\Seen",), 8: (b"\\Seen",)})
        box.flags.update({7: b"\\Seen", 50: b"$Label \\Answered \\Recent"})
        scan = session.scan(INBOX, known)
        assert [(one.uid, one.flags) for one in scan.changed] == [(8, ()), (50, (b"$Label", b"\\Answered"))]


def test_states_in_any_order_are_compared_right(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of(range(1, 20))}) as server:
        session = open_session(server)
        known = known_of(session.scan(INBOX, None))
        backwards = Known(known.status, known.uids, lambda: reversed(list(known.states())))
        server.boxes[b"INBOX"].flags[4] = b"\\Seen"
        assert [one.uid for one in session.scan(INBOX, backwards).changed] == [4]


CONDSTORE = CAPABILITIES + b" CONDSTORE"


def test_with_condstore_only_what_changed_is_asked_for(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2, 3], highestmodseq=10)}, capabilities=CONDSTORE) as server:
        session, box = open_session(server), server.boxes[b"INBOX"]
        known = known_of(session.scan(INBOX, None), modseq=1)
        box.flags[2], box.modseqs[2], box.highestmodseq = b"\\Seen", 12, 12
        box.messages[4], box.modseqs[4] = message("new"), 11
        scan = session.scan(INBOX, known)
        assert [(one.uid, one.flags, one.modseq) for one in scan.changed] == [(2, (b"\\Seen",), 12)]
        (asked,) = server.received(rb"UID FETCH")
        assert b"(CHANGEDSINCE 10)" in asked


def test_with_condstore_and_no_change_nothing_is_asked_for(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2, 3], highestmodseq=10)}, capabilities=CONDSTORE) as server:
        session = open_session(server)
        assert session.scan(INBOX, known_of(session.scan(INBOX, None), modseq=1)).changed == ()
        assert not server.received(rb"UID FETCH")


@pytest.mark.parametrize("now", [5, None])
def test_a_modseq_that_went_back_has_all_flags_compared(open_session: Open, now: int | None) -> None:
    with ScriptedImap({b"INBOX": box_of([1, 2, 3], highestmodseq=10)}, capabilities=CONDSTORE) as server:
        session, box = open_session(server), server.boxes[b"INBOX"]
        known = known_of(session.scan(INBOX, None), modseq=1)
        box.flags[3], box.highestmodseq = b"\\Flagged", now
        scan = session.scan(INBOX, known)
        assert [one.uid for one in scan.changed] == [3]
        assert scan.status.highestmodseq == now


QRESYNC = CAPABILITIES + b" CONDSTORE QRESYNC ESEARCH"


def qresync_server(uids: Iterable[int]) -> ScriptedImap:
    server = ScriptedImap({b"INBOX": box_of(uids, highestmodseq=10)}, capabilities=QRESYNC)
    server.on(rb"ENABLE", done(b"%TAG%", b"* ENABLED QRESYNC\r\n"))
    return server


def test_with_qresync_examine_tells_the_changes(open_session: Open) -> None:
    with qresync_server([1, 2, 3]) as server:
        session = open_session(server)
        known = known_of(session.scan(INBOX, None), modseq=1)
        told = (
            b"* 8 FETCH (UID 3 FLAGS (\\Deleted) MODSEQ (3))\r\n"
            b"* OK [HIGHESTMODSEQ 99] news\r\n* OK [CLOSED] what came before was another mailbox\r\n"
            b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 4]\r\n* OK [HIGHESTMODSEQ 15]\r\n"
            b"* VANISHED (EARLIER) 1\r\n* 1 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (14))\r\n"
        )
        del server.boxes[b"INBOX"].messages[1]
        server.on(rb"EXAMINE", done(b"%TAG%", told))
        scan = session.scan(INBOX, known)
        assert [(one.uid, one.flags) for one in scan.changed] == [(2, (b"\\Seen",))]
        assert list(scan.vanished) == [1]
        assert scan.status.highestmodseq == 15
        assert server.received(rb'EXAMINE "INBOX" \(QRESYNC \(7 10 1:3\)\)')
        assert not server.received(rb"UID FETCH")


def test_qresync_that_is_announced_and_not_understood_is_done_without(open_session: Open) -> None:
    with qresync_server([1, 2, 3]) as server:
        server.on(rb"EXAMINE .*QRESYNC \(", b"%TAG% BAD unknown parameter\r\n")
        session, box = open_session(server), server.boxes[b"INBOX"]
        known = known_of(session.scan(INBOX, None), modseq=1)
        box.flags[2], box.modseqs[2], box.highestmodseq = b"\\Seen", 12, 12
        assert [one.uid for one in session.scan(INBOX, known).changed] == [2]


def test_zimbras_qresync_is_not_used(open_session: Open) -> None:
    with qresync_server([1, 2, 3]) as server:
        server.on(rb"ID ", done(b"%TAG%", b'* ID ("NAME" "Zimbra" "VERSION" "8")\r\n'))
        session = open_session(server)
        session.scan(INBOX, known_of(session.scan(INBOX, None), modseq=1))
        assert not server.received(rb"EXAMINE .*QRESYNC")


def test_a_mailbox_that_cannot_be_opened_is_refused_with_the_servers_words(open_session: Open) -> None:
    with ScriptedImap({b"Locked": Box()}, capabilities=QRESYNC) as server:
        server.on(rb'EXAMINE "Locked"', b"%TAG% NO [NOPERM] keep out\r\n")
        session = open_session(server)
        locked = Mailbox(raw_name=b"Locked", name="Locked", delimiter=b"/")
        with pytest.raises(ServerRefused, match="keep out") as refused:
            session.scan(locked, None)
        assert refused.value.code == b"NOPERM"
        assert session.scan(INBOX, None).uids == UidSet.EMPTY


def test_absurd_positions_count_as_none(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1])}, capabilities=CONDSTORE) as server:
        examined = b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 0]\r\n* OK [HIGHESTMODSEQ -1] zoho\r\n"
        server.on(rb"EXAMINE", done(b"%TAG%", examined))
        server.on(rb"STATUS", b"%TAG% NO\r\n")
        assert open_session(server).scan(INBOX, None).status == MailboxStatus(messages=1, uidvalidity=7)


def test_mailbox_ids_come_along(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of([1])}, capabilities=CAPABILITIES + b" OBJECTID") as server:
        examined = b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 2]\r\n* OK [MAILBOXID (F-22)] id\r\n"
        server.on(rb"EXAMINE", done(b"%TAG%", examined))
        assert open_session(server).scan(INBOX, None).status.mailbox_id == b"F-22"


def test_only_examine_is_ever_used(open_session: Open) -> None:
    with qresync_server([1, 2, 3]) as server:
        session = open_session(server)
        scan = session.scan(INBOX, None)
        list(session.describe(INBOX, scan.uids))
        list(session.headers(INBOX, scan.uids))
        list(session.fetch(INBOX, scan.uids))
        session.close()
        verbs = {re.sub(rb"UID (\w+).*|(\w+).*", rb"\1\2", command, flags=re.DOTALL) for command in server.commands}
        assert verbs <= {b"AUTHENTICATE", b"CAPABILITY", b"ID", b"ENABLE", b"EXAMINE", b"SEARCH", b"FETCH", b"LOGOUT"}
        assert all(b"BODY[" not in command for command in server.commands)
