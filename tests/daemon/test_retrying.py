"""What failed decides when it is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd import errors
from backupd.daemon.retrying import Cause, cause_of, plan

ERRORS: list[tuple[Exception, Cause]] = [
    (errors.ConnectionFailed("no route"), Cause.NETWORK),
    (errors.ConnectionFailed("slow down", pause=300.0), Cause.THROTTLED),
    (errors.ConnectionLost("cut"), Cause.NETWORK),
    (errors.LoginRefused("no"), Cause.LOGIN),
    (errors.CertificateRefused("expired"), Cause.CERTIFICATE),
    (errors.ServerRefused("NO"), Cause.SERVER),
    (errors.ProtocolError("nonsense"), Cause.SERVER),
    (errors.StorageUnavailable("503"), Cause.STORAGE),
    (errors.StorageFull("full"), Cause.STORAGE),
    (errors.Damaged("cut"), Cause.STORAGE),
    (errors.ConfigError("no secret"), Cause.CONFIGURATION),
    (errors.WrongKey("no"), Cause.CONFIGURATION),
    (errors.Busy("other"), Cause.BUSY),
    (ZeroDivisionError("a bug"), Cause.BUG),
]


@pytest.mark.parametrize(("error", "cause"), ERRORS, ids=lambda each: each.name if isinstance(each, Cause) else None)
def test_each_error_has_its_cause(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause


def test_a_cut_line_is_tried_again_soon_and_then_less_often() -> None:
    pauses = [plan(errors.ConnectionLost("cut"), failures, lambda: 0.5).seconds for failures in range(1, 9)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


def test_a_refused_password_is_tried_less_often_than_a_cut_line() -> None:
    first, tenth = (plan(errors.LoginRefused("no"), failures, lambda: 0.5) for failures in (1, 10))
    assert (first.seconds, tenth.seconds) == (300, 6 * 3600)


@given(st.sampled_from([error for error, _ in ERRORS]), st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_is_never_nothing_and_never_for_ever(error: Exception, failures: int, chance: float) -> None:
    found = plan(error, failures, lambda: chance)
    assert 20 <= found.seconds <= 8 * 3600


@given(st.floats(1, 100_000), st.integers(1, 100), st.floats(0, 1))
def test_a_server_is_never_asked_earlier_than_it_said(asked: float, failures: int, chance: float) -> None:
    found = plan(errors.ConnectionFailed("throttled", pause=asked), failures, lambda: chance)
    assert found.seconds >= asked
