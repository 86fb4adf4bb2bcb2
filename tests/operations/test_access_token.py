"""An access token whenever one is needed, and no refresh token lost or used twice on the way."""

from __future__ import annotations

import _thread
import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from backupd.errors import ConnectionFailed, LoginRefused, StorageFull
from backupd.oauth import store
from backupd.oauth.app import App
from backupd.oauth.provider import Provider
from backupd.oauth.store import Logins
from backupd.oauth.token import Login, Tokens, logged_in
from backupd.operations.access_token import AccessToken
from tests.support.oauth import KEY, app_at, grow_older, logins_in
from tests.support.oidc_provider import Client, OidcProvider, browse

HOUR = timedelta(hours=1)
BACK = "http://127.0.0.1:4711"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(provider: OidcProvider) -> Client:
    return provider.client("alice")


@pytest.fixture
def logins(tmp_path: Path) -> Logins:
    return logins_in(tmp_path)


@pytest.fixture
def app(provider: OidcProvider, client: Client) -> App:
    return app_at(provider, client)


def log_in(app: App, logins: Logins) -> Login:
    """As `auth login` does it."""
    asked = Provider(app)
    led_to = browse(asked.authorization_url(state="s", verifier="v" * 64, redirect_uri=BACK))
    code = led_to.partition("code=")[2].partition("&")[0]
    made = logged_in(app, asked.exchange(code, "v" * 64, BACK), datetime.now(UTC))
    with logins.lock(app.account), logins.replacing(app.account) as commit:
        commit(made)
    return made


def stored(logins: Logins) -> Login:
    found = logins.read("alice")
    assert found is not None
    return found


def test_a_good_token_is_used_without_asking_anybody(app: App, logins: Logins, client: Client) -> None:
    made = log_in(app, logins)
    assert AccessToken(app, logins)() == made.tokens.access_token
    grow_older(logins, "alice", timedelta(minutes=50))
    assert AccessToken(app, logins)() == made.tokens.access_token
    assert client.asked["refresh_token"] == 0


def test_an_expiring_one_is_refreshed_and_the_new_refresh_token_is_kept(
    app: App, logins: Logins, client: Client
) -> None:
    made = log_in(app, logins)
    grow_older(logins, "alice", timedelta(minutes=56))

    token = AccessToken(app, logins)()

    assert token != made.tokens.access_token
    assert stored(logins).tokens.access_token == token
    assert stored(logins).tokens.refresh_token != made.tokens.refresh_token
    for _ in range(3):
        grow_older(logins, "alice", HOUR)
        AccessToken(app, logins)()
    assert client.asked["refresh_token"] == 4


def test_nobody_sees_a_token_before_its_refresh_token_is_on_the_disk(
    app: App, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)
    order: list[str] = []
    sync = store._sync
    monkeypatch.setattr(store, "_sync", lambda folder: (sync(folder), order.append("on the disk")))
    AccessToken(app, logins)()
    order.append("used")
    assert order == ["on the disk", "used"]


def test_many_at_once_refresh_once(app: App, logins: Logins, client: Client) -> None:
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: AccessToken(app, logins)(), range(8)))
    assert found == {stored(logins).tokens.access_token}
    assert client.asked["refresh_token"] == 1


_PROCESS = """
import sys
from pathlib import Path
from backupd.oauth.app import App
from backupd.oauth.store import Logins
from backupd.operations.access_token import AccessToken
issuer, client_id, folder, key = sys.argv[1:]
app = App("alice", issuer, "user", ("openid", "offline_access"), client_id=client_id, issuer=issuer)
token = AccessToken(app, Logins(Path(folder), lambda: bytes.fromhex(key)))
for _ in sys.stdin:
    print(token(), flush=True)
"""


def processes(count: int, app: App, folder: Path) -> list[subprocess.Popen[str]]:
    """Each gives a token for a line."""
    arguments = [app.issuer, app.client_id, str(folder / "logins"), KEY.hex()]
    return [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_two_processes_that_refresh_at_once_use_no_refresh_token_twice(
    app: App, logins: Logins, client: Client, tmp_path: Path
) -> None:
    """The provider ends the whole login when one is used twice, so this would not go on for long otherwise."""
    log_in(app, logins)
    running = processes(2, app, tmp_path)
    try:
        for round_ in range(1, 6):
            grow_older(logins, "alice", HOUR)
            for process in running:
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
            found = {process.stdout.readline().strip() for process in running if process.stdout}
            assert found == {stored(logins).tokens.access_token}
            assert client.asked["refresh_token"] == round_
    finally:
        for process in running:
            process.communicate()
    assert [process.returncode for process in running] == [0, 0]


def test_a_process_that_is_killed_after_it_stored_the_token_has_lost_nothing(
    app: App, logins: Logins, client: Client, tmp_path: Path
) -> None:
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)
    before = stored(logins)
    (process,) = processes(1, app, tmp_path)
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    while logins.read("alice") == before:
        time.sleep(0.001)
    process.kill()
    process.communicate()

    assert AccessToken(app, logins)() == stored(logins).tokens.access_token
    grow_older(logins, "alice", HOUR)
    assert AccessToken(app, logins)()
    assert client.asked["refresh_token"] == 2


