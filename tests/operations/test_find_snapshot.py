"""How people name a snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from backupd.errors import UsageError
from backupd.operations.find_snapshot import find, moment
from backupd.repository.repository import Repository
from tests.support import archive
from tests.support.archive import NOON

BERLIN = timezone(timedelta(hours=1))


def test_by_its_id_and_by_a_unique_beginning_of_it(repository: Repository) -> None:
    ref = archive.put(repository)
    archive.put(repository, time=NOON + timedelta(days=1))
    assert find(repository, ref.id)[0] == ref
    assert find(repository, ref.id[:10])[0] == ref
    assert find(repository, ref.short)[0] == ref
    assert find(repository, ref.short[:6])[0] == ref


def test_a_beginning_that_several_have_is_refused_and_they_are_listed(repository: Repository) -> None:
    refs = [archive.put(repository, time=NOON + timedelta(minutes=number)) for number in range(3)]
    with pytest.raises(UsageError) as caught:
        find(repository, "2026")
    assert "3 snapshots" in caught.value.what
    assert all(ref.id in caught.value.remedy for ref in refs)


def test_the_newest_of_an_account_is_latest_even_when_it_is_not_complete(repository: Repository) -> None:
    archive.put(repository)
    newest = archive.put(repository, time=NOON + timedelta(hours=1), checkpoint=True)
    archive.put(repository, account="bob", time=NOON + timedelta(hours=2))
    ref, snapshot = find(repository, "alice@latest")
    assert ref == newest
    assert snapshot.checkpoint


def test_a_time_means_the_newest_at_or_before_it(repository: Repository) -> None:
    first = archive.put(repository, time=NOON)
    second = archive.put(repository, time=NOON + timedelta(hours=1))
    assert find(repository, "alice@2026-11-01T12:00", zone=UTC)[0] == first
    assert find(repository, "alice@2026-11-01T12:59:59", zone=UTC)[0] == first
    assert find(repository, "alice@2026-11-01T13:00", zone=UTC)[0] == second
    assert find(repository, "alice@2026-11-01T13:30+01:00")[0] == first
    assert find(repository, "alice@2026-11-01T13:00", zone=BERLIN)[0] == first


def test_a_date_alone_means_the_end_of_that_day(repository: Repository) -> None:
    ref = archive.put(repository, time=datetime(2026, 11, 1, 22, 30, tzinfo=UTC))
    assert find(repository, "alice@2026-11-01", zone=UTC)[0] == ref
    assert moment("2026-11-01", BERLIN) < datetime(2026, 11, 1, 23, tzinfo=UTC)


def test_an_account_may_have_an_at_sign_in_its_name(repository: Repository) -> None:
    ref = archive.put(repository, account="alice@example.com")
    assert find(repository, "alice@example.com@latest")[0] == ref
    with pytest.raises(UsageError, match="which snapshot"):
        find(repository, "alice@example.com", ["alice@example.com"])


def test_what_is_unknown_is_answered_with_what_there_is(repository: Repository) -> None:
    ref = archive.put(repository)
    with pytest.raises(UsageError, match="there are alice, carol"):
        find(repository, "bob@latest", ["carol", "alice"])
    with pytest.raises(UsageError, match="backupd backup carol"):
        find(repository, "carol@latest", ["carol", "alice"])
    with pytest.raises(UsageError, match=ref.id):
        find(repository, "ffffffffff")
    with pytest.raises(UsageError, match=f"the oldest is {ref.id}"):
        find(repository, "alice@2020-01-01")
    with pytest.raises(UsageError, match="not a time"):
        find(repository, "alice@teatime")
    with pytest.raises(UsageError):
        find(repository, "")
