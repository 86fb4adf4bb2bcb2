"""How accounts stand."""

from __future__ import annotations

from datetime import timedelta

from backupd.model import Problem
from backupd.operations.state import Run, State
from backupd.operations.status import AccountStatus, Level, status
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Loss, timestamp
from tests.support import archive
from tests.support.archive import NOON

HOUR = timedelta(hours=1)


def of_alice(repository: Repository, state: State, *, objective: timedelta | None = HOUR) -> AccountStatus:
    return status(repository, state, {"alice": objective}, NOON + 2 * HOUR).accounts[0]


def ran(state: State, outcome: str, *, minutes_ago: int, error: str = "", snapshot: str | None = None) -> None:
    time = timestamp(NOON + 2 * HOUR - timedelta(minutes=minutes_ago))
    state.record(Run("alice", time, time, outcome, snapshot, error))  # type: ignore[arg-type]


def test_an_account_never_backed_up_is_critical(repository: Repository, state: State) -> None:
    found = status(repository, state, {"alice": None}, NOON)
    assert found.level is Level.CRITICAL
    assert found.accounts[0].reasons == ["never backed up"]


def test_a_snapshot_older_than_the_objective_is_critical(repository: Repository, state: State) -> None:
    archive.put(repository)
    assert of_alice(repository, state).level is Level.CRITICAL
    assert of_alice(repository, state, objective=3 * HOUR).level is Level.OK
    assert of_alice(repository, state, objective=None).level is Level.OK


def test_a_run_that_found_nothing_changed_proves_an_old_snapshot(repository: Repository, state: State) -> None:
    newest = archive.put(repository)
    ran(state, "unchanged", minutes_ago=10, snapshot=newest.id)
    found = of_alice(repository, state)
    assert (found.level, found.age) == (Level.OK, 600)


def test_a_snapshot_of_a_time_that_is_yet_to_come_has_no_age(repository: Repository, state: State) -> None:
    newest = archive.put(repository, time=NOON + 365 * 24 * HOUR)
    found = of_alice(repository, state)
    assert (found.level, found.age) == (Level.CRITICAL, None)
    assert found.reasons[0].startswith("backed up at 2027-")
    assert of_alice(repository, state, objective=None).level is Level.WARNING
    ran(state, "unchanged", minutes_ago=10, snapshot=newest.id)
    assert of_alice(repository, state).age == 600, "the run that found it again knows when that was"


def test_a_run_whose_snapshot_is_gone_proves_nothing(repository: Repository, state: State) -> None:
    archive.put(repository)
    newest = archive.put(repository, time=NOON + HOUR)
    ran(state, "unchanged", minutes_ago=10, snapshot=newest.id)
    repository.remove_snapshot(newest)
    assert of_alice(repository, state).age == 7200


def test_a_failed_run_is_a_warning_as_long_as_the_objective_is_kept(repository: Repository, state: State) -> None:
    archive.put(repository, time=NOON + 2 * HOUR - timedelta(minutes=20))
    ran(state, "failed", minutes_ago=5, error="login refused")
    found = of_alice(repository, state)
    assert (found.level, found.reasons) == (Level.WARNING, ["the last run failed: login refused"])


def test_a_checkpoint_proves_nothing(repository: Repository, state: State) -> None:
    archive.put(repository, time=NOON + 2 * HOUR, checkpoint=True)
    assert of_alice(repository, state).level is Level.CRITICAL


def test_a_sudden_loss_stays_critical_as_long_as_its_pinned_snapshot_is_there(
    repository: Repository, state: State
) -> None:
    good = archive.put(repository)
    loss = Loss(b"INBOX", "INBOX", 100, 90, good.id)
    archive.put(repository, time=NOON + HOUR, losses=[loss])
    archive.put(repository, time=NOON + 2 * HOUR)
    found = of_alice(repository, state)
    assert (found.level, found.losses) == (Level.CRITICAL, [loss])
    repository.remove_snapshot(good)
    assert of_alice(repository, state).level is Level.OK


def test_problems_of_the_newest_snapshot_are_a_warning(repository: Repository, state: State) -> None:
    archive.put(repository, time=NOON + 2 * HOUR, problems=[Problem("INBOX", 3, "refused")])
    found = of_alice(repository, state)
    assert (found.level, found.problems) == (Level.WARNING, 1)
