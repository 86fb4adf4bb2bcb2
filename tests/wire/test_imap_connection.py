"""Reaching a server: it is the right one, or nothing is said to it; and no error ever tells a password."""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.errors import (
    BackupdError,
    CertificateRefused,
    ConnectionFailed,
    ConnectionLost,
    LoginRefused,
    ProtocolError,
    ServerRefused,
    Throttled,
    Transient,
)
from backupd.wire.imap_connection import ImapConnection, ImapSettings, Literal, connect, string
from backupd.wire.throttling import EXHAUSTED, SLOWER
from backupd.wire.tls import fingerprint_of
from tests.support.dovecot_account import Account
from tests.support.mail import large_message, message
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Challenge, Cut, ScriptedImap, done
from tests.support.tls import Authority

SECRET = 'gänse-fuß ☃ "quoted\\'


def settings(server: ScriptedImap, **more: object) -> ImapSettings:
    values = {"username": USER, "password": PASSWORD, "port": server.port, "tls": "none", "timeout": 5.0, **more}
    return ImapSettings("127.0.0.1", **values)  # type: ignore[arg-type]


def of(account: Account, **more: object) -> ImapSettings:
    values = {
        "username": account.username, "password": account.password, "port": account.tls_port,
        "ca_file": account.ca_file, **more,
    }  # fmt: skip
    return ImapSettings(account.host, **values)  # type: ignore[arg-type]


@pytest.fixture
def certificate(tmp_path: Path, authority: Authority) -> Path:
    """A folder with ca.pem, cert.pem and key.pem for 127.0.0.1."""
    authority.write(tmp_path)
    return tmp_path


# -- the server is who it says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["implicit", "starttls"])
def test_a_certificate_of_a_trusted_authority_is_accepted(account: Account, how: str) -> None:
    port = account.tls_port if how == "implicit" else account.port
    with connect(of(account, tls=how, port=port)) as connection:
        assert isinstance(connection.stream.sock, ssl.SSLSocket)
        assert connection.stream.sock.version() in ("TLSv1.2", "TLSv1.3")
        assert connection.server[b"name"] == b"Dovecot"
        assert connection.enabled == {b"QRESYNC"}


@pytest.mark.parametrize("how", ["implicit", "starttls"])
def test_an_unknown_authority_is_refused_with_the_fingerprint_seen(account: Account, how: str) -> None:
    port = account.tls_port if how == "implicit" else account.port
    with pytest.raises(CertificateRefused) as refused:
        connect(of(account, tls=how, port=port, ca_file=None))
    pem = ssl.get_server_certificate((account.host, account.tls_port))
    seen = fingerprint_of(ssl.PEM_cert_to_DER_cert(pem))
    assert seen in refused.value.remedy
    with connect(of(account, tls=how, port=port, ca_file=None, fingerprint=seen)) as connection:
        connection.command(b"NOOP")


@pytest.mark.parametrize("how", ["implicit", "starttls"])
def test_another_fingerprint_is_refused_before_any_credential(certificate: Path, how: str) -> None:
    with ScriptedImap(certificate=certificate, starttls="yes" if how == "starttls" else "") as server:
        with pytest.raises(CertificateRefused, match="not the pinned one"):
            connect(settings(server, tls=how, ca_file=certificate / "ca.pem", fingerprint="AB" * 32))
        assert not server.received(rb"LOGIN|AUTHENTICATE")


@pytest.mark.parametrize(
    ("names", "addresses", "expired"),
    [(("mail.example.org",), (), False), (("localhost",), ("127.0.0.1",), True)],
    ids=["for another name", "expired"],
)
def test_a_certificate_that_does_not_fit_is_refused(
    certificate: Path, authority: Authority, names: tuple[str, ...], addresses: tuple[str, ...], expired: bool
) -> None:
    pem, key = authority.issue(names, addresses, expired=expired)
    (certificate / "cert.pem").write_bytes(pem)
    (certificate / "key.pem").write_bytes(key)
    with ScriptedImap(certificate=certificate) as server:
        with pytest.raises(CertificateRefused, match="fingerprint is"):
            connect(settings(server, tls="implicit", ca_file=certificate / "ca.pem"))
        assert server.commands == []


def test_a_server_from_which_starttls_was_stripped_gets_no_credential() -> None:
    with ScriptedImap() as server:
        with pytest.raises(CertificateRefused, match="does not offer STARTTLS"):
            connect(settings(server, tls="starttls"))
        assert server.commands == [b"STARTTLS"]


