"""`backupd demo` proves what it shows, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupd.cli.commands.demo import command
from backupd.cli.context import Context
from backupd.cli.demo.mailbox import MAILBOXES, User
from backupd.cli.demo.proof import Seen, compare
from backupd.cli.demo.story import tell
from backupd.errors import BackupdError
from tests.cli.conftest import Run

NO_DIFFERENCE = {"messages": 274, "identical": 274, "missing": [], "more": []}


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


def until(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@contextmanager
def begun(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that is in its first backup."""
    command = [sys.executable, "-m", "backupd", "demo"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          start_new_session=True) as demo:  # fmt: skip
        assert demo.stdout
        while b"$ backupd backup" not in demo.stdout.readline():
            assert demo.poll() is None
        yield demo


def test_every_byte_flag_and_date_is_back(run: Run, scratch: Path) -> None:
    done = run("demo", timeout=120)

    assert done.code == 0, done.err
    assert "274 of 274 messages are back: every byte, flag and date is what it was" in done.out
    for words in ("60 moved, 87 gone", "UIDVALIDITY reset, 60 messages recognised", "87 messages written, 187 were"):
        assert words in done.out
    assert "sudden loss: 40 of 40 messages are gone from Family/Holidays" in done.err
    assert "\x1b" not in done.out + done.err
    assert list(scratch.iterdir()) == []
    assert servers_of(scratch) == []


def test_as_one_json_document_in_any_time_zone(run: Run, environment: dict[str, str], scratch: Path) -> None:
    environment["TZ"] = "America/St_Johns"
    document = run("--json", "demo", timeout=120).document

    assert isinstance(document, dict)
    assert document["proof"] == NO_DIFFERENCE
    assert [step["command"][0] for step in document["steps"]] == ["backup"] * 3 + ["diff"] + ["restore"] * 2
    # Nothing of the mailbox that was made anew was downloaded again.
    assert [step["answer"]["runs"][0]["new"] for step in document["steps"][:3]] == [270, 4, 0]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(
    environment: dict[str, str], scratch: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with begun(environment, tmp_path) as demo:
        os.killpg(demo.pid, number)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert b"Traceback" not in errors
    assert list(scratch.iterdir()) == []
    assert servers_of(scratch) == []


def test_killed_it_leaves_nothing_either_and_showed_no_password(
    environment: dict[str, str], scratch: Path, tmp_path: Path
) -> None:
    with begun(environment, tmp_path) as demo:
        password = next(scratch.glob("*/password")).read_bytes()
        shown = [Path(f"/proc/{each}/cmdline").read_bytes() for each in servers_of(scratch)]
        demo.kill()
    assert len(shown) == 2  # the demo and its server
    assert all(password not in each for each in shown)
    assert until(lambda: not servers_of(scratch))
    assert list(scratch.iterdir()) == []


def test_a_reader_who_has_seen_enough_ends_it_quietly(
    environment: dict[str, str], scratch: Path, tmp_path: Path
) -> None:
    with begun(environment, tmp_path) as demo:
        assert demo.stdout
        demo.stdout.close()
        demo.stdout = None
        _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (141, b"")
    assert list(scratch.iterdir()) == []
    assert servers_of(scratch) == []


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary files of this process go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_one_flag_that_is_not_back_fails_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], temporary: Path
) -> None:
    # A smaller account: what is tried is the verdict, and whole demos are told above.
    monkeypatch.setattr("backupd.cli.demo.mailbox.MAILBOXES", dict.fromkeys(MAILBOXES, 6))
    honest, looks = User.look, []

    def look(user: User) -> list[Seen]:
        looks.append(honest(user))
        # The last of three looks is the one after the restore.
        return [looks[2][0]._replace(flags=("\\Deleted",)), *looks[2][1:]] if len(looks) == 3 else looks[-1]

    monkeypatch.setattr(User, "look", look)
    assert tell(Context(json=True)) == 1

    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["exit_code"] == 1
    assert document["proof"]["identical"] == 33
    assert [each["digest"] for each in document["proof"]["missing"]] == [looks[2][0].digest]
    assert [each["flags"] for each in document["proof"]["more"]] == [["\\Deleted"]]
    figures, missing, more = err.splitlines()[-3:]
    assert figures == "backupd: demo: 33 of 34 messages are identical"
    assert missing.startswith(f"backupd: demo: missing: INBOX: {looks[2][0].date}")
    assert more.startswith(f"backupd: demo: not there before: INBOX: {looks[2][0].date}")
    assert "(\\Deleted; " in more
    assert list(temporary.iterdir()) == []


def seen(mailbox: str = "INBOX", digest: str = "aa", date: str = "2026-03-02 08:00:00 +0000") -> Seen:
    return Seen(mailbox, digest, ("\\Seen",), date, 100, "Hello")


def test_a_proof_counts_each_copy_of_a_message() -> None:
    proof = compare([seen(), seen(), seen(digest="bb")], [seen(digest="bb"), seen()])
    assert (proof.messages, proof.identical, proof.missing, proof.more) == (3, 2, [seen()], [])
    assert not proof.holds


def test_a_proof_minds_the_mailbox_and_the_time_zone() -> None:
    other = [seen(mailbox="Work"), seen(date="2026-03-02 09:00:00 +0100")]
    proof = compare([seen(), seen()], other)
    assert (proof.identical, proof.more) == (0, other)
    assert compare(other, other[::-1]).holds


@pytest.mark.parametrize("absent", ["pymap", "imapclient"])
def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(BackupdError) as caught:
        command(context=Context())
    assert caught.value.remedy == "install backupd[demo]"
