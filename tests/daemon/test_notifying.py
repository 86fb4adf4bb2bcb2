"""What the daemon says becomes events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from backupd import config
from backupd.daemon.board import Live
from backupd.daemon.notifying import Notifying
from backupd.daemon.retrying import Cause, cause_of
from backupd.errors import ConfigError, ConnectionFailed, LoginRefused, StorageUnavailable
from backupd.model import Problem
from backupd.operations.backup import BackupReport
from backupd.operations.notices import events
from backupd.operations.notices.events import PATIENT, SHARED
from backupd.repository.snapshots import Loss
from tests.support.config import GOOD, write

GOOD_TIME = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
REPORT = BackupReport(
    account="alice", snapshot="id", parent=None, started="", ended="", complete=True, mailboxes=1, messages=1, octets=1,
    new=1, downloaded=1, recognised=0, vanished=0, changed=0, stored=1, problems=[], losses=[], notes=[],
)  # fmt: skip


class Told:
    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def tell(self, event: events.Event) -> None:
        self.events.append(event)

    def take(self) -> list[events.Event]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def notifying(told: Told, tmp_path: Path) -> Notifying:
    loaded = config.load(write(tmp_path, GOOD))
    return Notifying(told, lambda: loaded, lambda account: GOOD_TIME)


def test_a_backup_that_left_nothing_out_and_one_that_did(notifying: Notifying, told: Told) -> None:
    notifying.started("alice")
    notifying.succeeded("alice", REPORT)
    assert told.take() == [events.Started("alice"), events.Completed("alice")]
    problems = [Problem("INBOX", 7, "too long"), Problem("Sent", None, "refused")]
    losses = [Loss(mailbox=b"A", name="A", before=10, gone=9, pinned="p")]
    notifying.succeeded("alice", msgspec.structs.replace(REPORT, problems=problems, losses=losses))
    assert told.take() == [events.Lost("alice", "A", 9, 10, "p"), events.Incomplete("alice", 2, "INBOX 7: too long")]


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (
            ConnectionFailed("no connection: timed out", subject="mail.example.com:993", remedy="check the host"),
            events.Failed(
                "alice", "network", "mail.example.com:993: no connection: timed out", "check the host",
                "mail.example.com", GOOD_TIME, 3600.0,
            ),
        ),
        (LoginRefused("no"), events.Failed("alice", "login", "no", "", "mail.example.com", GOOD_TIME, 3600.0)),
        (StorageUnavailable("503"), events.Failed("alice", "storage", "503", "", "/srv/backup", GOOD_TIME, 3600.0)),
        (
            KeyError("hunter2"),
            events.Failed(
                "alice", "bug", "an error in backupd itself: KeyError", "please report it", "mail.example.com",
                GOOD_TIME, 3600.0,
            ),
        ),
    ],
)  # fmt: skip
def test_a_backup_that_failed(notifying: Notifying, told: Told, error: Exception, event: events.Event) -> None:
    notifying.failed("alice", error, cause_of(error), 1)
    assert told.take() == [event]


def test_every_cause_of_failures_is_known_by_its_name() -> None:
    names = {cause.value for cause in Cause}
    assert names >= PATIENT
    assert names >= SHARED


def test_jobs_the_repository_and_the_configuration(notifying: Notifying, told: Told) -> None:
    notifying.job_failed("copy", StorageUnavailable("503", remedy="try later"))
    notifying.job_succeeded("copy", "done")
    notifying.repository_unreachable(StorageUnavailable("503"))
    notifying.repository_reachable()
    notifying.reload_refused(ConfigError("line 3"))
    notifying.running()
    assert told.take() == [
        events.AuditFailed("copy", "503", "try later"), events.AuditPassed("copy"),
        events.Unreachable("/srv/backup", "503", ""), events.Reachable("/srv/backup"),
        events.ReloadRefused("line 3"), events.Reloaded(),
    ]  # fmt: skip


def test_objectives_are_told_as_long_as_they_are_missed_and_once_when_they_are_met(
    notifying: Notifying, told: Told
) -> None:
    alice = Live("alice", last_good=GOOD_TIME)
    missed = events.Missed("alice", 3600.0, GOOD_TIME)
    notifying.objectives([alice], [])
    assert told.take() == [events.Met("alice")], "it may have been missed before the restart"
    notifying.objectives([alice], [])
    assert told.take() == []
    notifying.objectives([alice], [alice])
    notifying.objectives([alice], [alice])
    assert told.take() == [missed, missed]
    notifying.objectives([alice], [])
    assert told.take() == [events.Met("alice")]