def test_a_greeting_that_skips_the_login_skips_no_tls() -> None:
    with ScriptedImap(greeting=b"* PREAUTH welcome\r\n") as server:
        with pytest.raises(CertificateRefused):
            connect(settings(server, tls="starttls"))
        assert server.commands == []


def test_octets_slipped_in_behind_starttls_are_refused(certificate: Path) -> None:
    with ScriptedImap(certificate=certificate, starttls="inject") as server:
        with pytest.raises(ProtocolError, match="in the clear after STARTTLS"):
            connect(settings(server, tls="starttls", ca_file=certificate / "ca.pem"))
        assert server.commands == [b"STARTTLS"]


def test_capabilities_from_before_the_handshake_count_for_nothing(certificate: Path) -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 FORGED STARTTLS] hi\r\n"
    with ScriptedImap(certificate=certificate, starttls="yes", greeting=greeting) as server:
        with connect(settings(server, tls="starttls", ca_file=certificate / "ca.pem")) as connection:
            assert not connection.has(b"FORGED")


def test_an_authority_file_that_is_none_is_named(account: Account, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        if path.name.startswith("empty"):
            path.write_text("no certificate")
        with pytest.raises(CertificateRefused) as refused:
            connect(of(account, ca_file=path))
        assert path.name in str(refused.value)


# -- it cannot be reached ----------------------------------------------------------------------------------------------


def test_a_port_without_a_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionFailed) as failed:
        connect(ImapSettings("127.0.0.1", USER, PASSWORD, port=port, timeout=5))
    assert f"127.0.0.1:{port}" in str(failed.value)
    assert "check host and port" in failed.value.remedy


def test_a_host_without_an_address_is_named() -> None:
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid:993"):
        connect(ImapSettings("no-such-host.invalid", USER, PASSWORD, timeout=5))


def test_tls_on_a_plain_port_says_which_port_is_which(account: Account) -> None:
    with pytest.raises(ConnectionFailed, match="993"):
        connect(of(account, port=account.port))


def test_a_server_that_never_speaks_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ConnectionFailed, match="sent nothing"):
            connect(ImapSettings("127.0.0.1", USER, PASSWORD, port=silent.getsockname()[1], tls="none", timeout=0.05))


@pytest.mark.parametrize(
    "greeting", [b"* BYE too many connections\r\n", b"220 smtp ready\r\n", b"SSH-2.0-x\r\n", b"\r\n"]
)
def test_another_kind_of_greeting_is_no_connection(greeting: bytes) -> None:
    with ScriptedImap(greeting=greeting) as server:
        with pytest.raises(ConnectionFailed):
            connect(settings(server))
        assert server.commands == []


# -- logging in --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_refused_and_never_told(account: Account) -> None:
    with pytest.raises(LoginRefused) as refused:
        connect(of(account, password="wrong-" + SECRET))
    assert account.username in str(refused.value)
    assert SECRET not in told_by(refused.value)


def told_by(error: BackupdError) -> str:
    """All that an error can show of itself, with everything chained to it and all local variables' owners."""
    shown = "".join(traceback.TracebackException.from_exception(error).format())
    return shown + repr(error.__dict__) + repr(error.__cause__) + repr(error.__context__)


