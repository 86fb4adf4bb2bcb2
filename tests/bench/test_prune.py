"""Who is measured at pruning must keep the same mail, and a prune that comes a day later must be one."""

from __future__ import annotations

import sys
from pathlib import Path

from backupd.operations.backup import backup
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository, create
from backupd.storage.local import LocalStorage
from bench.changing import Changing, message
from bench.process import Command, run
from bench.prune import arguments, files, histories
from bench.prune_contestants import MARK, REMOVE, Own, change, history
from tests.operations.conftest import CHEAP
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents


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


def test_a_prune_that_comes_a_day_later_removes_what_was_marked(tmp_path: Path) -> None:
    own = Own(str(Path(sys.executable).with_name("backupd")), tmp_path)
    own.make(Changing(60, 12))

    def packs() -> set[str]:
        return {info.name for info in LocalStorage(own.repository).list(names.PACKS)}

    before = packs()
    for work, commands in own.works(keep=1):
        run(commands, limit=60)
        if work == MARK:
            assert before <= packs()
        if work == REMOVE:
            assert len(packs()) < len(before)
            break


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
