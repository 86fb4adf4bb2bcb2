"""POP3 against a server that behaves as badly as can be, and against Dovecot."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backupd.errors import (
    CertificateRefused,
    ConnectionFailed,
    ConnectionLost,
    LoginRefused,
    ProtocolError,
    ServerRefused,
    Throttled,
)
from backupd.model import Body
from backupd.sources.pop3.base import Listed, Refused, Retrieved
from backupd.sources.pop3.session import Session
from backupd.sources.pop3.source import Pop3Source
from backupd.wire.pop3_settings import Pop3Settings
from backupd.wire.throttling import EXHAUSTED
from tests.support import corpus
from tests.support.dovecot_account import Account
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.scripted_pop3 import CAPABILITIES, PASSWORD, USER, Scripted, ScriptedPop3
from tests.support.tls import Authority

MAILS = [message(f"Message {number}") for number in range(5)]


def whole(body: bytes | Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body.chunks())


def scripted(*mails: bytes, **options: Any) -> Scripted:
    return Scripted(mail=[(b"uid-%d" % number, raw) for number, raw in enumerate(mails, 1)], **options)


def settings(server: ScriptedPop3, **options: Any) -> Pop3Settings:
    given = {"host": server.host, "port": server.port, "username": USER, "password": PASSWORD, "tls": "none"}
    return Pop3Settings(**{"timeout": 5.0, **given, **options})  # type: ignore[arg-type]


def opened(server: ScriptedPop3, **options: Any) -> Session:
    return Pop3Source(settings(server, **options)).open()


def everything(session: Session) -> list[bytes]:
    found = list(session.retrieve(session.listing()))
    assert all(isinstance(each, Retrieved) for each in found)
    return [whole(each.body) for each in found if isinstance(each, Retrieved)]


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file; ca.pem is beside it."""
    authority.write(tmp_path)
    path = tmp_path / "both.pem"
    path.write_bytes((tmp_path / "key.pem").read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


# Logging in


@pytest.mark.parametrize(
    ("way", "sent"),
    [
        ("auto", b"AUTH PLAIN"),
        ("plain", b"AUTH PLAIN"),
        ("user", b"USER tester"),
        ("xoauth2", b"AUTH XOAUTH2"),
    ],
)
def test_every_way_to_log_in(way: str, sent: bytes) -> None:
    with ScriptedPop3() as server:
        opened(server, authentication=way).quit()
        assert sent in server.commands


def test_without_tls_the_password_is_not_sent_where_apop_is_offered() -> None:
    with ScriptedPop3(Scripted(greeting=b"+OK ready <12.34@pop.example.com>")) as server:
        opened(server).quit()
        assert server.count(b"APOP") == 1
        assert not any(PASSWORD.encode() in line for line in server.commands)


def test_a_server_without_capabilities_gets_user_and_pass() -> None:
    with ScriptedPop3(scripted(*MAILS, capabilities=None)) as server:
        session = opened(server)
        assert everything(session) == MAILS
        session.quit()
        assert server.count(b"USER") == 1


@pytest.mark.parametrize("way", ["user", "plain", "xoauth2"])
def test_a_wrong_password_is_said_and_not_shown(way: str) -> None:
    with ScriptedPop3() as server, pytest.raises(LoginRefused) as caught:
        opened(server, authentication=way, password="wrong-secret")
    assert "wrong-secret" not in str(caught.value)
    assert "check username and password" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "pause"),
    [
        (b"-ERR [IN-USE] maildrop locked", ConnectionFailed, None),
        (b"-ERR [LOGIN-DELAY] too often", ConnectionFailed, 300.0),
        (b"-ERR [SYS/TEMP] no memory", ConnectionFailed, None),
        (b"-ERR unable to lock maildrop, try again later", ConnectionFailed, None),
        (b"-ERR [AUTH] bad password", LoginRefused, None),
        (b"-ERR [SYS/PERM] mailbox is broken", LoginRefused, None),
        (b"-ERR no", LoginRefused, None),
        (b"-ERR Request is throttled. Suggested Backoff Time: 299000 milliseconds", Throttled, 299.0),
        (b"-ERR [SYS/TEMP] Account exceeded bandwidth limits", Throttled, EXHAUSTED),
    ],
)
def test_what_a_server_says_at_login_decides_whether_another_try_helps(
    answer: bytes, error: type[Exception], pause: float | None
) -> None:
    script = Scripted(capabilities=("USER", "LOGIN-DELAY 300"), on={b"PASS": [answer + b"\r\n"]})
    with ScriptedPop3(script) as server, pytest.raises(error) as caught:
        opened(server)
    assert getattr(caught.value, "pause", None) == pause


def test_tls_from_the_start_and_after_stls(certificate: Path) -> None:
    ca_file = certificate.parent / "ca.pem"
    with ScriptedPop3(scripted(*MAILS), certificate) as server:
        session = opened(server, tls="implicit", ca_file=ca_file)
        assert everything(session) == MAILS
        session.quit()
    with ScriptedPop3(scripted(*MAILS, stls=True), certificate) as server:
        session = opened(server, tls="starttls", ca_file=ca_file)
        assert everything(session) == MAILS
        session.quit()
        assert server.commands[0] == b"STLS"


