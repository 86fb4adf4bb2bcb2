"""Holds: what is kept whatever the rules say, by all machines, and who ended it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backupd.errors import Damaged, UsageError
from backupd.operations import hold, look
from backupd.operations.copy import copy
from backupd.operations.forget import forget
from backupd.operations.protection import Protection
from backupd.operations.retention import Rules
from backupd.operations.state import State
from backupd.operations.status import Level, status
from backupd.repository import holds, names
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Loss
from tests.support import archive
from tests.support.archive import NOON
from tests.support.memory_storage import MemoryStorage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ACCOUNTS = ["alice", "bob"]
LAST = {"alice": Rules(keep_last=1), "bob": Rules(keep_last=1)}


def left(repository: Repository, now=NOON) -> set[str]:  # type: ignore[no-untyped-def]
    """What stays of it."""
    return {line.id for line in forget(repository, LAST, now=now, dry_run=True).snapshots if line.reasons}


def test_a_held_snapshot_stays_until_the_hold_is_removed(repository: Repository) -> None:
    old, new = (archive.put(repository, time=NOON + HOUR * number) for number in range(2))
    line = hold.add(repository, old.short, ACCOUNTS, reason="a lawsuit", now=NOON)
    assert (line.account, line.snapshot, line.state) == ("alice", old.id, "active")
    assert left(repository) == {old.id, new.id}
    assert hold.remove(repository, line.id[-8:-2], reason="it is over", now=NOON + DAY).state == "released"
    assert left(repository) == {new.id}


def test_a_held_account_keeps_all_those_to_come_too(repository: Repository) -> None:
    hold.add(repository, "alice", ACCOUNTS, reason="an audit", now=NOON)
    alices = {archive.put(repository, time=NOON + HOUR * number).id for number in range(3)}
    bobs = [archive.put(repository, account="bob", time=NOON + HOUR * number).id for number in range(3)]
    assert left(repository) == {*alices, bobs[-1]}


def test_an_account_that_is_configured_no_more_can_be_held(repository: Repository) -> None:
    archive.put(repository, account="carol")
    assert hold.add(repository, "carol", ACCOUNTS, reason="left us", now=NOON).account == "carol"


def test_a_hold_ends_at_its_time(repository: Repository) -> None:
    old, new = (archive.put(repository, time=NOON + HOUR * number) for number in range(2))
    hold.add(repository, old.id, ACCOUNTS, reason="until new year", until=NOON + DAY, now=NOON)
    assert left(repository, NOON + DAY - HOUR) == {old.id, new.id}
    assert left(repository, NOON + DAY) == {new.id}
    assert hold.listed(repository, now=NOON + DAY).holds == []
    (line,) = hold.listed(repository, now=NOON + DAY, ended=True).holds
    assert line.state == "expired"
    with pytest.raises(UsageError, match="ended already"):
        hold.add(repository, old.id, ACCOUNTS, reason="too late", until=NOON - DAY, now=NOON)


def test_of_two_holds_one_is_enough(repository: Repository) -> None:
    old, new = (archive.put(repository, time=NOON + HOUR * number) for number in range(2))
    first = hold.add(repository, old.id, ACCOUNTS, reason="one", now=NOON)
    hold.add(repository, old.id, ACCOUNTS, reason="other", now=NOON + HOUR)
    hold.remove(repository, first.id, now=NOON + DAY)
    assert left(repository) == {old.id, new.id}


@pytest.mark.parametrize("text", ["", "zzzz", "2026"])
def test_only_one_hold_is_removed_at_a_time_and_only_one_that_there_is(repository: Repository, text: str) -> None:
    ref = archive.put(repository)
    for number in range(2):
        hold.add(repository, ref.id, ACCOUNTS, reason=str(number), now=NOON + HOUR * number)
    with pytest.raises(UsageError, match="hold list"):
        hold.remove(repository, text, now=NOON + DAY)
    assert len(hold.listed(repository, now=NOON + DAY).holds) == 2


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001])
def test_a_hold_needs_a_reason(repository: Repository, reason: str) -> None:
    archive.put(repository)
    with pytest.raises(UsageError, match="--reason"):
        hold.add(repository, "alice", ACCOUNTS, reason=reason, now=NOON)


def test_a_snapshot_that_goes_while_it_is_to_be_held_is_told(storage: MemoryStorage, repository: Repository) -> None:
    ref = archive.put(repository)
    storage.before_put = lambda name: storage.delete(ref.name) if name.startswith(names.HOLDS) else None
    with pytest.raises(UsageError, match="forgotten while"):
        hold.add(repository, ref.id, ACCOUNTS, reason="too late", now=NOON)


def test_reasons_are_stored_encrypted_and_the_name_proves_the_object(
    storage: MemoryStorage, repository: Repository
) -> None:
    archive.put(repository)
    line = hold.add(repository, "alice", ACCOUNTS, reason="SUSPICION OF FRAUD", now=NOON)
    data = storage.objects[names.hold(line.id)]
    assert b"FRAUD" not in data
    assert b"alice" not in data
    assert names.proves(names.hold(line.id), [data])
    assert names.proves(names.hold(line.id), [data[:-1]]) is False


def test_copies_learn_of_holds_and_of_their_end(
    storage: MemoryStorage, repository: Repository, secrets: Secrets
) -> None:
    second = MemoryStorage()
    second.url = "memory:second"
    old, new = (archive.put(repository, time=NOON + HOUR * number) for number in range(2))
    line = hold.add(repository, old.id, ACCOUNTS, reason="a lawsuit", now=NOON)
    copy(storage, second)
    with Repository(second, secrets) as there:
        assert left(there) == {old.id, new.id}
        hold.remove(repository, line.id, now=NOON)
        copy(storage, second)
        assert left(there) == {new.id}


def test_nothing_is_ever_in_the_copy_without_its_hold(
    storage: MemoryStorage, repository: Repository, secrets: Secrets
) -> None:
    second = MemoryStorage()
    second.url = "memory:second"
    ref = archive.put(repository)
    hold.add(repository, ref.id, ACCOUNTS, reason="a lawsuit", now=NOON)
    order: list[str] = []
    second.before_put = order.append
    copy(storage, second)
    kinds = [name.split("/")[0] for name in order]
    assert kinds.index("holds") < kinds.index("snapshots")


def test_the_list_of_snapshots_says_what_is_held_and_pinned(repository: Repository) -> None:
    good = archive.put(repository)
    tells = archive.put(repository, time=NOON + HOUR, losses=[Loss(b"INBOX", "INBOX", 100, 90, good.id)])
    other = archive.put(repository, time=NOON + 2 * HOUR)
    hold.add(repository, other.id, ACCOUNTS, reason="a lawsuit", now=NOON)
    lines = {line.id: line.kept for line in look.snapshots(repository, None, Protection(repository, NOON))}
    assert lines[good.id] == ["pinned by the tripwire since 2026-11-01 13:00"]
    assert [each.endswith("a lawsuit") for each in lines[other.id]] == [True]
    assert len(lines[tells.id]) == 1


def test_a_loss_that_is_accepted_is_silent_and_the_next_one_is_not(repository: Repository, state: State) -> None:
    def level() -> Level:
        return status(repository, state, {"alice": None}, NOON + DAY).level

    good = archive.put(repository)
    archive.put(repository, time=NOON + HOUR, losses=[Loss(b"INBOX", "INBOX", 100, 90, good.id)])
    assert level() is Level.CRITICAL
    assert [pin.what for pin in hold.listed(repository, now=NOON).pins] == [["90 of 100 messages gone from INBOX"]]
    hold.accept_loss(repository, "alice", now=NOON)
    assert (level(), hold.listed(repository, now=NOON).pins) == (Level.OK, [])
    with pytest.raises(UsageError, match="no sudden loss"):
        hold.accept_loss(repository, "alice", now=NOON)
    archive.put(repository, time=NOON + 3 * HOUR, losses=[Loss(None, "", 100, 90, good.id)])
    assert level() is Level.CRITICAL


def test_a_hold_of_another_repository_or_place_is_damage(storage: MemoryStorage, repository: Repository) -> None:
    archive.put(repository)
    line = hold.add(repository, "alice", ACCOUNTS, reason="one", now=NOON)
    data = storage.objects.pop(names.hold(line.id))
    storage.objects[names.hold(line.id[:-8] + "00000000")] = data
    with pytest.raises(Damaged, match="what its name says"):
        holds.read(repository)
    storage.objects.clear()
    storage.objects["holds/README"] = b"no hold"
    assert holds.read(repository).held == ()


def test_who_held_released_and_accepted_what_stays_to_be_read(storage: MemoryStorage, repository: Repository) -> None:
    good = archive.put(repository)
    tells = archive.put(repository, time=NOON + HOUR, losses=[Loss(b"INBOX", "INBOX", 100, 90, good.id)])
    line = hold.add(repository, "alice", ACCOUNTS, reason="a lawsuit", by="ann@office", now=NOON)
    hold.remove(repository, line.id, reason="it is over", by="bob@office", now=NOON + DAY)
    hold.accept_loss(repository, "alice", reason="spring cleaning", by="eve@office", now=NOON + 2 * DAY)

    assert hold.listed(repository, now=NOON + DAY).accepted == []
    found = hold.listed(repository, "alice", ended=True, now=NOON + 3 * DAY)
    (held,), (accepted,) = found.holds, found.accepted
    assert (held.by, held.released_by, held.released_reason) == ("ann@office", "bob@office", "it is over")
    assert held.released
    assert held.released.startswith("2026-11-02T12:00")
    assert (accepted.by, accepted.reason, accepted.snapshots) == ("eve@office", "spring cleaning", [tells.id])
    assert hold.listed(repository, "bob", ended=True, now=NOON).accepted == []
    assert not any(b"office" in data for data in storage.objects.values()), "it is encrypted"


def test_holds_that_do_not_tell_who_are_read(repository: Repository) -> None:
    archive.put(repository)
    line = hold.add(repository, "alice", ACCOUNTS, reason="of an earlier version", now=NOON)
    hold.remove(repository, line.id, now=NOON)
    (held,) = hold.listed(repository, ended=True, now=NOON).holds
    assert (held.state, held.by, held.released_by) == ("released", "", "")
