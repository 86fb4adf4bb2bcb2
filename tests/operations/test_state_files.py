"""Locks on the state, and that a damaged database is put aside and nothing else is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backupd.errors import Busy, StateDamaged
from backupd.operations.state import Run, State
from backupd.operations.state_files import DATABASE, account_lock, daemon_lock, set_aside_damaged


def filled(folder: Path) -> Path:
    """A state of some pages; its database."""
    with closing(State(folder)) as state:
        for number in range(300):
            state.keep("thing", str(number), bytes(400))
        state.record(Run("alice", "2026-01-01", "later", "stored", "id"))
    return folder / DATABASE


def test_two_backups_of_one_account_exclude_each_other_and_others_do_not(tmp_path: Path) -> None:
    with account_lock(tmp_path, "alice"):
        with account_lock(tmp_path, "bob"):
            pass
        with pytest.raises(Busy), account_lock(tmp_path, "alice"):
            pass
    with account_lock(tmp_path, "alice"):
        pass


def test_only_one_daemon_works_with_a_state(tmp_path: Path) -> None:
    with daemon_lock(tmp_path / "not yet" / "there"):
        with account_lock(tmp_path / "not yet" / "there", "daemon"):
            pass
        with pytest.raises(Busy, match="another daemon runs"), daemon_lock(tmp_path / "not yet" / "there"):
            pass
    with daemon_lock(tmp_path / "not yet" / "there"):
        pass


@pytest.mark.parametrize("place", ["the first page", "in the middle", "cut off"])
def test_a_damaged_database_is_put_aside(tmp_path: Path, place: str) -> None:
    database = filled(tmp_path)
    content = bytearray(database.read_bytes())
    if place == "cut off":
        del content[len(content) // 2 :]
    else:
        begin = 0 if place == "the first page" else len(content) // 2
        content[begin : begin + 8192] = b"\xaa" * 8192
    database.write_bytes(content)

    assert set_aside_damaged(tmp_path) == tmp_path / "state.sqlite.damaged"
    assert (tmp_path / "state.sqlite.damaged").read_bytes() == content
    with closing(State(tmp_path)) as state:
        assert state.runs() == []
    assert set_aside_damaged(tmp_path) is None


def test_a_second_damaged_database_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for content in (b"first " * 1000, b"second " * 1000):
        (tmp_path / DATABASE).write_bytes(content)
        with pytest.raises(StateDamaged, match="restart the daemon"):
            State(tmp_path)
        set_aside_damaged(tmp_path)
    assert [path.name for path in tmp_path.glob("state*")] == ["state.sqlite.damaged"]
    assert (tmp_path / "state.sqlite.damaged").read_bytes() == content


def test_a_sound_database_stays_with_what_its_log_holds(tmp_path: Path) -> None:
    with closing(State(tmp_path)) as state:
        state.keep("thing", "one", b"1")
        with closing(sqlite3.connect(state.path)) as locked:
            locked.execute("BEGIN IMMEDIATE")
            assert set_aside_damaged(tmp_path) is None
        assert state.kept("thing") == {"one": b"1"}
    assert set_aside_damaged(tmp_path / "nowhere") is None
