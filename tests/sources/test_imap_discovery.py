"""Which mailboxes there are, on servers that tell it in their own ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backupd.model import MailboxStatus
from backupd.sources.base import Discovered
from backupd.sources.imap import ImapSource
from backupd.sources.imap.session import ImapSession
from backupd.wire.imap_connection import ImapSettings
from tests.support.mail import message
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Box, ScriptedImap, done

EXTENDED = CAPABILITIES + b" LIST-EXTENDED LIST-STATUS SPECIAL-USE CONDSTORE OBJECTID STATUS=SIZE"

Open = Callable[[ScriptedImap], ImapSession]


@pytest.fixture
def discover() -> Iterator[Callable[[ScriptedImap], dict[bytes, Discovered]]]:
    opened: list[ImapSession] = []

    def run(server: ScriptedImap) -> dict[bytes, Discovered]:
        settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5)
        opened.append(ImapSource(settings, sleep=lambda seconds: None).open())
        listed = opened[-1].discover()
        found = {one.mailbox.raw_name: one for one in listed}
        assert len(found) == len(listed)
        return found

    yield run
    for one in opened:
        one.close()


Discover = Callable[[ScriptedImap], dict[bytes, Discovered]]


def test_one_list_tells_all(discover: Discover) -> None:
    listed = (
        b'* LIST (\\HasChildren \\Subscribed) "/" INBOX\r\n'
        b"* STATUS INBOX (MESSAGES 3 UIDNEXT 10 UIDVALIDITY 7 HIGHESTMODSEQ 99 MAILBOXID (F1) SIZE 4096)\r\n"
        b'* LIST (\\Sent \\HasNoChildren) "/" {8}\r\nSent (1)\r\n'
        b"* STATUS {8}\r\nSent (1) (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 8 HIGHESTMODSEQ -1 )\r\n"
        b'* LIST (\\Noselect) "/" "[Gmail]"\r\n'
        b'* LIST (\\NonExistent) "/" gone\r\n'
    )
    with ScriptedImap(capabilities=EXTENDED) as server:
        server.on(rb"LIST", done(b"%TAG%", listed))
        found = discover(server)
        assert found[b"INBOX"].status == MailboxStatus(3, 10, 7, 99, b"F1")
        assert found[b"INBOX"].size == 4096
        assert found[b"INBOX"].mailbox.subscribed
        assert found[b"Sent (1)"].mailbox.special_use == (b"\\Sent",)
        assert found[b"Sent (1)"].status == MailboxStatus(1, 2, 8)
        assert not found[b"[Gmail]"].mailbox.selectable
        assert not found[b"gone"].mailbox.selectable
        assert not server.received(rb"STATUS|LSUB|EXAMINE|SELECT")
        status = b"STATUS (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ MAILBOXID)"
        assert server.received(rb"LIST") == [b'LIST "" "*" RETURN (SPECIAL-USE SUBSCRIBED ' + status + b")"]


@pytest.mark.parametrize("refusal", [b"%TAG% BAD syntax error\r\n", b"%TAG% NO not today\r\n"])
def test_a_server_that_refuses_the_long_list_is_asked_the_old_way(discover: Discover, refusal: bytes) -> None:
    """Proton Bridge announces SPECIAL-USE and answers BAD to it."""
    with ScriptedImap({b"Sent": Box({1: message("sent")})}, capabilities=EXTENDED) as server:
        server.on(rb"LIST .*RETURN", refusal)
        server.on(rb"LSUB", done(b"%TAG%", b'* LSUB () "/" "Sent"\r\n'))
        found = discover(server)
        assert set(found) == {b"INBOX", b"Sent"}
        assert found[b"Sent"].status.messages == 1
        assert found[b"Sent"].mailbox.subscribed
        assert not found[b"INBOX"].mailbox.subscribed


def test_inbox_is_added_where_list_leaves_it_out(discover: Discover) -> None:
    with ScriptedImap() as server:
        server.on(rb"LIST", done(b"%TAG%", b'* LIST () "." "INBOX.Sent"\r\n'))
        found = discover(server)
        assert found[b"INBOX"].mailbox.delimiter == b"."
        assert found[b"INBOX"].status.uidvalidity == 7


def test_inbox_in_any_case_is_inbox_once(discover: Discover) -> None:
    with ScriptedImap(capabilities=EXTENDED) as server:
        status = b"(MESSAGES 4 UIDNEXT 5 UIDVALIDITY 6)"
        server.on(rb"LIST", done(b"%TAG%", b'* LIST () "/" Inbox\r\n* STATUS INBOX ' + status + b"\r\n"))
        assert {name: one.status.messages for name, one in discover(server).items()} == {b"Inbox": 4}


def test_a_status_that_fails_stops_no_other(discover: Discover) -> None:
    with ScriptedImap({name: Box({1: message("x")}) for name in (b"a", b"b", b"c")}) as server:
        server.on(rb'STATUS "b"', b"%TAG% NO [SERVERBUG] mailbox is corrupt\r\n")
        found = discover(server)
        assert found[b"b"].status == MailboxStatus()
        assert [found[name].status.messages for name in (b"a", b"c")] == [1, 1]


def test_positions_that_the_server_does_not_tell_are_none(discover: Discover) -> None:
    """QQ and 163 leave UIDNEXT out, Winmail says UIDVALIDITY 0."""
    with ScriptedImap() as server:
        server.on(rb"STATUS", done(b"%TAG%", b"* STATUS INBOX (MESSAGES 3 UIDVALIDITY 0)\r\n"))
        assert discover(server)[b"INBOX"].status == MailboxStatus(messages=3, uidvalidity=0)


NAMES = [
    b"plain", b'quo"te', b"back\\slash", b"line\r\nend", b"\xff\xfe raw", "Entwürfe".encode(), b"../../etc/passwd",
    b"nil", b"a" * 700, b" lead and trail ", b"{3}", b"%*", b"(", b"&Jjo-!",
]  # fmt: skip


def test_names_are_kept_as_the_bytes_they_are(discover: Discover) -> None:
    with ScriptedImap({name: Box({1: message("x")}) for name in NAMES}) as server:
        found = discover(server)
        assert set(found) == {b"INBOX", *NAMES}
        assert all(found[name].status.messages == 1 for name in NAMES)
        assert all(isinstance(one.mailbox.name, str) for one in found.values())


def test_a_name_sent_as_an_atom_may_look_like_nil_or_a_section(discover: Discover) -> None:
    with ScriptedImap() as server:
        lines = b'* LIST () NIL NIL\r\n* LIST () NIL [Gmail]/All\r\n* LIST () NIL a[b\r\n* LIST () "\\\\" x\r\n'
        server.on(rb"LIST", done(b"%TAG%", lines))
        found = discover(server)
        assert set(found) == {b"INBOX", b"NIL", b"[Gmail]/All", b"a[b", b"x"}
        assert found[b"NIL"].mailbox.delimiter is None
        assert found[b"x"].mailbox.delimiter == b"\\"


def test_hundreds_of_mailboxes_are_asked_in_few_round_trips(discover: Discover) -> None:
    with ScriptedImap({b"box %d" % number: Box() for number in range(300)}) as server:
        assert len(discover(server)) == 301
        assert len(server.received(rb"STATUS")) == 301
