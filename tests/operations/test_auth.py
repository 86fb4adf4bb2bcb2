"""Logging in, telling how that stands, and logging out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Response

from backupd import config
from backupd.config.model import Config
from backupd.errors import LoginRefused, NoRepository, StorageDenied, UsageError
from backupd.oauth.device import Invitation
from backupd.oauth.redirect import Request
from backupd.operations import auth
from backupd.operations.auth import Person
from backupd.operations.opening import at_copy, imap_settings, open_logins
from backupd.repository import slots
from backupd.repository.keys import Role
from backupd.repository.repository import create, unlock
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.support.oauth import everything_below, grow_older
from tests.support.oidc_provider import Client, OidcProvider
from tests.support.tls import Authority

PASSPHRASE = "correct horse battery"
DAY = timedelta(days=1)


def configured(folder: Path, accounts: dict[str, dict[str, Any]], *, repository: bool = True) -> Config:
    """A configuration with such oauth2 sections, and a repository whose key opens fast."""
    if repository:
        create(LocalStorage(folder / "repository"), PASSPHRASE, argon2=Argon2(1, 8, 1))
    document = {
        "state_dir": str(folder / "state"),
        "repository": {"url": str(folder / "repository"), "passphrase": PASSPHRASE},
        "accounts": {
            name: {"imap": {"host": "127.0.0.1", "tls": "none", "username": "alice", "oauth2": section}}
            for name, section in accounts.items()
        },
    }
    path = folder / "config.yaml"
    path.touch(mode=0o600)
    path.write_text(json.dumps(document))
    return config.load(path)


def section(provider: OidcProvider, client: Client, **more: Any) -> dict[str, Any]:
    secret = {"client_secret": client.secret} if client.secret else {}
    return {"issuer": provider.issuer, "client_id": client.client_id, **secret, **more}


@pytest.fixture
def client(provider: OidcProvider) -> Client:
    return provider.client("alice")


@pytest.fixture
def loaded(provider: OidcProvider, client: Client, tmp_path: Path) -> Config:
    return configured(tmp_path, {"alice": section(provider, client)})


def whoever(act: Callable[[Any], object] = lambda told: None, told: list[Any] | None = None) -> Person:
    """A person who does what they are told at once."""

    def tell(what: Invitation | Request) -> None:
        if told is not None:
            told.append(what)
        act(what)

    return Person(tell=tell, not_it=lambda why: None, wait=lambda seconds: False)


def log_in(provider: OidcProvider, loaded: Config, account: str = "alice") -> auth.LoggedIn:
    return auth.login(loaded, account, whoever(lambda told: provider.enter(told.code)))


def now() -> datetime:
    return datetime.now(UTC)


def test_a_login_is_kept_and_its_tokens_open_the_account(provider: OidcProvider, loaded: Config) -> None:
    done = log_in(provider, loaded)

    assert (done.provider, done.refreshable) == (provider.issuer, True)
    settings = imap_settings(loaded, "alice")
    assert settings.secret() in provider.issued
    assert settings.renew is not None


def test_no_token_code_or_key_is_in_any_file(provider: OidcProvider, loaded: Config, tmp_path: Path) -> None:
    log_in(provider, loaded)
    grow_older(open_logins(loaded), "alice", timedelta(hours=1))
    imap_settings(loaded, "alice").secret()
    found = everything_below(tmp_path / "state")
    assert b"alice" in found
    for secret in provider.issued:
        assert secret.encode() not in found
        assert secret[-16:].encode() not in found


def test_the_easiest_way_is_taken_that_the_provider_has(
    provider: OidcProvider, loaded: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Thread

    from tests.support.oidc_provider import browse

    told: list[Any] = []
    auth.login(loaded, "alice", whoever(lambda what: provider.enter(what.code), told))
    monkeypatch.setattr(provider, "hide", {"device_authorization_endpoint"})

    def visit(what: Request) -> None:
        import urllib.request

        Thread(target=lambda: urllib.request.urlopen(browse(what.address), timeout=10)).start()  # noqa: S310

    auth.login(loaded, "alice", whoever(visit, told))
    assert [type(each) for each in told] == [Invitation, Request]


def test_nobody_logs_in_for_nothing(provider: OidcProvider, client: Client, tmp_path: Path) -> None:
    """Where what would be stored cannot be, that is found out before anybody takes out their phone."""
    loaded = configured(tmp_path, {"alice": section(provider, client)}, repository=False)
    with pytest.raises(NoRepository):
        log_in(provider, loaded)
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    (tmp_path / "state").write_text("a file in its place")
    with pytest.raises(StorageDenied):
        log_in(provider, loaded)
    assert client.asked["device"] == 0


def test_without_a_user_a_token_is_had_as_a_test(provider: OidcProvider, tmp_path: Path) -> None:
    client = provider.client("alice", secret="s3cret")
    loaded = configured(tmp_path, {"alice": section(provider, client, grant="client_credentials")})
    done = auth.login(loaded, "alice", whoever())
    assert (done.grant, done.refreshable, done.login_ends) == ("client_credentials", True, None)
    with pytest.raises(UsageError):
        auth.login(loaded, "alice", whoever(), way="device")


def test_an_account_with_a_password_is_told_apart(tmp_path: Path) -> None:
    loaded = configured(tmp_path, {}, repository=False)
    with pytest.raises(UsageError):
        auth.login(loaded, "alice", whoever())
    document = json.loads((tmp_path / "config.yaml").read_text())
    document["accounts"] = {"bob": {"imap": {"host": "127.0.0.1", "username": "b", "password": "p"}}}
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    loaded = config.load(tmp_path / "config.yaml")
    for call in (lambda: auth.login(loaded, "bob", whoever()), lambda: auth.logout(loaded, "bob")):
        with pytest.raises(UsageError, match="logs in by password"):
            call()
    assert auth.expiring(loaded, now()) == []
    assert list(auth.findings(loaded, "bob", now())) == []


def test_a_writer_s_key_and_a_copy_of_the_repository_open_the_same_login(
    provider: OidcProvider, loaded: Config, tmp_path: Path
) -> None:
    """The recommended set-up: an administrator with a passphrase logs in, a daemon that can read no mail backs up. And
    mail is restored to the account from a copy, when the repository is gone."""
    log_in(provider, loaded)
    token = imap_settings(loaded, "alice").secret()
    shutil.copytree(tmp_path / "repository", tmp_path / "copy")
    storage = LocalStorage(tmp_path / "repository")
    writer = slots.export(unlock(storage, PASSPHRASE).for_role(Role.WRITER))
    (tmp_path / "writer.key").write_text(writer)
    document = json.loads((tmp_path / "config.yaml").read_text())
    document["repository"] = {"url": str(tmp_path / "moved"), "key_file": "writer.key"}
    document["copies"] = [{"url": str(tmp_path / "copy")}]
    (tmp_path / "config.yaml").write_text(json.dumps(document))
    (tmp_path / "repository").rename(tmp_path / "moved")

    daemon = config.load(tmp_path / "config.yaml")

    assert imap_settings(daemon, "alice").secret() == token
    assert imap_settings(at_copy(daemon, "1"), "alice").secret() == token


# -- how it stands -----------------------------------------------------------------------------------------------------


def test_status_needs_no_key_and_no_provider(
    provider: OidcProvider, loaded: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in(provider, loaded)
    asked: list[str] = []
    monkeypatch.setattr(provider, "before_answer", asked.append)
    (tmp_path / "repository").rename(tmp_path / "unplugged")

    (one,) = auth.status(loaded, ["alice"], now())

    assert one.logged_in is not None
    assert abs(one.logged_in - now()) < timedelta(minutes=1)
    assert one.access_expires is not None
    assert timedelta(minutes=59) < one.access_expires - now() < timedelta(hours=1)
    assert (one.login_ends, one.warnings, asked) == (None, [], [])


def test_what_ends_is_told_before_it_ends(provider: OidcProvider, tmp_path: Path) -> None:
    names = ("fine", "soon", "over", "never")
    clients = {name: provider.client("alice", refresh_lifetime=int((60 * DAY).total_seconds())) for name in names}
    loaded = configured(tmp_path, {name: section(provider, clients[name]) for name in names})
    for name, age in {"fine": 1, "soon": 50, "over": 61}.items():
        log_in(provider, loaded, name)
        grow_older(open_logins(loaded), name, age * DAY)

    found = auth.expiring(loaded, now())

    assert [(each.account, each.over) for each in found] == [("never", True), ("over", True), ("soon", False)]
    assert found[0].what == "nobody has logged in yet"
    assert found[1].what == "the login has expired (the provider said so)"
    assert found[2].what == "the login expires in 9 days (the provider said so)"
    assert {each.remedy for each in found[1:]} == {"run: backupd auth login over", "run: backupd auth login soon"}
    levels = {name: [each.level for each in auth.findings(loaded, name, now())] for name in names}
    assert levels == {"fine": ["ok"], "soon": ["warning"], "over": [], "never": []}, "what is over, a login tells"


def test_when_logins_end_is_known_for_monitors(provider: OidcProvider, authority: Authority, tmp_path: Path) -> None:
    clients = {name: provider.client("alice", refresh_lifetime=days * 86_400) for name, days in (("a", 60), ("b", 7))}
    clients |= {"c": provider.client("alice"), "d": provider.client("alice")}
    certificate, key = authority.issue()
    (tmp_path / "app.pem").write_bytes(certificate)
    (tmp_path / "app.key").write_bytes(key)
    robot = {
        "issuer": provider.issuer, "client_id": "r", "grant": "client_credentials",
        "certificate": "app.pem", "private_key": "app.key",
    }  # fmt: skip
    sections = {name: section(provider, clients[name]) for name in "abcd"} | {"robot": robot, "never": robot | {
        "grant": "user"}}  # fmt: skip
    loaded = configured(tmp_path, sections)
    for name in "abcd":
        log_in(provider, loaded, name)
    provider.log_out(clients["d"])
    grow_older(open_logins(loaded), "d", timedelta(hours=1))
    with pytest.raises(LoginRefused):
        imap_settings(loaded, "d").secret()

    found = {name: (when - now()) // DAY for name, when in auth.ends(loaded).items()}

    assert found == {"a": 59, "b": 6, "d": -1, "robot": 363, "never": 363}


def test_a_refused_login_is_told_until_somebody_logs_in_again(
    provider: OidcProvider, loaded: Config, client: Client
) -> None:
    log_in(provider, loaded)
    provider.log_out(client)
    grow_older(open_logins(loaded), "alice", timedelta(hours=1))
    with pytest.raises(LoginRefused):
        imap_settings(loaded, "alice").secret()
    (found,) = auth.expiring(loaded, now())
    assert "the provider has refused the login since" in found.what
    assert found.over
    log_in(provider, loaded)
    assert auth.expiring(loaded, now()) == []


def test_secrets_and_certificates_of_apps_are_warned_of(
    provider: OidcProvider, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(expired=True)
    (tmp_path / "old.pem").write_bytes(certificate)
    (tmp_path / "old.key").write_bytes(key)
    shared = {"issuer": provider.issuer, "client_id": "a", "grant": "client_credentials"}
    loaded = configured(
        tmp_path,
        {
            "a": {**shared, "client_secret": "x", "client_secret_expires": f"{now().date() + 3 * DAY}"},
            "b": {**shared, "client_secret": "x", "client_secret_expires": f"{now().date() + 30 * DAY}"},
            "c": {**shared, "certificate": "old.pem", "private_key": "old.key"},
            "d": {**shared, "certificate": "gone.pem", "private_key": "old.key"},
        },
    )
    found = {each.account: (each.what, each.over) for each in auth.expiring(loaded, now())}
    assert found["a"] == ("the app's client secret expires in 3 days", False)
    assert "b" not in found
    assert found["c"][0].startswith("the app's certificate has expired on ")
    assert found["d"] == (f"the certificate {tmp_path}/gone.pem cannot be read", True)


def test_all_of_it_can_be_a_json_document(provider: OidcProvider, loaded: Config) -> None:
    log_in(provider, loaded)
    for value in (auth.status(loaded, ["alice"], now()), auth.expiring(loaded, now())):
        assert json.loads(msgspec.json.encode(value)) is not None


def test_a_thousand_accounts_are_looked_at_in_no_time(tmp_path: Path) -> None:
    shared = {"issuer": "https://login.example.com", "client_id": "a"}
    loaded = configured(tmp_path, {f"account-{number}": shared for number in range(1000)}, repository=False)
    began = time.monotonic()
    assert len(auth.expiring(loaded, now())) == 1000
    assert time.monotonic() - began < 5


# -- out ---------------------------------------------------------------------------------------------------------------


def test_who_logs_out_is_known_no_more(provider: OidcProvider, loaded: Config, client: Client) -> None:
    log_in(provider, loaded)
    login = open_logins(loaded).read("alice")
    assert login is not None

    done = auth.logout(loaded, "alice")

    assert (done.forgotten, done.revoked, done.why_not) == (True, True, "")
    assert provider.refreshable[login.tokens.refresh_token].family in provider.ended
    assert open_logins(loaded).read("alice") is None
    assert auth.logout(loaded, "alice").forgotten is False
    with pytest.raises(LoginRefused):
        imap_settings(loaded, "alice").secret()


def test_what_cannot_be_revoked_is_forgotten_all_the_same(
    provider: OidcProvider, loaded: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in(provider, loaded)
    monkeypatch.setattr(provider, "before_answer", lambda name: Response("", 503))
    done = auth.logout(loaded, "alice")
    assert (done.forgotten, done.revoked) == (True, False)
    assert "HTTP 503" in done.why_not
    monkeypatch.undo()

    log_in(provider, loaded)
    monkeypatch.setattr(provider, "hide", {"revocation_endpoint"})
    done = auth.logout(loaded, "alice")
    assert (done.forgotten, done.revoked) == (True, False)
    assert "revokes nothing on request" in done.why_not

    log_in(provider, loaded)
    (tmp_path / "state" / "logins" / "alice.json").write_bytes(b"damaged")
    done = auth.logout(loaded, "alice")
    assert (done.forgotten, done.revoked) == (True, False)
    assert not list((tmp_path / "state" / "logins").glob("*.json"))
