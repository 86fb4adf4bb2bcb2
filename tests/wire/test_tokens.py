"""Logging in with an access token: by what the server offers, with another one if it is refused, and never told."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from backupd.errors import LoginRefused
from backupd.wire import pop3_connection, sasl
from backupd.wire.imap_connection import connect
from backupd.wire.imap_settings import ImapSettings
from backupd.wire.pop3_settings import Pop3Settings
from tests.support.dovecot import Dovecot
from tests.support.oidc_provider import OidcProvider
from tests.support.scripted_imap import Challenge, ScriptedImap
from tests.support.scripted_pop3 import CAPABILITIES, PASSWORD, USER, Scripted, ScriptedPop3

OLD, NEW = "old-token-secret", "new-token-secret"
REFUSED = b"%TAG% NO [AUTHENTICATIONFAILED] token expired: "


def never(_: str) -> str | None:
    return None


def imap(server: ScriptedImap, **more: Any) -> ImapSettings:
    values = {"username": "alice", "password": lambda: OLD, "port": server.port, "tls": "none", "renew": never, **more}
    return ImapSettings("127.0.0.1", **values)


def pop3(server: ScriptedPop3, **more: Any) -> Pop3Settings:
    values = {"username": "alice", "password": lambda: OLD, "port": server.port, "tls": "none", "renew": never, **more}
    return Pop3Settings("127.0.0.1", **values)


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (b"AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER", b"OAUTHBEARER"),
        (b"AUTH=PLAIN AUTH=XOAUTH2", b"XOAUTH2"),
        (b"AUTH=OAUTHBEARER", b"OAUTHBEARER"),
    ],
)
def test_imap_takes_what_the_server_offers(offered: bytes, taken: bytes) -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR " + offered) as server:
        connect(imap(server)).close()
        (sent,) = server.received(rb"AUTHENTICATE")
    assert sent.split()[1] == taken
    assert f"auth=Bearer {OLD}\1\1".encode() in base64.b64decode(sent.split()[2])


def test_a_token_is_never_sent_as_a_password() -> None:
    """Not where the server offers nothing for tokens, and not after a BAD."""
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=PLAIN") as server:
        with pytest.raises(LoginRefused, match="takes no tokens"):
            connect(imap(server))
        assert server.received(rb"AUTHENTICATE|LOGIN") == []
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2") as server:
        server.on(rb"AUTHENTICATE", b"%TAG% BAD what?\r\n")
        with pytest.raises(LoginRefused):
            connect(imap(server))
        assert server.received(rb"LOGIN") == []


@pytest.mark.parametrize(("mechanism", "acknowledged"), [("xoauth2", b""), ("oauthbearer", b"AQ==")])
def test_a_refusal_is_acknowledged_as_each_mechanism_wants_it(mechanism: str, acknowledged: bytes) -> None:
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER") as server:
        server.on(rb"AUTHENTICATE", Challenge(REFUSED + b"\r\n", text=b"eyJzdGF0dXMiOiI0MDEifQ=="))
        with pytest.raises(LoginRefused):
            connect(imap(server, authentication=mechanism))
        assert server.responses == [acknowledged]


def test_a_refused_token_is_renewed_once() -> None:
    asked: list[str] = []

    def renew(refused: str) -> str:
        asked.append(refused)
        return NEW

    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2") as server:
        server.on(rb"AUTHENTICATE", REFUSED + b"\r\n", times=1)
        connect(imap(server, renew=renew)).close()
        _, second = server.received(rb"AUTHENTICATE")
    assert asked == [OLD]
    assert NEW.encode() in base64.b64decode(second.split()[2])

    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2") as server:
        server.on(rb"AUTHENTICATE", REFUSED + b"\r\n")
        with pytest.raises(LoginRefused) as caught:
            connect(imap(server, renew=renew))
        assert len(server.received(rb"AUTHENTICATE")) == 2
    assert "backupd auth status" in caught.value.remedy


def test_pop3_takes_what_the_server_offers_and_renews_once() -> None:
    bearer = tuple(each.replace("XOAUTH2", "XOAUTH2 OAUTHBEARER") for each in CAPABILITIES)
    for capabilities, taken in ((bearer, b"OAUTHBEARER"), (CAPABILITIES, b"XOAUTH2"), (None, b"XOAUTH2")):
        with ScriptedPop3(Scripted(capabilities=capabilities, on={b"AUTH": [b"-ERR no\r\n"]})) as server:
            pop3_connection.connect(pop3(server, username=USER, renew=lambda refused: PASSWORD)).close()
            assert server.commands.count(b"AUTH " + taken) == 2
            assert not any(line.startswith((b"USER", b"PASS", b"APOP")) for line in server.commands)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_no_error_holds_a_token_even_where_the_server_repeats_it(protocol: str) -> None:
    encoded = base64.b64encode(f"user=alice\1auth=Bearer {OLD}\1\1".encode())
    said = OLD.encode() + b" " + encoded
    with ScriptedImap(capabilities=b"IMAP4rev1 SASL-IR AUTH=XOAUTH2") as server:
        server.on(rb"AUTHENTICATE", REFUSED + said + b"\r\n")
        with ScriptedPop3(Scripted(on={encoded: [b"-ERR no: " + said + b"\r\n"]})) as other:
            log_in = {
                "imap": lambda: connect(imap(server)),
                "pop3": lambda: pop3_connection.connect(pop3(other)),
            }[protocol]
            with pytest.raises(LoginRefused) as caught:
                log_in()
    shown = "".join(traceback.format_exception(caught.value))
    assert OLD not in shown
    assert encoded.decode() not in shown


def test_settings_do_not_show_how_tokens_are_had() -> None:
    with ScriptedImap() as server:
        assert "renew" not in repr(imap(server))
        assert "password" not in repr(imap(server))


def test_an_oauthbearer_message_is_as_the_rfc_writes_it() -> None:
    """RFC 7628, 4.1; with a comma and an equals sign in the name, which stand for themselves in no GS2 header."""
    token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    settings = ImapSettings("server.example.com", "us,er=x@example.com", token, 143)
    assert sasl.initial("oauthbearer", settings, token) == (
        b"n,a=us=2Cer=3Dx@example.com,\1host=server.example.com\1port=143\1"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
    )


@pytest.mark.parametrize("authentication", ["xoauth2", "oauthbearer"])
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_a_real_server_takes_tokens_of_a_real_provider_and_no_others(
    provider: OidcProvider, token_dovecot: Dovecot, authentication: str, protocol: str
) -> None:
    account = token_dovecot.account()
    client = provider.client(account.username)
    good = provider.access_token(client, "", None, "mail")
    client.lifetime = -60
    expired = provider.access_token(client, "", None, "mail")

    def log_in(token: str, renew: Callable[[str], str | None] = never) -> None:
        more: dict[str, Any] = {
            "username": account.username, "password": token, "tls": "none", "renew": renew,
            "authentication": authentication,
        }  # fmt: skip
        if protocol == "imap":
            connect(ImapSettings("127.0.0.1", port=account.port, **more)).logout()
        else:
            pop3_connection.connect(Pop3Settings("127.0.0.1", port=token_dovecot.ports.pop3, **more)).close()

    log_in(good)
    with pytest.raises(LoginRefused):
        log_in(good[:-8] + "AAAAAAAA")
    log_in(expired, lambda refused: good)
