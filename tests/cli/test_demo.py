"""`backupd demo` proves what it shows, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def scratch(environment: dict[str, str], tmp_path: Path) -> Path:
    """Where the demo's temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    environment["TMPDIR"] = str(folder)
    return folder


def servers_of(scratch: Path) -> list[int]:
    """Processes that were started with this folder for temporary files and are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"TMPDIR={scratch}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_every_byte_flag_and_date_is_back(run: Run, scratch: Path) -> None:
    done = run("demo", timeout=120)

    assert done.code == 0, done.err
    assert "274 of 274 messages are back: every byte, flag and date is what it was" in done.out
    for words in ("60 moved, 87 gone", "UIDVALIDITY reset, 60 messages recognised", "87 messages written, 187 were"):
        assert words in done.out
    assert "sudden loss: 40 of 40 messages are gone from Family/Holidays" in done.err
    assert list(scratch.iterdir()) == []
    assert servers_of(scratch) == []


def test_as_one_json_document(run: Run, scratch: Path) -> None:
    document = run("--json", "demo", timeout=120).document

    assert isinstance(document, dict)
    assert document["proof"] == {"messages": 274, "identical": 274, "missing": 0, "more": 0}
    assert [step["command"][0] for step in document["steps"]] == ["backup"] * 3 + ["diff"] + ["restore"] * 2


def test_interrupted_it_leaves_nothing(environment: dict[str, str], scratch: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backupd", "demo"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          start_new_session=True) as demo:  # fmt: skip
        assert demo.stdout
        while b"$ backupd backup" not in demo.stdout.readline():
            assert demo.poll() is None
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert b"Traceback" not in errors
    assert list(scratch.iterdir()) == []
    assert servers_of(scratch) == []
