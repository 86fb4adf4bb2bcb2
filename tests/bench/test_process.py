"""The measuring of programs, tried on programs whose cost is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.process import Command, Failed, run, stored
from bench.rounds import messages_below, turned
from bench.spool import read_spool, write_spool

MEGABYTE = 1_000_000
HOLD = "import os; held = os.urandom({octets}); print('held')"


def _python(folder: Path, code: str) -> Command:
    return Command([sys.executable, "-c", code], folder)


def test_the_memory_of_a_program_is_measured(tmp_path: Path) -> None:
    small = run([_python(tmp_path, HOLD.format(octets=MEGABYTE))], limit=60).peak
    large = run([_python(tmp_path, HOLD.format(octets=200 * MEGABYTE))], limit=60).peak
    assert 150 * MEGABYTE < large - small < 250 * MEGABYTE


def test_the_memory_of_a_childs_child_counts_and_the_harness_own_does_not(tmp_path: Path) -> None:
    own = bytearray(300 * MEGABYTE)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD.format(octets=100 * MEGABYTE)!r}])"
    assert 100 * MEGABYTE < run([_python(tmp_path, code)], limit=60).peak < 250 * MEGABYTE < len(own)


def test_the_processor_time_of_a_childs_child_counts(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    cost = run([_python(tmp_path, code)], limit=60)
    assert cost.wall >= 0.5
    assert cost.cpu >= 0.5


def test_commands_of_one_work_add_up_and_the_highest_peak_counts(tmp_path: Path) -> None:
    commands = [_python(tmp_path, HOLD.format(octets=octets)) for octets in (100 * MEGABYTE, MEGABYTE)]
    parts = [run([command], limit=60).peak for command in commands]
    assert abs(run(commands, limit=60).peak - max(parts)) < 30 * MEGABYTE


def test_a_program_that_fails_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no such thing"):
        run([_python(tmp_path, "raise SystemExit('no such thing')")], limit=60)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with pytest.raises(Failed, match="more than 1 s"):
        run([_python(tmp_path, code)], limit=1)


def test_bytes_stored_are_lengths_of_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one").write_bytes(b"x" * 10)
    (tmp_path / "deep" / "two").write_bytes(b"x" * 5)
    assert stored(tmp_path) == 15


def test_a_spool_gives_back_what_was_written(tmp_path: Path) -> None:
    mail = [("INBOX", b"one\r\n"), ("a/b", b""), ("INBOX", b"\0two")]
    assert write_spool(tmp_path / "spool", mail) == (3, 9)
    assert {mailbox: list(messages) for mailbox, messages in read_spool(tmp_path / "spool")} == {
        "INBOX": [b"one\r\n", b"\0two"],
        "a/b": [b""],
    }


def test_restored_messages_are_counted_in_eml_trees_and_in_maildirs(tmp_path: Path) -> None:
    for name in ("eml/a/1.eml", "eml/a/index.json", "maildir/INBOX/cur/1:2,S", "maildir/INBOX/new/2", "maildir/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert messages_below(tmp_path / "eml") == 1
    assert messages_below(tmp_path / "maildir") == 2


def test_each_round_another_contestant_begins() -> None:
    order = ["a", "b", "c"]
    assert [turned(order, number)[0] for number in range(4)] == ["a", "b", "c", "a"]
