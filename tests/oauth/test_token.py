"""What a provider sends, and what of it is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import ProtocolError
from backupd.oauth.app import App
from backupd.oauth.token import LONGEST_TOKEN, Answer, logged_in, read_answer, refreshed

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
APP = App(account="alice", provider="google", grant="user", scopes=("mail",), client_id="app-1")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("access_token", "token_type", "refresh_token", "expires_in", "refresh_token_expires_in", "refresh_expires_in")


def answer(**more: Any) -> Answer:
    return read_answer({"access_token": "secret-access", "token_type": "Bearer", **more}, "google")


def test_an_answer_is_taken_as_the_rfc_says_and_as_providers_write_it() -> None:
    assert answer(expires_in=3599) == Answer("secret-access", "", 3599.0, None)
    assert answer(expires_in="3599", token_type="bearer").expires_in == 3599.0
    assert answer(refresh_token="r", refresh_token_expires_in=604799).refresh_expires_in == 604799.0
    assert answer(refresh_token="r", refresh_expires_in=0).refresh_expires_in is None, "Keycloak: it does not expire"
    assert answer(refresh_token=None).refresh_token == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token": None}, {"access_token": ""}, {"access_token": "two words"}, {"access_token": "line\r\nend"},
        {"access_token": "x" * (LONGEST_TOKEN + 1)}, {"token_type": "mac"}, {"token_type": 1},
        {"refresh_token": "a\0b"}, {"refresh_token": ["r"]}, {"access_token": "a\1b"},
    ],
)  # fmt: skip
def test_what_cannot_be_a_token_is_refused_without_being_shown(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        answer(**wrong)
    assert "secret-access" not in str(caught.value)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)))
def test_whatever_comes_is_an_answer_or_one_error(said: dict[str, Any]) -> None:
    try:
        found = read_answer(said, "x")
    except ProtocolError:
        return
    made = logged_in(APP, found, NOW)
    assert made.facts.access_expires > NOW
    assert made.facts.refresh_expires is None or made.facts.refresh_expires > NOW


def test_tokens_are_never_shown() -> None:
    made = logged_in(APP, answer(refresh_token="secret-refresh"), NOW)
    for shown in (repr(made), str(made), repr(made.tokens), repr(answer(refresh_token="secret-refresh"))):
        assert "secret" not in shown


def test_a_token_is_good_until_minutes_before_it_expires() -> None:
    facts = logged_in(APP, answer(expires_in=3600), NOW).facts
    assert facts.is_good(NOW, lasting=True)
    assert facts.is_good(NOW + timedelta(minutes=54), lasting=True)
    assert not facts.is_good(NOW + timedelta(minutes=56), lasting=True)
    assert facts.is_good(NOW + timedelta(minutes=56), lasting=False)
    assert not facts.is_good(NOW + timedelta(minutes=61), lasting=False)


def test_a_short_lived_token_is_good_for_most_of_its_time() -> None:
    facts = logged_in(APP, answer(expires_in=60), NOW).facts
    assert facts.is_good(NOW + timedelta(seconds=40), lasting=True)
    assert not facts.is_good(NOW + timedelta(seconds=50), lasting=True)


def test_a_clock_that_was_set_back_makes_no_token_good_for_longer() -> None:
    facts = logged_in(APP, answer(expires_in=3600), NOW).facts
    assert not facts.is_good(NOW - timedelta(days=1), lasting=True)
    assert facts.is_good(NOW - timedelta(minutes=1), lasting=True), "clocks are corrected by seconds all day"


def test_without_word_of_its_end_a_token_is_taken_for_an_hour() -> None:
    assert logged_in(APP, answer(), NOW).facts.access_expires == NOW + timedelta(hours=1)


def test_a_refresh_takes_the_new_refresh_token_or_keeps_the_old() -> None:
    first = logged_in(APP, answer(refresh_token="one", refresh_token_expires_in=1000), NOW)
    later = NOW + timedelta(seconds=500)

    rotated = refreshed(first, answer(refresh_token="two", refresh_token_expires_in=1000), later)
    kept = refreshed(first, answer(), later)

    assert rotated.tokens.refresh_token == "two"
    assert rotated.facts.refresh_expires == later + timedelta(seconds=1000)
    assert kept.tokens.refresh_token == "one"
    assert kept.facts.refresh_expires == NOW + timedelta(seconds=1000), "no news is no longer life"
    assert rotated.facts.logged_in == kept.facts.logged_in == NOW
