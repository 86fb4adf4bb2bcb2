"""Logging in on another device: patient as the provider asks, and over when it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import ConnectionFailed, Interrupted, LoginRefused, ProtocolError, UsageError
from backupd.oauth import device
from backupd.oauth.app import App
from backupd.oauth.device import Invitation, next_interval, read_invitation
from backupd.oauth.provider import Provider
from backupd.oauth.refusals import Refused, refusal
from backupd.oauth.token import Answer
from tests.support.oauth import app_at
from tests.support.oidc_provider import OidcProvider

SAID = {
    "device_code": "secret-device", "user_code": "WDJB-MJHT", "verification_uri": "https://provider.example/device",
    "verification_uri_complete": "https://provider.example/device?user_code=WDJB-MJHT", "expires_in": 900,
    "interval": 5,
}  # fmt: skip
APP = App("alice", "https://provider.example", "user", ("mail",))


class Person:
    """Waits in no time, and acts when they have waited so often."""

    def __init__(self, act: Callable[[Invitation], object], after: int = 2) -> None:
        self._act, self._left = act, after
        self.now, self.waited = 0.0, list[float]()
        self.told: Invitation | None = None

    def tell(self, invitation: Invitation) -> None:
        self.told = invitation

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waited.append(seconds)
        self._left -= 1
        assert self.told is not None
        return bool(self._act(self.told)) if self._left == 0 else False

    def log_in(self, provider: Provider) -> Answer:
        return device.log_in(provider, self.tell, wait=self.wait, clock=lambda: self.now)


def test_whoever_enters_the_code_is_logged_in(provider: OidcProvider) -> None:
    client = provider.client("alice")
    person = Person(lambda told: provider.enter(told.code))

    answer = person.log_in(Provider(app_at(provider, client)))

    assert answer.refresh_token in provider.refreshable
    assert person.told is not None
    assert person.told.address == f"{provider.issuer}/activate"
    assert person.told.complete.endswith(person.told.code)
    assert person.waited == [1.0, 1.0]
    assert "secret" not in repr(person.told)
    assert person.told.device_code not in repr(person.told)


def test_whoever_declines_is_not(provider: OidcProvider) -> None:
    person = Person(lambda told: provider.enter(told.code, approve=False))
    with pytest.raises(LoginRefused) as caught:
        person.log_in(Provider(app_at(provider, provider.client("alice"))))
    assert "declined" in str(caught.value)


def test_whoever_gives_up_is_let_go(provider: OidcProvider) -> None:
    with pytest.raises(Interrupted):
        Person(lambda told: True).log_in(Provider(app_at(provider, provider.client("alice"))))


def test_a_code_that_nobody_enters_is_over_in_time(provider: OidcProvider) -> None:
    client = provider.client("alice")
    person = Person(lambda told: False)
    asked = Provider(app_at(provider, client))
    begin = asked.begin_device
    asked.begin_device = lambda: {**begin(), "expires_in": 3}  # type: ignore[method-assign]
    with pytest.raises(LoginRefused) as caught:
        person.log_in(asked)
    assert "in time" in str(caught.value)
    assert person.now == 3.0


def test_a_provider_that_fails_meanwhile_is_asked_less_often(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([503, 429, 503])

    def fail(name: str) -> Response | None:
        status = next(failures, None) if name == "token" else None
        return Response("", status) if status else None

    monkeypatch.setattr(provider, "before_answer", fail)
    person = Person(lambda told: provider.enter(told.code), after=4)
    assert person.log_in(Provider(app_at(provider, provider.client("alice")))).access_token
    assert person.waited == [1.0, 2.0, 4.0, 8.0]


def test_a_provider_without_it_is_told(provider: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "hide", {"device_authorization_endpoint"})
    with pytest.raises(UsageError) as caught:
        Person(lambda told: False).log_in(Provider(app_at(provider, provider.client("alice"))))
    assert "--redirect" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "following"),
    [
        (refusal(APP, "authorization_pending", None, ()), 5.0),
        (refusal(APP, "slow_down", None, ()), 10.0),
        (ConnectionFailed("no answer"), 10.0),
        (refusal(APP, "expired_token", None, ()), None),
        (refusal(APP, "access_denied", None, ()), None),
        (Refused("no", code="invalid_grant"), None),
        (ProtocolError("odd"), None),
    ],
)
def test_how_long_to_wait_is_the_provider_s_to_say(error: Exception, following: float | None) -> None:
    assert next_interval(5.0, error) == following


def test_waiting_has_an_end() -> None:
    assert next_interval(60.0, ConnectionFailed("no answer")) == 60.0


def test_an_invitation_is_read_as_the_rfc_and_as_google_write_it() -> None:
    found = read_invitation(SAID, "x")
    assert (found.code, found.seconds, found.interval) == ("WDJB-MJHT", 900.0, 5.0)
    older: dict[str, Any] = {name: value for name, value in SAID.items() if name != "verification_uri"}
    assert read_invitation(older | {"verification_url": "https://g.example/d"}, "x").address == "https://g.example/d"
    assert read_invitation({**SAID, "interval": 0}, "x").interval == 1.0, "nobody is asked without a pause"


ANYTHING = st.none() | st.text() | st.floats() | st.lists(st.none())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SAID, ANYTHING)))
def test_no_invitation_can_harm_a_terminal_or_hold_us_up(said: dict[str, Any]) -> None:
    try:
        found = read_invitation({**SAID, **said}, "x")
    except ProtocolError:
        return
    assert all(text.isprintable() and text.isascii() for text in (found.address, found.code, found.complete))
    assert 1 <= found.interval <= 60
    assert 1 <= found.seconds <= 3600