def test_an_interrupt_does_not_tear_asking_and_storing_apart(
    app: App, logins: Logins, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)
    before = stored(logins)

    def interrupt(name: str) -> None:
        if name == "token":
            threading.Timer(0.1, _thread.interrupt_main).start()
            time.sleep(0.4)

    monkeypatch.setattr(provider, "before_answer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        AccessToken(app, logins)()
    monkeypatch.undo()

    assert stored(logins) != before
    grow_older(logins, "alice", HOUR)
    assert AccessToken(app, logins)(), "the login goes on"


def test_on_a_full_disk_the_provider_is_not_even_asked(
    app: App, logins: Logins, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "posix_fallocate", full)
    with pytest.raises(StorageFull):
        AccessToken(app, logins)()
    monkeypatch.undo()
    assert client.asked["refresh_token"] == 0
    assert AccessToken(app, logins)()


def down(name: str) -> Response:
    return Response("", 503)


def test_while_the_provider_is_down_a_token_is_used_as_long_as_it_lasts(
    app: App, logins: Logins, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = log_in(app, logins)
    monkeypatch.setattr(provider, "before_answer", down)
    grow_older(logins, "alice", timedelta(minutes=57))
    assert AccessToken(app, logins)() == made.tokens.access_token
    grow_older(logins, "alice", timedelta(minutes=4))
    with pytest.raises(ConnectionFailed):
        AccessToken(app, logins)()
    monkeypatch.undo()
    assert AccessToken(app, logins)()


def test_a_refused_refresh_token_is_told_and_noted_and_a_login_mends_it(
    app: App, logins: Logins, provider: OidcProvider, client: Client
) -> None:
    log_in(app, logins)
    provider.log_out(client)
    grow_older(logins, "alice", HOUR)
    for _ in range(2):
        with pytest.raises(LoginRefused) as caught:
            AccessToken(app, logins)()
    assert caught.value.remedy == "run: backupd auth login alice"
    facts = stored(logins).facts
    assert facts.refusal == "invalid_grant"
    assert facts.refused is not None
    assert abs(facts.refused - datetime.now(UTC)) < timedelta(minutes=1)
    log_in(app, logins)
    assert stored(logins).facts.refused is None
    assert AccessToken(app, logins)()


def test_without_a_login_it_is_said_how_to_make_one(app: App, logins: Logins) -> None:
    with pytest.raises(LoginRefused) as caught:
        AccessToken(app, logins)()
    assert str(caught.value) == "alice: nobody has logged in yet (run: backupd auth login alice)"


def test_a_login_under_another_key_is_as_good_as_none(app: App, logins: Logins, tmp_path: Path) -> None:
    log_in(app, logins)
    with pytest.raises(LoginRefused) as caught:
        AccessToken(app, Logins(tmp_path / "logins", lambda: bytes(32)))()
    assert "another repository" in str(caught.value)


@pytest.mark.parametrize("changes", [{"client_id": "another"}, {"provider": "https://other.example"}])
def test_no_token_is_sent_to_another_provider_than_gave_it(
    app: App, logins: Logins, changes: dict[str, Any]
) -> None:
    """The configuration was changed: the login is of the app before."""
    log_in(app, logins)
    grow_older(logins, "alice", HOUR)

    def nobody(app: App) -> Provider:
        raise AssertionError("nobody is asked")

    with pytest.raises(LoginRefused) as caught:
        AccessToken(replace(app, **changes), logins, provider=nobody)()
    assert "nobody has logged in yet" in str(caught.value)


def test_a_token_that_the_mail_server_refused_is_renewed_but_not_for_ever(
    app: App, logins: Logins, client: Client
) -> None:
    made = log_in(app, logins)
    token = AccessToken(app, logins)
    assert token.renewed(made.tokens.access_token) is None, "it was just given: another one would be refused, too"
    grow_older(logins, "alice", timedelta(minutes=2))
    other = token.renewed(made.tokens.access_token)
    assert other == stored(logins).tokens.access_token
    assert token.renewed(made.tokens.access_token) == other, "somebody else has renewed it meanwhile"
    assert client.asked["refresh_token"] == 1


def test_without_a_user_a_token_is_had_whenever_it_is_needed(provider: OidcProvider, logins: Logins) -> None:
    client = provider.client("alice", secret="s3cret")
    app = app_at(provider, client, grant="client_credentials")
    first = AccessToken(app, logins)()
    assert AccessToken(app, logins)() == first
    grow_older(logins, "alice", HOUR)
    second = AccessToken(app, logins)()
    assert second != first
    assert client.asked["client_credentials"] == 2
    logged = stored(logins).facts.logged_in
    assert datetime.now(UTC) - logged > timedelta(minutes=59), "since when it works is remembered"


def test_what_is_stored_may_be_lost_where_no_user_is_needed(
    provider: OidcProvider, logins: Logins, tmp_path: Path
) -> None:
    app = app_at(provider, provider.client("alice", secret="s3cret"), grant="client_credentials")
    first = AccessToken(app, logins)()
    (tmp_path / "logins" / "alice.json").write_bytes(b"nonsense")
    second = AccessToken(app, logins)()
    assert second != first
    assert stored(logins).tokens == Tokens(second)


def test_missing_libraries_are_told_with_what_mends_it(
    app: App, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupd.errors import ConfigError

    log_in(app, logins)
    grow_older(logins, "alice", HOUR)
    for name in [name for name in sys.modules if name.startswith(("authlib", "httpx2", "backupd.oauth.provider"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "authlib", None)
    with pytest.raises(ConfigError) as caught:
        AccessToken(app, logins)()
    assert "install backupd[oauth]" in str(caught.value)


