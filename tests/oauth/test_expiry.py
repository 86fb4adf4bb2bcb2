"""When somebody is warned that a login ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.oauth.app import UNUSED_MICROSOFT, App
from backupd.oauth.expiry import SOON, end_of_login, left, of_credential, warning
from backupd.oauth.token import Facts

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
APP = App(account="alice", provider="google", grant="user", scopes=("mail",), client_id="app-1")
DAY = timedelta(days=1)


def facts(*, age: timedelta = timedelta(), used: timedelta = timedelta(), lasts: timedelta | None = None) -> Facts:
    """A login that was made `age` ago and used `used` ago, and lasts as long as the provider said when it was made."""
    return Facts(
        identity=APP.identity,
        logged_in=NOW - age,
        refreshed=NOW - used,
        access_expires=NOW - used + timedelta(hours=1),
        refresh_expires=NOW - age + lasts if lasts else None,
        refresh_seconds=lasts.total_seconds() if lasts else None,
        refreshable=True,
    )


def test_nothing_is_said_while_nothing_is_known_to_end() -> None:
    assert warning(APP, facts(age=1000 * DAY), NOW) is None
    assert end_of_login(APP, facts()) is None


def test_a_login_that_the_provider_ends_is_warned_of_two_weeks_before() -> None:
    assert warning(APP, facts(age=75 * DAY, lasts=90 * DAY), NOW) is None
    found = warning(APP, facts(age=77 * DAY, lasts=90 * DAY), NOW)
    assert found is not None
    assert found.what == "the login expires in 13 days (the provider said so)"
    assert (found.when, found.over) == (NOW + 13 * DAY, False)


def test_a_login_of_a_week_is_warned_of_in_its_last_third() -> None:
    """Google's apps in testing."""
    assert warning(APP, facts(age=4 * DAY, lasts=7 * DAY), NOW) is None
    found = warning(APP, facts(age=5 * DAY, lasts=7 * DAY), NOW)
    assert found is not None
    assert found.what == "the login expires in 2 days (the provider said so)"


def test_where_the_provider_does_not_say_the_configuration_may() -> None:
    app = replace(APP, lifetime=7 * DAY)
    assert warning(app, facts(age=DAY), NOW) is None
    found = warning(app, facts(age=6 * DAY), NOW)
    assert found is not None
    assert found.what == "the login expires in 1 day (login_lifetime says so)"


def test_a_login_that_is_not_used_ends_and_its_use_is_what_counts() -> None:
    app = replace(APP, unused=UNUSED_MICROSOFT)
    assert warning(app, facts(age=400 * DAY, used=DAY), NOW) is None
    found = warning(app, facts(age=400 * DAY, used=80 * DAY), NOW)
    assert found is not None
    assert found.what == "the login expires in 10 days (if it is not used for 90 days)"


def test_what_is_over_is_said_so() -> None:
    found = warning(APP, facts(age=8 * DAY, lasts=7 * DAY), NOW)
    assert found is not None
    assert (found.what, found.when, found.over) == ("the login has expired (the provider said so)", None, True)


def test_a_login_that_any_pause_ends_is_told_at_once() -> None:
    found = warning(APP, facts(lasts=timedelta(minutes=30)), NOW)
    assert found is not None
    assert "any pause of 30 minutes between backups ends it" in found.what
    assert not found.over


def test_a_refusal_by_the_provider_counts_more_than_what_it_said_before() -> None:
    refused = msgspec.structs.replace(facts(lasts=90 * DAY), refused=NOW - DAY, refusal="invalid_grant")
    found = warning(APP, refused, NOW)
    assert found is not None
    assert (found.what, found.over) == ("the provider has refused the login since 2026-11-27", True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (None, "nobody has logged in yet"),
        (msgspec.structs.replace(facts(), identity="microsoft app-1"), "the login is of another provider or app"),
        (msgspec.structs.replace(facts(), refreshable=False), "ends in 1 hour: the provider gave no refresh token"),
        (msgspec.structs.replace(facts(used=DAY), refreshable=False), "has expired: the provider gave no refresh"),
    ],
)
def test_a_login_that_is_none(changed: Facts | None, said: str) -> None:
    found = warning(APP, changed, NOW)
    assert found is not None
    assert said in found.what


def test_without_a_user_nobody_is_asked_to_log_in() -> None:
    assert warning(replace(APP, grant="client_credentials"), None, NOW) is None
    assert warning(replace(APP, grant="service_account"), facts(age=9 * DAY, lasts=DAY), NOW) is None


@pytest.mark.parametrize(
    ("days", "said", "over"),
    [
        (-1, "it has expired on 2026-11-27", True),
        (0, "it expires today", False),
        (1, "it expires in 1 day", False),
        (14, "it expires in 14 days", False),
    ],
)
def test_secrets_and_certificates_are_warned_of(days: int, said: str, over: bool) -> None:
    found = of_credential("it", NOW.date() + timedelta(days=days), NOW)
    assert found is not None
    assert (found.what, found.over) == (said, over)
    assert of_credential("it", date(2026, 12, 13), NOW) is None


@given(lasts=st.timedeltas(timedelta(minutes=1), timedelta(days=4000)), share=st.floats(0, 2))
def test_every_end_is_announced_before_it_comes_and_none_too_early(lasts: timedelta, share: float) -> None:
    """While a login lives, it is warned of in its last third at the latest of two weeks; then it is over."""
    age = lasts * share
    found = warning(APP, facts(age=age, lasts=lasts), NOW)
    remaining = lasts - age
    if remaining <= timedelta():
        assert found is not None
        assert found.over
    elif remaining <= min(SOON, lasts / 3):
        assert found is not None
        assert (found.over, found.when) == (False, NOW + remaining)
    elif lasts >= DAY:
        assert found is None


def test_spans_are_told_in_their_largest_unit() -> None:
    spans = (timedelta(seconds=59), timedelta(minutes=1), timedelta(hours=2, minutes=59), timedelta(days=1, hours=23))
    assert [left(span) for span in spans] == ["less than a minute", "1 minute", "2 hours", "1 day"]