def test_what_is_slipped_in_before_the_handshake_is_refused(certificate: Path) -> None:
    script = Scripted(stls=True, on={b"STLS": [b"+OK begin\r\n+OK injected\r\n"]})
    with ScriptedPop3(script, certificate) as server, pytest.raises(ProtocolError, match="STLS"):
        opened(server, tls="starttls", ca_file=certificate.parent / "ca.pem")


def test_a_server_without_stls_gets_no_password() -> None:
    with ScriptedPop3() as server:
        with pytest.raises(CertificateRefused, match="STLS"):
            opened(server, tls="starttls")
        assert server.commands == [b"STLS"]


def test_a_stranger_s_certificate_is_refused_and_nothing_sent(certificate: Path) -> None:
    with ScriptedPop3(Scripted(), certificate) as server:
        with pytest.raises(CertificateRefused):
            opened(server, tls="implicit")
        assert server.commands == []


@pytest.mark.parametrize("greeting", [b"* OK IMAP4rev1 ready", b"220 smtp ready", b"-ERR [SYS/TEMP] not now", b""])
def test_what_is_no_pop3_server_is_said(greeting: bytes) -> None:
    with ScriptedPop3(Scripted(greeting=greeting)) as server, pytest.raises(ConnectionFailed):
        opened(server)


# Listing


def test_a_listing_has_numbers_names_and_sizes() -> None:
    with ScriptedPop3(scripted(*MAILS)) as server:
        session = opened(server)
        assert session.listing() == [
            Listed(number, b"uid-%d" % number, len(raw)) for number, raw in enumerate(MAILS, 1)
        ]


def test_nonsense_in_a_listing_stops_nothing() -> None:
    script = scripted(*MAILS[:3], sizes={1: b"-5", 2: b"what", 3: b"99999999999999999999"})
    script.on = {b"UIDL": [b"+OK\r\n3 c\r\nx y\r\n1 a\r\n99 z\r\n2 " + b"b" * 9000 + b"\r\n.\r\n"]}
    with ScriptedPop3(script) as server:
        session = opened(server)
        assert session.listing() == [Listed(1, b"a", -1), Listed(2, b"", -1), Listed(3, b"c", -1)]


def test_a_server_without_uidl_and_top_can_be_read() -> None:
    with ScriptedPop3(scripted(*MAILS, uidl=False, top=False)) as server:
        session = opened(server)
        assert [each.uidl for each in session.listing()] == [b""] * 5
        assert [each.octets for each in session.headers([1, 2])] == [None, None]
        assert everything(session) == MAILS


def test_a_listing_that_is_refused_is_an_error() -> None:
    script = scripted(*MAILS, on={b"LIST": [b"-ERR [SYS/PERM] broken\r\n"], b"STAT": [b"-ERR [SYS/PERM] broken\r\n"]})
    with ScriptedPop3(script) as server, pytest.raises(ServerRefused, match="broken"):
        opened(server).listing()


# Messages


@pytest.mark.parametrize("pipelining", [True, False])
def test_every_octet_comes_through(pipelining: bool) -> None:
    sent = [*nasty_mail().values(), *nasty_octets().values(), *MAILS * 60, b".\r\n..\r\n.x\r\n", b"no line end"]
    capabilities = tuple(each for each in CAPABILITIES if pipelining or each != "PIPELINING")
    with ScriptedPop3(scripted(*sent, capabilities=capabilities)) as server:
        session = opened(server)
        assert everything(session) == sent
        session.quit()


def test_a_large_message_comes_through_whether_it_ends_with_a_line_end_or_not() -> None:
    line = b".dots and more\r\n" * 64
    sent = [line * 6000, line * 6000 + b"end"]
    with ScriptedPop3(scripted(*sent)) as server:
        assert everything(opened(server)) == sent


def test_headers_are_the_beginning_of_messages() -> None:
    with ScriptedPop3(scripted(*MAILS)) as server:
        found = list(opened(server).headers([2, 4]))
        assert [each.number for each in found] == [2, 4]
        assert all(MAILS[each.number - 1].startswith(each.octets or b"no") for each in found)


def test_sizes_that_are_wrong_frame_nothing() -> None:
    sent = [b"a: b\r\n\r\nx\r\n", b"a: b\r\n\r\nyy\r\n", b"a: b\r\n\r\nz"]
    with ScriptedPop3(scripted(*sent, sizes={1: b"3", 2: b"10", 3: b"9"})) as server:
        found = everything(opened(server))
    assert found == [sent[0], sent[1], sent[2] + b"\r\n"]  # once it is wrong, it says nothing about the last line end


