"""A failure of an audit stands until one that is as wide has looked again."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import msgspec
import pytest

from backupd.operations import audit_history
from backupd.operations.audit_report import AuditReport, Level
from backupd.operations.audit_state import Audit, AuditOutcome, Scope
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from tests.operations.test_audit import Audited
from tests.operations.test_audit import audited as audited
from tests.support import archive
from tests.support.archive import NOON, Box, Mail
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage

HERE = "/srv/backup/mail"
READER = Scope(role="reader")


def held(state: State, level: str, outcome: AuditOutcome, scope: Scope = READER) -> None:
    state.audited([Audit(HERE, "", level, NOON.isoformat(), NOON.isoformat(), outcome, scope=scope)])


def standing(state: State) -> dict[str, str]:
    """What counts for each level."""
    return {each.last.level: each.outcome.outcome for each in audit_history.latest(state, HERE)}


def scope(**more: object) -> Scope:
    return msgspec.structs.replace(READER, **more)


@pytest.mark.parametrize("later", ["storage", "content", "drill"])
def test_an_audit_that_looks_at_as_much_or_more_makes_up_for_a_failure(state: State, later: str) -> None:
    held(state, "storage", "critical")
    held(state, later, "ok")
    assert standing(state)["storage"] == "ok"


SINCE = datetime(2026, 11, 1, tzinfo=UTC)
NARROWER = {
    "a lower level": ("metadata", READER),
    "a share of the bytes": ("content", scope(budget=0.05)),
    "some time": ("content", scope(since=SINCE)),
    "some accounts": ("content", scope(accounts=("alice",))),
    "a key that tells less": ("source", Scope(role="writer")),
}


@pytest.mark.parametrize("narrower", NARROWER)
def test_one_that_looks_at_less_does_not(state: State, narrower: str) -> None:
    held(state, "content", "critical")
    level, less = NARROWER[narrower]
    held(state, level, "ok", less)
    assert standing(state)["content"] == "critical"
    held(state, "content", "ok")
    assert standing(state)["content"] == "ok"


@pytest.mark.parametrize(
    ("before", "later", "enough"),
    [
        (scope(budget=0.05), scope(budget=0.05), True),
        (scope(budget=0.05), scope(budget=0.01), False),
        (scope(since=SINCE), scope(since=SINCE - timedelta(days=1)), True),
        (scope(since=SINCE), scope(since=SINCE + timedelta(days=1)), False),
        (scope(accounts=("alice",)), scope(accounts=("alice", "bob")), True),
        (scope(accounts=("alice",)), scope(accounts=("bob",)), False),
        (scope(full=True), scope(), False),
        (scope(exported=True), scope(), False),
        (scope(accounts=("alice",), budget=0.05, since=SINCE), READER, True),
    ],
)
def test_of_two_that_look_at_a_part_the_parts_are_compared(
    state: State, before: Scope, later: Scope, enough: bool
) -> None:
    held(state, "drill", "critical", before)
    held(state, "drill", "ok", later)
    assert standing(state)["drill"] == ("ok" if enough else "critical")


def test_what_could_not_judge_has_refuted_nothing(state: State) -> None:
    held(state, "source", "critical")
    held(state, "source", "unknown")
    held(state, "drill", "unknown")
    assert standing(state) == {"drill": "unknown", "source": "critical"}


def test_without_a_key_nothing_is_said_of_metadata(state: State) -> None:
    held(state, "metadata", "critical")
    held(state, "storage", "ok", Scope(role="auditor"))
    assert standing(state) == {"storage": "ok", "metadata": "critical"}


def test_a_failure_that_comes_after_is_no_older_for_what_came_before(state: State) -> None:
    held(state, "drill", "ok")
    held(state, "metadata", "warning")
    assert standing(state) == {"drill": "ok", "metadata": "warning"}


def test_an_audit_notes_what_it_looked_at(
    repository: Repository, storage: MemoryStorage, audited: Audited, state: State
) -> None:
    archive.put(repository, {b"INBOX": Box({1: Mail(message("Hello"))})})
    good = dict(storage.objects)
    pack = next(name for name in good if name.startswith(names.PACKS))
    storage.objects[pack] = good[pack][:-1]
    ask = count()

    def outcome(level: Level, **options: object) -> str:
        report: AuditReport = audited(level, now=NOON + next(ask) * timedelta(minutes=1), **options)
        return report.outcome

    def stands() -> dict[str, str]:
        return {each.last.level: each.outcome.outcome for each in audit_history.latest(state, storage.url)}

    assert outcome(Level.STORAGE) == "critical"
    storage.objects[pack] = good[pack]
    assert outcome(Level.STORAGE, alone=True) == outcome(Level.STORAGE, role=Role.AUDITOR) == "ok"
    assert stands() == {"storage": "critical"}
    assert outcome(Level.CONTENT) == "ok"
    assert stands() == {"storage": "ok", "content": "ok"}


def test_a_hundred_cheap_audits_push_out_no_drill(state: State) -> None:
    held(state, "drill", "warning")
    for _ in range(150):
        held(state, "metadata", "ok")
    assert len(state.audits(HERE, level="metadata", limit=1000)) == 100
    assert standing(state) == {"drill": "warning", "metadata": "ok"}


def test_the_history_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    state = State(tmp_path)
    path = state.path
    held(state, "content", "critical")
    state.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE audit DROP COLUMN scope")
    database.close()
    state = State(tmp_path)
    assert standing(state) == {"content": "critical"}
    held(state, "content", "ok")
    assert standing(state) == {"content": "ok"}
    state.close()
