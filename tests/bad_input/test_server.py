"""Servers that cannot be reached, are not who they should be, or do not let us in: one line that says what to do, no
mail and no password sent, and the other accounts get their backup all the same."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from backupd.wire.tls import fingerprint_of
from tests.support.command import Place, imap, mail_of
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.scripted_imap import ScriptedImap
from tests.support.tls import Authority


@pytest.fixture
def ready(place: Place, account: Account) -> Place:
    """A repository, and an account on the server with one message."""
    account.append("INBOX", message("Hello"))
    place.create()
    return place


def test_a_wrong_password(ready: Place, account: Account) -> None:
    ready.configure({"alice": imap(account, password="not-the-password")})

    ready.failed(1, "backup", saying=["alice: ", account.username, "check username and password"])

    assert ready.snapshots() == []


def test_an_account_that_fails_does_not_stop_the_others(ready: Place, account: Account) -> None:
    ready.configure({"bob": imap(account, password="not-the-password"), "alice": imap(account)})

    ready.failed(1, "backup", saying=["bob: ", "check username and password"])

    assert ready.restored("alice@latest") == mail_of(account)


def test_a_server_without_starttls_is_told_nothing(ready: Place) -> None:
    with ScriptedImap() as server:
        ready.configure({"alice": _scripted(server, tls="starttls")})

        ready.failed(1, "backup", saying=["alice: ", "STARTTLS", "use tls: implicit"])

        assert server.received(rb"(LOGIN|AUTHENTICATE)") == []


def test_a_port_that_speaks_no_tls(ready: Place) -> None:
    with ScriptedImap() as server:
        ready.configure({"alice": _scripted(server, tls="implicit")})

        ready.failed(1, "backup", saying=["alice: ", "TLS handshake failed", "check port and tls"])


def test_a_certificate_of_an_unknown_authority(ready: Place, account: Account) -> None:
    ready.configure({"alice": imap(account, tls="implicit", port=account.tls_port)})

    ready.failed(1, "backup", saying=["alice: ", "not trusted", "pin its certificate with fingerprint", "ca_file"])


def test_a_certificate_for_another_host(ready: Place, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue(["mail.example.org"], [])
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    with ScriptedImap(certificate=tmp_path) as server:
        ready.configure({"alice": _scripted(server, tls="implicit", ca_file=str(tmp_path / "ca.pem"))})

        ready.failed(1, "backup", saying=["alice: ", "not trusted", "127.0.0.1", "fingerprint"])

        assert server.commands == []


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_another_certificate_than_the_pinned_one(ready: Place, account: Account, tls: str) -> None:
    port = account.tls_port if tls == "implicit" else account.port
    ready.configure({"alice": imap(account, tls=tls, port=port, fingerprint="ab" * 32)})

    ready.failed(1, "backup", saying=["alice: ", "not the pinned one", _fingerprint(account)])


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize("trust", ["ca_file", "fingerprint"])
def test_the_right_authority_or_fingerprint_lets_the_backup_go_on(
    ready: Place, account: Account, tls: str, trust: str
) -> None:
    port = account.tls_port if tls == "implicit" else account.port
    known = {"ca_file": str(account.ca_file)} if trust == "ca_file" else {"fingerprint": _fingerprint(account)}
    ready.configure({"alice": imap(account, tls=tls, port=port, **known)})

    ready.done("backup")

    assert ready.restored("alice@latest") == mail_of(account)


def test_a_server_that_is_down(ready: Place, account: Account) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and nobody listens
        port = held.getsockname()[1]
        ready.configure({"alice": imap(account, port=port)})

        ready.failed(1, "backup", saying=["alice: ", f"127.0.0.1:{port}", "cannot connect", "check host and port"])


def test_a_host_name_that_nobody_knows(ready: Place, account: Account) -> None:
    unknown = imap(account, host="mail.invalid", tls="implicit", port=993)
    ready.configure({"alice": unknown})

    ready.failed(1, "backup", saying=["alice: ", "mail.invalid:993", "cannot connect", "check host and port"])


@pytest.mark.parametrize("broken", [{"password": "not-the-password"}, {"port": 1}])
def test_a_restore_to_such_a_server_names_the_account(
    ready: Place, account: Account, broken: dict[str, object]
) -> None:
    ready.configure({"alice": imap(account), "bob": imap(account, **broken)})
    ready.done("backup", "alice")

    ready.failed(1, "restore", "alice@latest", "imap:bob", saying=["bob: ", "check "])


def _scripted(server: ScriptedImap, **more: object) -> dict[str, object]:
    return {"host": server.host, "port": server.port, "username": "tester", "password": "pa55-word", **more}


def _fingerprint(account: Account) -> str:
    pem = (account.ca_file.parent / "cert.pem").read_text()
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(pem))
