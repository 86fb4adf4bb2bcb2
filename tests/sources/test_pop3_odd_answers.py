"""POP3 servers whose answers are odd: what they may not make us believe, tell, or mix up."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from backupd.errors import BackupdError, ConnectionFailed, ConnectionLost, LoginRefused, ProtocolError, ServerRefused
from backupd.sources.pop3 import session as session_module
from backupd.sources.pop3.base import Listed, Refused, Retrieved
from backupd.sources.pop3.session import Session
from backupd.sources.pop3.source import Pop3Source
from backupd.wire.pop3_connection import Pop3Connection
from backupd.wire.pop3_settings import Pop3Settings
from tests.support.mail import message
from tests.support.scripted_pop3 import PASSWORD, USER, Scripted, ScriptedPop3

MAILS = [message(f"Message {number}") for number in range(5)]
EMPTY = b"+OK\r\n.\r\n"


def scripted(**options: Any) -> Scripted:
    return Scripted(mail=[(b"uid-%d" % number, raw) for number, raw in enumerate(MAILS, 1)], **options)


def opened(server: ScriptedPop3, **options: Any) -> Session:
    given = {"host": server.host, "port": server.port, "username": USER, "password": PASSWORD, "tls": "none"}
    return Pop3Source(Pop3Settings(**{"timeout": 5.0, **given, **options})).open()


# What was asked for and not read


@pytest.mark.parametrize("what", ["headers", "retrieve"])
def test_answers_that_nobody_read_are_not_taken_for_those_of_the_next_command(what: str) -> None:
    with ScriptedPop3(scripted(on={b"DELE": [b"-ERR no\r\n"]})) as server:
        session = opened(server)
        listing = session.listing()
        coming = session.headers(range(1, 6)) if what == "headers" else session.retrieve(listing)
        next(coming)
        coming.close()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionLost):
            session.delete(1)
        with pytest.raises(ConnectionLost):
            next(iter(session.retrieve(listing)))
        with pytest.raises(ConnectionLost):
            session.quit()
        assert not server.count(b"DELE")
        assert not server.count(b"QUIT")


def test_of_several_messages_that_come_empty_each_is_asked_for_once_more() -> None:
    with ScriptedPop3(scripted(on={b"RETR %d" % number: [EMPTY] for number in (1, 2, 5)})) as server:
        session = opened(server)
        found = list(session.retrieve(session.listing()))
    assert found == [Retrieved(number, raw) for number, raw in enumerate(MAILS, 1)]


def test_nothing_is_no_message_where_the_server_does_not_know_the_size_either() -> None:
    with ScriptedPop3(scripted(sizes={1: b"-1"}, on={b"RETR 1": [EMPTY, EMPTY]})) as server:
        session = opened(server)
        assert [type(one) for one in session.retrieve(session.listing()[:1])] == [Refused]


def test_a_server_that_gives_more_than_the_header_is_not_believed() -> None:
    answer = b"+OK\r\nSubject: one\r\n\r\nbody\r\n\r\nmore\r\n.\r\n"
    with ScriptedPop3(scripted(on={b"TOP 1": [], b"TOP 1 0": [answer]})) as server:
        assert [one.octets for one in opened(server).headers([1])] == [b"Subject: one\r\n\r\n"]


# What is confirmed


def test_only_ok_confirms_a_quit() -> None:
    with ScriptedPop3(scripted(on={b"QUIT": [b"+ one moment\r\n"]})) as server, pytest.raises(ServerRefused):
        opened(server).quit()


def test_only_ok_confirms_a_mark() -> None:
    with ScriptedPop3(scripted(on={b"DELE 1": [b"+ one moment\r\n"]})) as server:
        assert opened(server).delete(1) is False


# What is listed


@pytest.mark.parametrize("command", [b"LIST", b"UIDL"])
def test_a_number_of_thousands_of_digits_stops_nothing(command: bytes) -> None:
    with ScriptedPop3(scripted(on={command: [b"+OK\r\n1 11\r\n" + b"9" * 5000 + b" 3\r\n.\r\n"]})) as server:
        assert opened(server).listing()[0].number == 1


def test_a_listing_that_is_refused_for_now_can_be_tried_again() -> None:
    for command in (b"LIST", b"UIDL"):
        with ScriptedPop3(scripted(on={command: [b"-ERR [SYS/TEMP] later\r\n"]})) as server:
            with pytest.raises(ConnectionFailed, match="later"):
                opened(server).listing()


def test_a_server_that_refuses_to_list_nothing_has_nothing() -> None:
    answers: dict[bytes, list[bytes | None]] = {b"LIST": [b"-ERR no messages\r\n"], b"STAT": [b"+OK 0 0\r\n"]}
    with ScriptedPop3(Scripted(on=answers)) as server:
        assert opened(server).listing() == []


def test_a_number_that_cannot_be_is_left_out() -> None:
    with ScriptedPop3(scripted(on={b"LIST": [b"+OK\r\n0 1\r\n1 20\r\n4294967299 5\r\n.\r\n"]})) as server:
        assert opened(server).listing() == [Listed(1, b"uid-1", 20)]


# What has no end


ENDLESS = b"+OK\r\n" + b"1 7\r\n" * 2_000_000
"""Ten million octets without a dot; the limits are set lower here than they are."""


@pytest.mark.parametrize("command", [b"LIST", b"UIDL", b"RETR 1"])
def test_an_answer_without_an_end_costs_neither_memory_nor_disk(
    command: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = 5 << 20  # more than is held in memory, so that it is on the disk when it is given up
    monkeypatch.setattr(Pop3Connection.text_lines, "__defaults__", (few,))
    monkeypatch.setattr(session_module, "MOST_OCTETS", few)

    def read(server: ScriptedPop3) -> None:
        session = opened(server, spool_folder=tmp_path)
        list(session.retrieve(session.listing()))

    with (
        ScriptedPop3(scripted(on={command: [ENDLESS]})) as server,
        pytest.raises(ProtocolError, match="without an end"),
    ):
        read(server)
    assert list(tmp_path.iterdir()) == []


def test_a_listing_of_too_many_messages_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MOST_MESSAGES", 4)
    with ScriptedPop3(scripted()) as server, pytest.raises(ProtocolError, match="more than 4 messages"):
        opened(server).listing()


def test_a_listing_that_is_long_is_read_line_by_line() -> None:
    many = 400_000  # more than is held in memory
    on: dict[bytes, list[bytes | None]] = {
        b"LIST": [b"+OK\r\n" + b"".join(b"%d 100\r\n" % n for n in range(1, many + 1)) + b".\r\n"],
        b"UIDL": [b"+OK\r\n" + b"".join(b"%d u%d\r\n" % (n, n) for n in range(1, many + 1)) + b".\r\n"],
    }
    with ScriptedPop3(scripted(on=on)) as server:
        listing = opened(server).listing()
    assert listing == [Listed(n, b"u%d" % n, 100) for n in range(1, many + 1)]


# What is said at login


@pytest.mark.parametrize("text", [b"unable to lock maildrop", b"Could not lock the mailbox", b"cannot lock mailbox"])
def test_a_lock_passes_whatever_it_is_called(text: bytes) -> None:
    script = scripted(on={b"PASS": [b"-ERR " + text + b"\r\n"]})  # the first is in RFC 1939, 7
    with ScriptedPop3(script) as server, pytest.raises(ConnectionFailed):
        opened(server, authentication="user")


def test_what_will_not_pass_is_not_tried_again_and_blames_no_password() -> None:
    on: dict[bytes, list[bytes | None]] = {b"PASS": [b"-ERR [SYS/PERM] the mailbox is broken\r\n"]}
    with ScriptedPop3(scripted(on=on)) as server, pytest.raises(LoginRefused) as caught:
        opened(server, authentication="user")
    assert "administrator" in caught.value.remedy
    with ScriptedPop3(scripted(greeting=b"-ERR [SYS/PERM] no such service")) as server, pytest.raises(ServerRefused):
        opened(server)


def test_a_server_that_offers_what_it_does_not_have_is_asked_otherwise_unless_somebody_insists() -> None:
    refusal: dict[bytes, list[bytes | None]] = {b"AUTH": [b"-ERR unknown command\r\n"]}
    with ScriptedPop3(scripted(on=refusal)) as server:
        assert len(opened(server).listing()) == len(MAILS)
        assert server.count(b"PASS") == 1
        refusal[b"AUTH"].append(b"-ERR unknown command\r\n")
        with pytest.raises(LoginRefused):
            opened(server, authentication="plain")
        assert server.count(b"PASS") == 1


BLOB = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())


@pytest.mark.parametrize(
    ("way", "answers"),
    [
        ("plain", {b"AUTH": [b"+ \r\n"], BLOB: [b"-ERR cannot read " + BLOB + b"\r\n"]}),
        ("user", {b"PASS": [b"PASS " + PASSWORD.encode() + b"\r\n"]}),
        ("user", {b"PASS": [b"-ERR " + b"x" * 195 + PASSWORD.encode() + b"\r\n"]}),
        ("user", {b"PASS": [b"-ERR [" + PASSWORD.encode() + b"] no\r\n"]}),
    ],
    ids=["in base64", "in no status line", "where the text is cut", "in a code"],
)
def test_a_server_that_repeats_the_password_cannot_make_us_tell_it(
    way: str, answers: dict[bytes, list[bytes | None]]
) -> None:
    with ScriptedPop3(scripted(on=answers)) as server, pytest.raises(BackupdError) as caught:
        opened(server, authentication=way)
    told = (str(caught.value) + repr(caught.value.__dict__)).lower()
    assert PASSWORD[:4] not in told
    assert BLOB.decode().lower() not in told


def test_capabilities_that_are_refused_after_login_still_hold() -> None:
    script = scripted(on={b"CAPA": [b"+OK\r\nPIPELINING\r\nUIDL\r\n.\r\n", b"-ERR not now\r\n"]})
    with ScriptedPop3(script) as server:
        assert opened(server).identity.capabilities == ("PIPELINING", "UIDL")
