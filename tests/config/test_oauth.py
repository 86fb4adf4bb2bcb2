"""The section oauth2: who gives tokens for what, and one line for what cannot be meant."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from backupd import config
from backupd.config.oauth import OAuth2Config
from tests.support.config import changed, refused, write

SECRET = "password: secret"


def loaded(folder: Path, section: str) -> OAuth2Config:
    """The section, as the configuration has it."""
    imap = config.load(write(folder, changed(SECRET, f"oauth2: {{{section}}}"))).accounts["alice"].imap
    assert imap is not None
    assert imap.oauth2 is not None
    assert imap.password is None
    return imap.oauth2


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("provider: google, client_id: a, client_secret: b", {"provider": "google", "grant": "user"}),
        ("provider: microsoft, client_id: a", {"tenant": None, "client_secret": None}),
        ("issuer: https://login.example.com/realms/x/, client_id: a", {"issuer": "https://login.example.com/realms/x"}),
        ("issuer: http://127.0.0.1:8080, client_id: a", {"issuer": "http://127.0.0.1:8080"}),
        ("token_endpoint: https://x.example/t?p=1, client_id: a", {"token_endpoint": "https://x.example/t?p=1"}),
        ("provider: google, client_id: a, login_lifetime: 7d", {"login_lifetime": timedelta(days=7)}),
        (
            "provider: google, client_id: a, client_secret: b, client_secret_expires: 2027-11-30",
            {"client_secret_expires": date(2027, 11, 30)},
        ),
        ("provider: google, client_id: a, scopes: [x, y]", {"scopes": ("x", "y")}),
        ("grant: service_account, service_account_key: k.json", {"provider": None, "subject": None}),
        (
            (
                "provider: microsoft, tenant: a.example, client_id: a, grant: client_credentials, certificate: c.pem,"
                " private_key: k.pem"
            ),
            {"grant": "client_credentials"},
        ),
    ],
)
def test_what_can_be_meant_is_taken(tmp_path: Path, section: str, expected: dict[str, Any]) -> None:
    found = loaded(tmp_path, section)
    assert {name: getattr(found, name) for name in expected} == expected


NOWHERE = "7: accounts.alice.imap.oauth2"
IN_THE_OPEN = "http would send tokens in the open; write https"
ADDRESS = "not the address of a provider; write https://host/path, without user or password"


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("client_id: a", f"{NOWHERE}: no provider; add provider: google or microsoft, or issuer: https://..."),
        (
            "provider: google, issuer: https://a.example, client_id: a",
            f"{NOWHERE}.issuer: there is a provider already; one of the two is enough",
        ),
        (
            "issuer: https://a.example, token_endpoint: https://a.example/t, client_id: a",
            f"{NOWHERE}.token_endpoint: there is an issuer already; one of the two is enough",
        ),
        ("provider: yahoo, client_id: a", f"{NOWHERE}.provider: not one of those known; write google or microsoft"),
        ("provider: google", f"{NOWHERE}.client_id: missing; add the id that the provider gave the app"),
        ("issuer: http://login.example.com, client_id: a", f"{NOWHERE}.issuer: {IN_THE_OPEN}"),
        ("issuer: login.example.com, client_id: a", f"{NOWHERE}.issuer: {ADDRESS}"),
        ('issuer: "https://u:p@login.example.com", client_id: a', f"{NOWHERE}.issuer: {ADDRESS}"),
        (
            'issuer: "https://a.example/?x", client_id: a',
            f"{NOWHERE}.issuer: not an issuer; write its address without ? and what follows",
        ),
        ("provider: google, tenant: x, client_id: a", f"{NOWHERE}.tenant: only microsoft has tenants; take it away"),
        (
            "provider: google, client_id: a, authorization_endpoint: https://a.example",
            f"{NOWHERE}.authorization_endpoint: those of google are known; take it away",
        ),
        (
            "provider: microsoft, client_id: a, certificate: c.pem",
            f"{NOWHERE}.certificate: certificate and private_key belong together; add private_key",
        ),
        (
            "provider: microsoft, client_id: a, private_key: k.pem",
            f"{NOWHERE}.private_key: certificate and private_key belong together; add certificate",
        ),
        (
            "provider: microsoft, client_id: a, client_secret: b, certificate: c, private_key: k",
            f"{NOWHERE}.client_secret: there is a certificate already; one of the two is enough",
        ),
        (
            "provider: google, client_id: a, client_secret_expires: 2027-01-01",
            f"{NOWHERE}.client_secret_expires: there is no client_secret; take it away",
        ),
        (
            "provider: google, client_id: a, client_secret: b, client_secret_expires: soon",
            f"{NOWHERE}.client_secret_expires: not a day; write it as 2027-11-30",
        ),
        (
            "provider: microsoft, tenant: a.example, client_id: a, grant: client_credentials",
            f"{NOWHERE}.grant: client_credentials needs a client_secret, or certificate and private_key; add it",
        ),
        (
            "provider: microsoft, client_id: a, client_secret: b, grant: client_credentials",
            f"{NOWHERE}.tenant: client_credentials belong to one tenant; write its domain or id",
        ),
        (
            "provider: google, client_id: a, client_secret: b, grant: client_credentials",
            f"{NOWHERE}.grant: Google does not let apps read mail so; use service_account",
        ),
        (
            (
                "provider: microsoft, tenant: a.example, client_id: a, client_secret: b, grant: client_credentials,"
                " login_lifetime: 1d"
            ),
            f"{NOWHERE}.login_lifetime: nobody logs in with client_credentials; take it away",
        ),
        (
            "grant: service_account",
            f"{NOWHERE}.service_account_key: missing; write the path of the JSON file with the account's key",
        ),
        (
            "provider: microsoft, grant: service_account, service_account_key: k",
            f"{NOWHERE}.grant: service accounts are Google's; use client_credentials",
        ),
        (
            "grant: service_account, service_account_key: k, client_id: a",
            f"{NOWHERE}.client_id: a service account is known by its key alone; take it away",
        ),
        (
            "provider: google, client_id: a, service_account_key: k",
            f"{NOWHERE}.service_account_key: it is used with grant: service_account alone; add that",
        ),
        (
            "provider: google, client_id: a, subject: b",
            f"{NOWHERE}.subject: it is used with grant: service_account alone; username says whose mail is read",
        ),
        ("provider: google, clientid: a", f"{NOWHERE}.clientid: unknown key; did you mean client_id?"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, section: str, line: str) -> None:
    said = refused(tmp_path, changed(SECRET, f"oauth2: {{{section}}}"))
    assert said.removesuffix(" (and 1 more)") == line


@pytest.mark.parametrize(
    ("imap", "line"),
    [
        ("", "7: accounts.alice.imap.password: missing; add it, or an oauth2 section"),
        (
            "password: x, oauth2: {provider: google, client_id: a}",
            "7: accounts.alice.imap.oauth2: there is a password already; one of password and oauth2 is how to log in",
        ),
        (
            "authentication: plain, oauth2: {provider: google, client_id: a}",
            (
                "7: accounts.alice.imap.authentication: plain sends a password, and oauth2 gives tokens; "
                "use auto, xoauth2 or oauthbearer"
            ),
        ),
    ],
)
def test_there_is_one_way_to_log_in(tmp_path: Path, imap: str, line: str) -> None:
    assert refused(tmp_path, changed(SECRET, imap)) == line


def test_secrets_in_it_are_secrets_like_all_others(tmp_path: Path) -> None:
    section = "issuer: https://a.example, client_id: a, client_secret: hunter2-hunter2"
    path = write(tmp_path, changed(SECRET, f"oauth2: {{{section}}}"))
    found = config.load(path)
    assert "accounts.alice.imap.oauth2.client_secret" in dict(found.secrets())
    assert "hunter2" not in f"{found!r} {found.model_dump()}"
    said = refused(tmp_path, changed(SECRET, f"oauth2: {{{section}, nonsense: hunter2}}"))
    assert "hunter2" not in said


def test_logins_are_kept_in_one_place_whichever_copy_is_worked_on(tmp_path: Path) -> None:
    from backupd.operations.opening import at_copy

    found = config.load(write(tmp_path, changed("accounts:", "copies: [{url: /srv/copy}]\naccounts:")))
    assert found.login_folder == Path("/var/lib/backupd/logins")
    other = at_copy(found, "1")
    assert other.state_dir != found.state_dir
    assert other.login_folder == found.login_folder
