"""What the configuration leaves out, filled in as Google and Microsoft want it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from backupd import config
from backupd.oauth.app import App
from backupd.oauth.provider import Provider
from backupd.operations.oauth_apps import app_of, client_secret_expires
from tests.support.config import changed, write

SECRET = "password: secret"


def app(folder: Path, section: str, protocol: str = "imap") -> App:
    """The app of alice, whose section this is."""
    text = changed(SECRET, f"oauth2: {{{section}}}").replace("    imap:", f"    {protocol}:")
    found = app_of(config.load(write(folder, text)), "alice")
    assert found is not None
    return found


def test_an_account_with_a_password_has_none(tmp_path: Path) -> None:
    assert app_of(config.load(write(tmp_path, changed(SECRET, SECRET))), "alice") is None


def test_google_is_asked_for_mail_and_for_a_login_that_lasts(tmp_path: Path) -> None:
    found = app(tmp_path, "provider: google, client_id: app-1, client_secret: s3cret")
    assert found.scopes == ("https://mail.google.com/",)
    assert found.client_secret is not None
    assert found.client_secret() == "s3cret"
    address = Provider(found).authorization_url(state="s", verifier="v" * 64, redirect_uri="http://127.0.0.1:1")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith("https://accounts.google.com/o/oauth2/v2/auth?")
    assert asked.items() >= {
        "access_type": "offline", "prompt": "consent", "login_hint": "alice", "client_id": "app-1",
        "scope": "https://mail.google.com/", "response_type": "code", "code_challenge_method": "S256",
    }.items()  # fmt: skip
    assert "s3cret" not in address
    assert Provider(found).endpoints.device == "", "Google lets no device read mail"


@pytest.mark.parametrize(("protocol", "scope"), [("imap", "IMAP"), ("pop3", "POP")])
def test_microsoft_is_asked_for_what_the_protocol_needs(tmp_path: Path, protocol: str, scope: str) -> None:
    found = app(tmp_path, "provider: microsoft, tenant: example.onmicrosoft.com, client_id: app-1", protocol)
    assert found.scopes == (f"https://outlook.office.com/{scope}.AccessAsUser.All", "offline_access")
    assert found.endpoints is not None
    assert found.endpoints.device == "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/devicecode"
    assert found.redirect_host == "localhost"
    assert found.unused is not None


def test_microsoft_s_apps_that_read_by_themselves_ask_for_what_they_were_given(tmp_path: Path) -> None:
    section = "provider: microsoft, tenant: t.example, client_id: a, client_secret: b, grant: client_credentials"
    found = app(tmp_path, section)
    assert found.scopes == ("https://outlook.office365.com/.default",)
    assert found.grant == "client_credentials"


def test_any_other_provider_is_found_by_its_address(tmp_path: Path) -> None:
    found = app(tmp_path, "issuer: https://login.example.com/realms/x/, client_id: a")
    assert (found.issuer, found.endpoints) == ("https://login.example.com/realms/x", None)
    assert found.scopes == ("openid", "email", "offline_access")
    assert ("prompt", "consent") in found.parameters


def test_endpoints_can_be_given(tmp_path: Path) -> None:
    section = "token_endpoint: https://a.example/t, device_authorization_endpoint: https://a.example/d, client_id: a"
    found = app(tmp_path, section)
    assert found.endpoints is not None
    assert (found.endpoints.token, found.endpoints.device) == ("https://a.example/t", "https://a.example/d")
    assert found.provider == "https://a.example/t"


def test_a_service_account_reads_for_the_user_of_the_account_or_another(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("{}")
    found = app(tmp_path, "grant: service_account, service_account_key: key.json")
    assert (found.provider, found.subject, found.endpoints) == ("google", "alice", None)
    assert found.service_key is not None
    assert found.service_key() == "{}"
    other = app(tmp_path, "grant: service_account, service_account_key: key.json, subject: bob@example.com")
    assert other.subject == "bob@example.com"


def test_a_login_belongs_to_provider_and_app(tmp_path: Path) -> None:
    first = app(tmp_path, "provider: google, client_id: a")
    assert first.identity != app(tmp_path, "provider: google, client_id: b").identity
    assert first.identity != app(tmp_path, "provider: microsoft, client_id: a").identity
    assert first.identity == app(tmp_path, "provider: google, client_id: a, client_secret: rotated").identity


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    shown = repr(app(tmp_path, "provider: google, client_id: a, client_secret: s3cret"))
    assert "s3cret" not in shown
    assert "client_secret=" not in shown


def test_the_last_day_of_a_secret_is_known(tmp_path: Path) -> None:
    section = "provider: google, client_id: a, client_secret: b, client_secret_expires: 2027-11-30"
    loaded = config.load(write(tmp_path, changed(SECRET, f"oauth2: {{{section}}}")))
    assert client_secret_expires(loaded, "alice") == date(2027, 11, 30)
