"""A POP3 account in the worst moments, through the real command: killed, cut off, with no room on the disk. Whatever a
server no longer has afterwards is in a snapshot that comes back whole, and the next run completes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.operations.backup import pull
from backupd.operations.state import State
from backupd.repository.repository import Repository, unlock
from backupd.sources.pop3.source import Pop3Source
from backupd.wire.pop3_settings import Pop3Settings
from tests.support.command import PASSPHRASE, SECONDS, Place, hashes
from tests.support.mail import Attachment, message, noise
from tests.support.reading import contents
from tests.support.scripted_pop3 import PASSWORD, USER, Scripted, ScriptedPop3

OLD = [message(f"Old {number}", size=900 + number) for number in range(12)]
NEW = [message(f"New {number}", attachments=[Attachment("a.bin", noise(number, 200_000))]) for number in range(12)]
AGO = datetime.now(UTC) - timedelta(days=40)


class Victim:
    """bob's account, whose old mail was in a snapshot 40 days ago, and in a copy of it; new mail has come since."""

    def __init__(self, place: Place, server: ScriptedPop3, copy: Path) -> None:
        self.place, self.server, self.copy = place, server, copy
        server.scripted.mail = [(b"old-%d" % number, raw) for number, raw in enumerate(OLD)]
        place.create()
        settings = Pop3Settings(server.host, USER, PASSWORD, port=server.port, tls="none")
        state = State(place.state)
        with Repository(place.objects, unlock(place.objects, PASSPHRASE)) as repository:
            pull(repository, Pop3Source(settings), "bob", state=state, clock=lambda: AGO)
        state.close()
        shutil.copytree(place.repository, copy, ignore=shutil.ignore_patterns(".tmp"))
        server.scripted.mail += [(b"new-%d" % number, raw) for number, raw in enumerate(NEW)]
        self.had = dict(server.scripted.mail)
        self.configure(delete_after="30d")
        server.commands.clear()

    def configure(self, **more: object) -> None:
        access = {"host": self.server.host, "port": self.server.port, "tls": "none"}
        section = {**access, "username": USER, "password": PASSWORD, "timeout": 5, **more}
        self.place.configure({"bob": section}, kind="pop3", copies=[self.copy])

    def kept(self) -> Counter[str]:
        """All messages of the newest snapshot, checkpoints too."""
        with Repository(self.place.objects, unlock(self.place.objects, PASSPHRASE)) as repository:
            refs = repository.refs("bob")
            found = contents(repository, repository.snapshot(refs[-1]))[b"INBOX"] if refs else {}
            return hashes(raw for raw, *_ in found.values())

    def gone(self) -> list[bytes]:
        """What the server no longer has."""
        there = {name for name, _ in self.server.scripted.mail}
        return [raw for name, raw in self.had.items() if name not in there]

    def nothing_is_lost(self) -> None:
        assert hashes(self.gone()) <= self.kept()

    def next_run_completes(self) -> None:
        self.server.scripted.on.clear()
        self.server.scripted.before = lambda _line: None
        result = self.place.run("backup")
        assert result.code == 0, result.err
        assert self.kept() == hashes(self.had.values())
        self.nothing_is_lost()

    def killed(self, moment: bytes, times: int = 1) -> None:
        """Run a backup that is killed when this command has come to the server for so manyth time."""
        started, seen = threading.Event(), 0

        def before(line: bytes) -> None:
            nonlocal seen
            seen += line == moment
            if line == moment and seen == times:
                started.wait(SECONDS)
                os.kill(process.pid, signal.SIGKILL)
                process.wait(SECONDS)

        self.server.scripted.before = before
        process = self.place.start("backup")
        started.set()
        assert self.place.end(process).code == -signal.SIGKILL
        self.server.settle()  # what the server was told, it does


@pytest.fixture
def server() -> Iterator[ScriptedPop3]:
    with ScriptedPop3(Scripted()) as server:
        yield server


@pytest.fixture
def bob(place: Place, server: ScriptedPop3, tmp_path: Path) -> Victim:
    return Victim(place, server, tmp_path / "copy")


