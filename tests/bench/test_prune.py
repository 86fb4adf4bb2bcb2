"""Who is measured at pruning must keep the same mail, and a prune that comes a day later must be one."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupd.operations.backup import backup
from backupd.operations.state import State
from backupd.repository import marks
from backupd.repository.repository import Repository, create
from backupd.storage.local import LocalStorage
from bench.changing import Changing, message
from bench.process import Command, run
from bench.prune import arguments, files, histories
from bench.prune_contestants import change, date_back, history
from tests.operations.conftest import CHEAP
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_a_backup_of_the_account_and_the_files_hold_the_same(tmp_path: Path) -> None:
    storage, state = MemoryStorage(), State(tmp_path / "state")
    account, twin = Changing(300, 12), Changing(300, 12)
    with Repository(storage, create(storage, "a passphrase", argon2=CHEAP)) as repository:
        for time, _ in zip(history(account), history(twin), strict=True):
            report = backup(repository, account, "alice", state=state, clock=lambda: time)  # noqa: B023 called at once
            assert report.complete
            change(tmp_path / "mail", twin)
        refs = repository.refs()
        found = contents(repository, repository.snapshot(refs[-1]))
    state.close()
    assert len(refs) == 12
    held = {
        (name.decode(), uid, b"\\Flagged" in flags): raw
        for name, mails in found.items()
        for uid, (raw, flags, _) in mails.items()
    }
    there = {
        (path.parts[-3], int(path.name.partition(".")[0]), path.name.endswith("FS")): path.read_bytes()
        for path in (tmp_path / "mail").rglob("*")
        if path.is_file()
    }
    assert held == there
    assert any(flagged for _, _, flagged in held)
    assert 100 < len(held) < 300  # some have gone


def test_the_history_has_as_many_messages_as_was_asked_for_and_is_the_same_each_time() -> None:
    one, other = Changing(1_000, 20), Changing(1_000, 20)
    for account in (one, other):
        assert sum(1 for _ in history(account)) == 20
    assert {name: box.uids for name, box in one.boxes.items()} == {name: box.uids for name, box in other.boxes.items()}
    assert sum(box.uidnext - 1 for box in one.boxes.values()) == 1_000
    assert len({message(number) for number in range(1_000)}) == 1_000


def test_a_mark_that_is_dated_back_is_older_by_its_name_and_by_its_file(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    marks.put(storage, ["index/0"], "a test", NOW)
    (before,) = marks.read(storage)
    date_back(tmp_path, timedelta(days=1))
    (after,) = marks.read(storage)
    assert (before.time - after.time, before.mark) == (timedelta(days=1), after.mark)
    assert before.stored is not None
    assert after.stored is not None
    assert 86_399 < before.stored - after.stored < 86_401


def test_what_a_program_and_its_child_read_and_write_is_counted(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(bytes(3_000_000))
    copy = "import sys; open('to', 'ab').write(open('from', 'rb').read())"
    code = f"import subprocess, sys\n{copy}\nsubprocess.run([sys.executable, '-c', {copy!r}])"
    cost = run([Command([sys.executable, "-c", code], tmp_path)], limit=60)
    assert 6_000_000 <= cost.read < 12_000_000
    assert 6_000_000 <= cost.written < 7_000_000
    assert files(tmp_path)["to"] == 6_000_000


def test_nine_tenths_are_forgotten_of_any_number() -> None:
    alone, beside = histories(arguments(["--messages", "50", "--snapshots", "30", "--beside", "20", "10"]))
    assert [(each.messages, each.snapshots, each.keep) for each in (alone, beside)] == [(50, 30, 3), (20, 10, 1)]