def test_a_message_that_comes_empty_is_asked_for_once_more() -> None:
    empty = b"+OK\r\n.\r\n"
    with ScriptedPop3(scripted(*MAILS, on={b"RETR 2": [empty], b"RETR 4": [empty, empty]})) as server:
        session = opened(server)
        found = list(session.retrieve(session.listing()))
    assert [each.number for each in found] == [1, 2, 3, 4, 5]
    assert [type(each) for each in found] == [Retrieved, Retrieved, Retrieved, Refused, Retrieved]


def test_a_message_that_is_refused_does_not_stop_the_others() -> None:
    with ScriptedPop3(scripted(*MAILS, on={b"RETR 2": [b"-ERR [SYS/PERM] gone wrong\r\n"]})) as server:
        session = opened(server)
        found = list(session.retrieve(session.listing()))
    assert [type(each) for each in found] == [Retrieved, Refused, Retrieved, Retrieved, Retrieved]


@pytest.mark.parametrize("how", ["retrieve", "headers"])
def test_a_server_that_wants_a_pause_is_not_asked_for_each_of_the_others(how: str) -> None:
    text = b"-ERR Request is throttled. Suggested Backoff Time: 299000 milliseconds\r\n"
    script = scripted(*MAILS, capabilities=("TOP", "UIDL", "USER"), on={b"RETR": [text] * 9, b"TOP": [text] * 9})
    with ScriptedPop3(script) as server:
        session = opened(server)
        listing = session.listing()
        asking = session.retrieve(listing) if how == "retrieve" else session.headers(range(1, 6))
        with pytest.raises(Throttled) as asked:
            list(asking)
        assert asked.value.pause == 299
        assert len([command for command in server.commands if command.startswith((b"RETR", b"TOP"))]) == 1


@pytest.mark.parametrize("answer", [None, b"+OK\r\nhalf a mess"])
def test_a_connection_that_ends_within_a_message_is_lost(answer: bytes | None) -> None:
    capabilities = ("TOP", "UIDL", "USER")
    with ScriptedPop3(scripted(*MAILS, on={b"RETR 3": [answer]}, capabilities=capabilities)) as server:
        session = opened(server, timeout=0.5)
        coming = session.retrieve(session.listing())
        assert [each.number for each in (next(coming), next(coming))] == [1, 2]
        with pytest.raises(ConnectionLost):
            next(coming)


def test_small_pieces_make_no_difference() -> None:
    with ScriptedPop3(scripted(*MAILS, pieces=3)) as server:
        assert everything(opened(server)) == MAILS


# Deleting


def test_what_is_marked_goes_with_quit_and_not_without() -> None:
    with ScriptedPop3(scripted(*MAILS)) as server:
        session = opened(server)
        assert session.delete(1)
        session.close()
        assert len(server.scripted.mail) == 5
        session = opened(server)
        assert session.delete(1)
        session.quit()
        session.close()
        assert [raw for _, raw in server.scripted.mail] == MAILS[1:]


def test_a_quit_that_is_refused_or_lost_is_an_error() -> None:
    with ScriptedPop3(scripted(*MAILS, on={b"QUIT": [b"-ERR some deleted messages not removed\r\n", None]})) as server:
        with pytest.raises(ServerRefused):
            opened(server).quit()
        with pytest.raises(ConnectionLost):
            opened(server).quit()


def test_reading_sends_nothing_that_changes_anything() -> None:
    with ScriptedPop3(scripted(*MAILS)) as server:
        session = opened(server)
        list(session.headers([1]))
        everything(session)
        session.quit()
        words = {line.split()[0] for line in server.commands if not line.endswith(b"=")}
    assert words <= {b"CAPA", b"AUTH", b"LIST", b"UIDL", b"TOP", b"RETR", b"QUIT"}


# Dovecot


def pop3(account: Account, **options: Any) -> Pop3Settings:
    given = Pop3Settings(
        host=account.host, port=account.server.ports.pop3s, username=account.username, password=account.password,
        ca_file=account.ca_file,
    )  # fmt: skip
    return replace(given, **options)


@pytest.mark.parametrize("tls", ["implicit", "starttls", "none"])
def test_dovecot_gives_every_octet(account: Account, tls: str) -> None:
    sent = [*(each.raw for each in corpus.messages("nasty", 60)), *(each.raw for each in corpus.messages("bulk", 60))]
    sent = [corpus.crlf(raw) for raw in sent if raw]
    account.deliver("INBOX", sent)
    port = account.server.ports.pop3s if tls == "implicit" else account.server.ports.pop3

    session = Pop3Source(pop3(account, tls=tls, port=port)).open()

    there = [each.raw for each in account.messages("INBOX")]  # by IMAP; of two CRs before LF, Dovecot drops one
    assert len(there) == len(sent)
    assert sorted(everything(session)) == sorted(there)
    assert session.identity.capabilities
    session.quit()


def test_dovecot_refuses_a_wrong_password(account: Account) -> None:
    with pytest.raises(LoginRefused, match=account.username):
        Pop3Source(pop3(account, password="wrong")).open()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionFailed):
        Pop3Source(Pop3Settings(host="127.0.0.1", port=port, username="a", password="b", tls="none")).open()