def test_without_a_failure_the_old_mail_goes_and_all_mail_is_kept(bob: Victim) -> None:
    bob.next_run_completes()
    assert sorted(bob.gone()) == sorted(OLD)


# The session that deletes comes first, and ends with the first QUIT; the one that reads ends with the second.
MOMENTS = [
    (b"LIST", 1), (b"RETR 5", 1), (b"DELE 1", 1), (b"DELE 12", 1), (b"QUIT", 1), (b"LIST", 2), (b"RETR 9", 2),
    (b"QUIT", 2),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "times"), MOMENTS)
def test_killed_at_any_moment(bob: Victim, moment: bytes, times: int) -> None:
    bob.killed(moment, times)

    bob.nothing_is_lost()
    # Only QUIT deletes (RFC 1939, 6), and only it has come in the second half of the moments.
    assert sorted(bob.gone()) == (sorted(OLD) if (moment, times) in MOMENTS[4:] else [])
    bob.next_run_completes()
    assert sorted(bob.gone()) == sorted(OLD)


@pytest.mark.parametrize(("moment", "times"), [(b"RETR 20", 1), (b"QUIT", 1)])
def test_killed_where_nothing_is_to_be_deleted(bob: Victim, moment: bytes, times: int) -> None:
    bob.configure()
    bob.killed(moment, times)

    assert bob.server.count(b"DELE") == 0
    assert bob.gone() == []
    bob.next_run_completes()
    assert bob.server.count(b"DELE") == 0


@pytest.mark.parametrize("moment", [b"RETR 14", b"RETR 24", b"QUIT"])
def test_killed_where_the_server_removes_what_was_read(bob: Victim, moment: bytes) -> None:
    bob.configure()
    bob.server.scripted.forgets = True
    bob.killed(moment)

    bob.nothing_is_lost()
    assert sorted(bob.gone()) == (sorted(NEW) if moment == b"QUIT" else [])
    bob.next_run_completes()


CUTS: dict[str, dict[bytes, list[bytes | None]]] = {
    "among the messages that are compared": {b"RETR 7": [None]},
    "at a mark": {b"DELE 4": [None]},
    "at the end": {b"QUIT": [None]},
    "at a new message": {b"RETR 20": [None]},
}


@pytest.mark.parametrize("where", CUTS)
def test_a_connection_that_is_cut(bob: Victim, where: str) -> None:
    bob.server.scripted.on = CUTS[where]
    bob.server.scripted.capabilities = ("TOP", "UIDL", "USER")  # without PIPELINING, so that the cut is where it says

    assert bob.place.run("backup").code == 0

    bob.nothing_is_lost()
    bob.next_run_completes()


def full(bob: Victim) -> None:
    """A backup that finds no room for the new mail."""
    bob.place.before = ("prlimit", f"--fsize={1_000_000}")
    bob.place.failed(1, "backup", saying=["bob: ", str(bob.place.repository), "disk is full", "free some space"])
    bob.place.before = ()


def test_a_full_disk(bob: Victim) -> None:
    full(bob)

    assert sorted(bob.gone()) == sorted(OLD)  # these were safe before
    bob.nothing_is_lost()
    bob.next_run_completes()


def test_a_full_disk_where_nothing_is_to_be_deleted(bob: Victim) -> None:
    bob.configure()
    full(bob)

    assert bob.server.count(b"DELE") == bob.server.count(b"QUIT") == 0
    bob.next_run_completes()
    assert bob.gone() == []


def _lost(folder: Path) -> None:
    for pack in (folder / "packs").rglob("*"):
        if pack.is_file():
            pack.unlink()


def _altered(folder: Path) -> None:
    for pack in (folder / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("harm", [_lost, _altered])
@pytest.mark.parametrize("where", ["repository", "copy"])
def test_a_full_disk_where_what_was_safe_is_safe_no_more(
    bob: Victim, where: str, harm: Callable[[Path], None]
) -> None:
    harm(bob.place.repository if where == "repository" else bob.copy)
    full(bob)

    assert bob.server.count(b"DELE") == 0
    assert bob.gone() == []