@pytest.mark.parametrize("capabilities", [b"IMAP4rev1", b"IMAP4rev1 AUTH=PLAIN", b"IMAP4rev1 AUTH=PLAIN SASL-IR"])
def test_a_server_that_repeats_the_password_cannot_make_us_tell_it(
    capabilities: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedImap(capabilities=capabilities) as server:
        refusal = b"%%TAG%% NO wrong password %s\r\n" % PASSWORD.encode()
        server.on(rb"LOGIN|AUTHENTICATE PLAIN .", refusal)
        server.on(rb"AUTHENTICATE", Challenge(refusal))
        with pytest.raises(LoginRefused) as refused:
            connect(settings(server))
    assert PASSWORD not in told_by(refused.value)
    assert "***" in str(refused.value)
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(settings(server))


@pytest.mark.parametrize("before", [b"", b"x" * 195])
def test_a_server_that_repeats_what_was_sent_cannot_make_us_tell_half_of_it(before: bytes) -> None:
    sent = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    with ScriptedImap(capabilities=b"IMAP4rev1 AUTH=PLAIN SASL-IR") as server:
        server.on(rb"AUTHENTICATE", b"%%TAG%% NO %b%b %b\r\n" % (before, PASSWORD.encode(), sent))
        with pytest.raises(LoginRefused) as refused:
            connect(settings(server))
    assert PASSWORD[:5] not in told_by(refused.value)
    assert sent.decode()[:12] not in told_by(refused.value)


def test_sasl_in_one_round_trip_where_the_server_can() -> None:
    with ScriptedImap() as server:
        connect(settings(server, password=SECRET)).close()
        (sent,) = server.received(rb"AUTHENTICATE PLAIN ")
        assert base64.b64decode(sent.split()[2]) == f"\0{USER}\0{SECRET}".encode()


def test_sasl_in_two_steps_where_it_cannot() -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1 AUTH=PLAIN") as server:
        server.on(rb"AUTHENTICATE PLAIN\Z", Challenge(b"%TAG% OK in\r\n"))
        connect(settings(server, password=SECRET)).close()
        assert server.responses == [base64.b64encode(f"\0{USER}\0{SECRET}".encode())]


@pytest.mark.parametrize("more", [b"", b" LITERAL+"])
def test_login_takes_any_password(more: bytes) -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1" + more) as server:
        connect(settings(server, password=SECRET)).close()
        (sent,) = server.received(rb"LOGIN")
        assert SECRET.encode() in sent


@pytest.mark.parametrize("how", ["plain", "login"])
def test_passwords_of_any_alphabet_open_a_real_server(account: Account, how: str) -> None:
    users = account.server.state / "users" / account.username
    users.write_text(users.read_text("utf-8").replace(account.password, SECRET), "utf-8")
    with connect(of(account, authentication=how, password=SECRET)) as connection:
        connection.command(b"NOOP")


def test_a_password_is_asked_for_at_each_login() -> None:
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return PASSWORD

    with ScriptedImap() as server:
        for _ in range(2):
            connect(settings(server, password=password)).close()
    assert len(asked) == 2


def test_a_login_that_is_disabled_is_not_tried() -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1 LOGINDISABLED") as server:
        with pytest.raises(LoginRefused, match="no login by password"):
            connect(settings(server))
        assert not server.received(rb"LOGIN")


@pytest.mark.parametrize(
    "text",
    [b"[UNAVAILABLE] try later", b"[LIMIT] too many connections", b"User is authenticated but not connected."],
)
def test_a_refusal_that_may_pass_is_no_wrong_password(text: bytes) -> None:
    with ScriptedImap() as server:
        server.on(rb"AUTHENTICATE", b"%TAG% NO " + text + b"\r\n")
        with pytest.raises(ConnectionFailed):
            connect(settings(server))


@pytest.mark.parametrize(
    ("text", "pause", "guessed"),
    [
        (b"Request is throttled. Suggested Backoff Time: 299000 milliseconds", 299.0, False),
        (b"[THROTTLED] not now", SLOWER, True),
        (b"[ALERT] Account exceeded command or bandwidth limits. (Failure)", EXHAUSTED, True),
        (b"[OVERQUOTA] enough for today", EXHAUSTED, True),
    ],
)
@pytest.mark.parametrize("when", ["greeting", "login", "command"])
def test_a_server_that_wants_a_pause_says_for_how_long(when: str, text: bytes, pause: float, guessed: bool) -> None:
    bye = b"* BYE " + text + b"\r\n"
    with ScriptedImap(greeting=bye if when == "greeting" else b"* OK ready\r\n") as server:
        if when == "login":
            server.on(rb"AUTHENTICATE", b"%TAG% NO " + text + b"\r\n")
        server.on(rb"NOOP", Cut(bye))
        with pytest.raises(Throttled) as refused:
            connect(settings(server)).command(b"NOOP")
    assert (refused.value.pause, refused.value.guessed) == (pause, guessed)
    assert isinstance(refused.value, Transient)


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_a_refused_token_is_answered_until_the_server_says_no(mechanism: str) -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER") as server:
        refusal = b"%TAG% NO [AUTHENTICATIONFAILED] token expired\r\n"
        server.on(rb"AUTHENTICATE", Challenge(refusal, text=b"eyJzdGF0dXMiOiI0MDEifQ=="))
        with pytest.raises(LoginRefused, match="token expired"):
            connect(settings(server, authentication=mechanism))


def test_logging_in_takes_few_round_trips() -> None:
    greeting = b"* OK [CAPABILITY " + CAPABILITIES + b"] ready\r\n"
    with ScriptedImap(greeting=greeting) as server, connect(settings(server)) as connection:
        assert connection.stream.round_trips == 2  # AUTHENTICATE; ID and ENABLE together


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection(account: Account) -> Iterator[ImapConnection]:
    with connect(of(account)) as opened:
        yield opened


def test_a_refused_command_tells_code_and_words(connection: ImapConnection) -> None:
    with pytest.raises(ServerRefused) as refused:
        connection.command(b"EXAMINE", string(b"no such mailbox"))
    assert "EXAMINE" in str(refused.value)
    assert "exist" in str(refused.value)
    connection.command(b"NOOP")


def test_pipelined_commands_each_get_their_own_answer(connection: ImapConnection) -> None:
    tags = [connection.send(b"STATUS", string(name), b"(MESSAGES)") for name in (b"INBOX", b"nowhere", b"INBOX")]
    kinds = [connection.wait(tag).status.kind for tag in tags]
    assert kinds == [b"OK", b"NO", b"OK"]


def test_answers_may_be_waited_for_in_another_order(connection: ImapConnection) -> None:
    first, second = connection.send(b"NOOP"), connection.send(b"CAPABILITY")
    assert connection.wait(second).status.kind == b"OK"
    assert connection.wait(first).status.kind == b"OK"


@pytest.mark.parametrize("name", [b"plain", b'"', b"\\", b"a b", b"\xc3\xa4", b"x" * 600, b"{3}", b"", b"a\tb"])
def test_strings_of_any_octets_arrive(connection: ImapConnection, name: bytes) -> None:
    assert connection.wait(connection.send(b"STATUS", string(name), b"(MESSAGES)")).status.kind in (b"OK", b"NO")
    connection.command(b"NOOP")


def test_large_literals_are_sent_in_pieces(connection: ImapConnection, account: Account) -> None:
    raw = large_message(3 << 20)
    connection.command(b"APPEND INBOX", Literal(raw))
    assert [one.raw for one in account.messages("INBOX")] == [raw]


@pytest.mark.parametrize("more", [b"", b" LITERAL-", b" LITERAL+"])
def test_literals_wait_for_leave_where_they_must(more: bytes) -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1" + more) as server, connect(settings(server)) as connection:
        server.on(rb"APPEND", done(b"%TAG%"))
        body = message("small")
        earlier = connection.send(b"NOOP")
        answer = connection.command(b"APPEND INBOX", Literal(body))
        assert answer.status.kind == b"OK"
        assert connection.wait(earlier).status.kind == b"OK"


def test_a_literal_that_is_refused_is_not_sent() -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1") as server, connect(settings(server)) as connection:
        server.refuse_literals = b"NO [TOOBIG] too large"
        with pytest.raises(ServerRefused, match="too large") as refused:
            connection.command(b"APPEND INBOX", Literal(message("large")))
        assert refused.value.code == b"TOOBIG"
        connection.command(b"NOOP")


def test_a_connection_lost_stays_lost() -> None:
    with ScriptedImap() as server, connect(settings(server)) as connection:
        server.on(rb"NOOP", Cut(b"* OK cut he"))
        with pytest.raises(ConnectionLost, match="closed the connection"):
            connection.command(b"NOOP")
        with pytest.raises(ConnectionLost):
            connection.command(b"NOOP")
        assert connection.closed


def test_silence_is_a_lost_connection() -> None:
    with ScriptedImap() as server, connect(settings(server, timeout=0.3)) as connection:
        server.on(rb"NOOP", b"")
        with pytest.raises(ConnectionLost, match="too long"):
            connection.command(b"NOOP")


def test_an_answer_to_nothing_asked_ends_the_connection() -> None:
    with ScriptedImap() as server, connect(settings(server)) as connection:
        server.on(rb"NOOP", b"b99 OK surprise\r\n")
        with pytest.raises(ProtocolError, match="never sent"):
            connection.command(b"NOOP")
        assert connection.closed


def test_bye_tells_why_the_server_went() -> None:
    with ScriptedImap() as server, connect(settings(server)) as connection:
        server.on(rb"NOOP", Cut(b"* BYE Autologout; idle for too long\r\n"))
        with pytest.raises(ConnectionLost, match="Autologout"):
            connection.command(b"NOOP")


def test_leaving_is_polite_and_never_fails() -> None:
    with ScriptedImap() as server:
        connection = connect(settings(server))
        connection.logout()
        connection.logout()
        assert len(server.received(rb"LOGOUT")) == 1
        broken = connect(settings(server))
        server.on(rb"LOGOUT", Cut(b"* BYE\r\n"))
        broken.logout()
        assert broken.closed
