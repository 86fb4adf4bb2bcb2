"""How an account stands is what the repository says, whether it was kept by each run or read anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from backupd.errors import ServerRefused
from backupd.operations import standing
from backupd.operations.backup import BackupReport
from backupd.operations.hold import accept_loss
from backupd.operations.standing import Standing, kept, learn, read
from backupd.operations.state import State
from backupd.repository.repository import Repository, create
from backupd.repository.snapshots import Loss, timestamp
from tests.operations.conftest import CHEAP
from tests.support import archive
from tests.support.archive import NOON
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

HOUR = timedelta(hours=1)
Backup = Callable[..., BackupReport]


def of_alice(state: State) -> Standing:
    return kept(state)["alice"]


def test_each_run_leaves_what_would_be_read_from_the_repository(
    take: Backup, repository: Repository, state: State, account: SimulatedAccount
) -> None:
    account.create(b"INBOX")
    for new in ([b"Subject: one\r\n\r\nHello\r\n"], [], [b"Subject: two\r\n\r\nHello again\r\n"]):
        account.append(b"INBOX", *new)
        take()
        assert (of_alice(state), []) == read(repository, state, "alice")
    assert (of_alice(state).messages, of_alice(state).complete) == (2, True)


def test_a_run_that_finds_nothing_changed_proves_the_snapshot_and_is_not_one(take: Backup, state: State) -> None:
    first = take()
    second = take()
    assert second.snapshot is None
    found = of_alice(state)
    assert (found.snapshot, found.time) == (first.snapshot, first.started)
    assert (found.proved, found.whole) == (second.started, second.started)


def test_a_clock_that_was_a_year_ahead_once_makes_no_later_run_look_young(
    take: Backup, repository: Repository, state: State, account: SimulatedAccount
) -> None:
    account.create(b"INBOX")
    account.append(b"INBOX", b"Subject: one\r\n\r\nHello\r\n")
    take(clock=lambda: NOON + 365 * 24 * HOUR)
    account.append(b"INBOX", b"Subject: two\r\n\r\nHello again\r\n")
    for _ in range(2):
        take(clock=lambda: NOON)
        found = of_alice(state)
        assert (found.proved, found.whole) == (timestamp(NOON), timestamp(NOON))
        assert (found, []) == read(repository, state, "alice")


def test_a_run_that_fails_takes_nothing_from_what_was_known(
    take: Backup, state: State, account: SimulatedAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    take()
    before = of_alice(state)

    def refuse(*_: object) -> None:
        raise ServerRefused("not now")

    monkeypatch.setattr(account, "open", refuse)
    with pytest.raises(ServerRefused):
        take()
    found = of_alice(state)
    assert (found.proved, found.snapshot, found.messages) == (before.proved, before.snapshot, before.messages)
    assert found.last_run is not None
    assert (found.last_run.outcome, found.last_run.error) == ("failed", "not now")


def test_a_lost_state_is_learnt_from_the_repository(repository: Repository, state: State) -> None:
    good = archive.put(repository)
    loss = Loss(b"INBOX", "INBOX", 100, 90, good.id)
    archive.put(repository, time=NOON + HOUR, losses=[loss])
    newest = archive.put(repository, time=NOON + 2 * HOUR)
    found = learn(repository, state, "alice")
    assert (found.snapshot, found.losses) == (newest.id, [loss])
    repository.remove_snapshot(newest)
    assert learn(repository, state, "alice") == found, "it was kept, and not read once more"


def test_a_loss_is_over_with_the_next_run_when_its_pinned_snapshot_is_gone(
    take: Backup, repository: Repository, state: State
) -> None:
    take()
    pinned = repository.refs("alice")[0]
    loss = Loss(b"INBOX", "INBOX", 100, 90, pinned.id)
    known = of_alice(state)
    standing.keep(state, "alice", Standing(known.repository, snapshot=known.snapshot, losses=[loss]))
    take()
    assert of_alice(state).losses == [loss]
    repository.remove_snapshot(pinned)
    take()
    assert of_alice(state).losses == []


def test_where_the_state_was_lost_a_run_does_not_bring_an_accepted_loss_back(
    take: Backup, account: SimulatedAccount, repository: Repository, state: State
) -> None:
    account.create(b"INBOX")
    account.append(b"INBOX", *(message(f"Message {number}") for number in range(60)))
    take()
    account.expunge(b"INBOX", *account.contents()[b"INBOX"])
    (loss,) = take().losses
    state.keep("standing", "alice", b"{}")  # lost
    take()
    assert of_alice(state).losses == [loss]
    accept_loss(repository, "alice", reason="we tidied up", now=NOON)
    state.keep("standing", "alice", b"{}")
    take()
    assert of_alice(state).losses == []


def test_what_was_learnt_of_another_repository_counts_for_nothing(repository: Repository, state: State) -> None:
    archive.put(repository)
    assert learn(repository, state, "alice").proved
    other = MemoryStorage()
    with Repository(other, create(other, "a passphrase", argon2=CHEAP)) as empty:
        assert learn(empty, state, "alice") == Standing(empty.secrets.repository.hex())


def test_what_an_earlier_version_kept_otherwise_is_not_known(state: State) -> None:
    state.keep("standing", "alice", b'{"shape": "another"}')
    assert kept(state) == {}
