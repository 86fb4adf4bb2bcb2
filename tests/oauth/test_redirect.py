"""Logging in by a browser that comes back here, or whose last address is pasted here."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from backupd.errors import BackupdError, Interrupted, LoginRefused, UsageError
from backupd.oauth import redirect
from backupd.oauth.provider import Provider
from backupd.oauth.redirect import Request
from backupd.oauth.token import Answer
from tests.support.oauth import app_at
from tests.support.oidc_provider import OidcProvider, browse, with_changed


@dataclass
class Login:
    """A login under way, in a thread of its own, and the person before it."""

    provider: Provider
    port: int = 0
    told: list[Request] = field(default_factory=list)
    not_it: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    ended: list[Answer | BackupdError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._typed, self._typing = os.pipe()
        self._there = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            answer = redirect.log_in(
                self.provider, self._tell, stopped=self.stop.is_set, clock=time.monotonic, typed=self._typed,
                not_it=self.not_it.append, port=self.port,
            )  # fmt: skip
            self.ended.append(answer)
        except BackupdError as error:
            self.ended.append(error)
        finally:
            self._there.set()

    def _tell(self, request: Request) -> None:
        self.told.append(request)
        self._there.set()

    @property
    def address(self) -> str:
        assert self._there.wait(20)
        return self.told[0].address

    def paste(self, text: str) -> None:
        os.write(self._typing, text.encode())

    def end(self) -> Answer | BackupdError:
        self._thread.join(20)
        assert not self._thread.is_alive()
        for descriptor in (self._typed, self._typing):
            os.close(descriptor)
        return self.ended[0]


def visit(address: str) -> int:
    """As a browser that was led here: the status it got."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", f"{parts.path or '/'}?{parts.query}")
    answer = connection.getresponse()
    assert b"backupd" in answer.read() or answer.status == 404
    connection.close()
    return answer.status


def test_a_browser_on_this_machine_leads_back(provider: OidcProvider) -> None:
    client = provider.client("alice")
    login = Login(Provider(app_at(provider, client)))
    asked = {name: values[0] for name, values in parse_qs(urlsplit(login.address).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == login.told[0].back

    assert visit(browse(login.address)) == 200

    answer = login.end()
    assert isinstance(answer, Answer)
    assert answer.refresh_token in provider.refreshable


@pytest.mark.parametrize("written", ["{}\n", "\n  {}  \n", "{}\r\n"])
def test_the_address_of_a_browser_elsewhere_can_be_pasted(provider: OidcProvider, written: str) -> None:
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    login.paste("http://127.0.0.1/ what is this?\n")
    login.paste(written.format(browse(login.address)))
    assert isinstance(login.end(), Answer)
    assert len(login.not_it) == 1


def test_an_address_that_comes_in_pieces_is_one(provider: OidcProvider) -> None:
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    address = browse(login.address)
    login.paste(address[:30])
    time.sleep(0.05)
    login.paste(address[30:] + "\n")
    assert isinstance(login.end(), Answer)


@pytest.mark.parametrize("changes", [{"state": "forged"}, {"state": ""}, {"iss": "https://evil.example"}, {"code": ""}])
def test_what_is_not_of_this_login_is_not_believed(provider: OidcProvider, changes: dict[str, str]) -> None:
    """A page that somebody else opens in the browser cannot log an account in as somebody else."""
    client = provider.client("alice")
    login = Login(Provider(app_at(provider, client)))
    good = browse(login.address)

    assert visit(with_changed(good, **changes)) == 404

    assert client.asked["authorization_code"] == 0
    assert visit(with_changed(good, iss=provider.issuer)) == 200
    assert isinstance(login.end(), Answer)


def test_connections_that_say_nothing_or_nonsense_hold_nobody_up(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redirect, "_PATIENCE", 0.2)
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    good = browse(login.address)
    port = urlsplit(good).port
    silent = socket.create_connection(("127.0.0.1", port))
    posted = b"POST /?" + urlsplit(good).query.encode() + b" HTTP/1.1\r\n\r\n"
    for said in (b"", posted, b"\xff" * 100_000, b"GET\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            try:
                sock.sendall(said)
            except OSError:
                continue
    assert visit(good) == 200
    silent.close()
    assert isinstance(login.end(), Answer)


def test_whoever_declines_is_told_so(provider: OidcProvider) -> None:
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    state = parse_qs(urlsplit(login.address).query)["state"][0]
    assert visit(f"{login.told[0].back}/?error=access_denied&state={state}") == 200
    error = login.end()
    assert isinstance(error, LoginRefused)
    assert "declined" in str(error)


def test_a_refusal_that_is_led_back_says_what_to_do(provider: OidcProvider) -> None:
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    state = parse_qs(urlsplit(login.address).query)["state"][0]
    login.paste(f"{login.told[0].back}/?error=invalid_scope&error_description=No%0amail&state={state}\n")
    error = login.end()
    assert isinstance(error, LoginRefused)
    assert "invalid_scope: No" in str(error)
    assert "check scopes" in str(error)


def test_whoever_gives_up_is_let_go(provider: OidcProvider) -> None:
    login = Login(Provider(app_at(provider, provider.client("alice"))))
    assert login.address
    login.stop.set()
    assert isinstance(login.end(), Interrupted)


def test_nobody_waits_for_ever(provider: OidcProvider) -> None:
    times = iter([0.0, 1.0, redirect.SECONDS + 1])
    with pytest.raises(LoginRefused) as caught:
        redirect.log_in(
            Provider(app_at(provider, provider.client("alice"))), lambda request: None,
            stopped=lambda: False, clock=lambda: next(times),
        )  # fmt: skip
    assert "in time" in str(caught.value)


def test_the_port_can_be_chosen_and_one_that_is_taken_is_told(provider: OidcProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = Login(Provider(app_at(provider, provider.client("alice"))), port=port).end()
        assert isinstance(error, UsageError)
        assert str(port) in str(error)
    assert isinstance(Login(Provider(app_at(provider, provider.client("alice"))), port=70_000).end(), UsageError)
    login = Login(Provider(app_at(provider, provider.client("alice"))), port=port)
    assert login.address
    assert login.told[0].back == f"http://127.0.0.1:{port}"
    visit(browse(login.address))
    assert isinstance(login.end(), Answer)


def test_the_verifier_never_leaves_before_the_code_has_come(provider: OidcProvider) -> None:
    """PKCE: whoever sees the addresses, in a browser's history, has nothing to redeem the code with."""
    client = provider.client("alice")
    login = Login(Provider(app_at(provider, client)))
    thief = Provider(app_at(provider, client))
    good = browse(login.address)
    code = parse_qs(urlsplit(good).query)["code"][0]
    with pytest.raises(LoginRefused):
        thief.exchange(code, "x" * 64, login.told[0].back)
    login.stop.set()
    login.end()
