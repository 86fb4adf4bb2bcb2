"""Local state: history, the journal, locks; and that it may be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.errors import StorageDenied
from backupd.operations.restore_plan import rewritten_by_the_server
from backupd.operations.state import Journal, Run, State


def test_runs_are_kept_newest_first(state: State) -> None:
    for number in range(3):
        state.record(Run("alice", f"2026-01-0{number + 1}", "later", "stored", f"id-{number}"))
    state.record(Run("bob", "2026-01-09", "later", "failed", None, "no route"))

    assert [run.snapshot for run in state.runs("alice")] == ["id-2", "id-1", "id-0"]
    assert [run.account for run in state.runs(limit=2)] == ["bob", "alice"]


def test_the_journal_of_a_restore(state: State) -> None:
    assert state.journal("target", b"INBOX") is None
    state.open_journal("target", b"INBOX", 7)
    state.open_journal("target", b"INBOX", 99)
    state.journal_written("target", b"INBOX", [3, 1, 3])

    assert state.journal("target", b"INBOX") == Journal(7, frozenset({1, 3}))
    assert state.journal("other", b"INBOX") is None
    state.close_journal("target")
    assert state.journal("target", b"INBOX") is None


@pytest.mark.parametrize(
    ("recognised", "strangers", "found"),
    [
        ([], 12, {1, 2}),  # as many strangers more as were written: the server changed them
        ([1], 12, set()),  # the server keeps headers, so what is not recognised was deleted since
        ([], 11, set()),  # too few strangers: deleted since
    ],
)
def test_what_a_server_rewrote_is_told_from_what_was_deleted(
    recognised: list[int], strangers: int, found: set[int]
) -> None:
    assert rewritten_by_the_server(Journal(10, frozenset({1, 2})), recognised, strangers) == found


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    for name in ("file", "full", "No space"):  # the path is no reason
        (tmp_path / name).write_text("")
        with pytest.raises(StorageDenied, match="state_dir"):
            State(tmp_path / name / "state")


def test_what_is_kept_of_a_thing_replaces_what_was(state: State) -> None:
    state.keep("job", "copy", b"1")
    state.keep("job", "copy", b"2")
    state.keep("standing", "copy", b"3")
    state.keep("job", "prune", b"4")
    assert state.kept("job") == {"copy": b"2", "prune": b"4"}
    assert state.kept("job", "prune") == {"prune": b"4"}
    assert state.kept("job", "gone") == {}
