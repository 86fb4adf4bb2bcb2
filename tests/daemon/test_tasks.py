"""What each piece of maintenance does, and what the daemon hears of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd import config
from backupd.config.model import Config
from backupd.daemon.tasks import Tasks
from backupd.errors import BackupdError, Damaged, Interrupted
from backupd.operations.accounts import Accounts
from backupd.operations.backup import backup
from backupd.operations.opening import open_repository, open_repository_storage, open_state
from backupd.operations.state import State
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.support.config import write
from tests.support.mail import message, noise
from tests.support.simulated_account import SimulatedAccount

TEXT = """\
state_dir: state
repository: {url: repository, passphrase: a passphrase}
copies: [{url: one}, {url: two}]
retention: {keep_last: 1}
maintenance:
  audits: [{level: metadata}, {level: storage}]
accounts:
  alice:
    imap: {host: mail.example.com, username: alice, password: secret}
    objective: 1h
"""
ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass
class House:
    """A repository with two snapshots of one account, and the daemon's work on it."""

    folder: Path
    config: Config
    accounts: Accounts
    state: State
    now: datetime = NOW

    def do(self, job: str, stop: threading.Event | None = None) -> str:
        tasks = Tasks(self.config, self.accounts, self.state, lambda: self.now).all()
        return tasks[job][1](stop or threading.Event())

    def one(self, kind: str) -> Path:
        return max(
            (path for path in (self.folder / kind).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    loaded = config.load(write(tmp_path, TEXT))
    create(LocalStorage(tmp_path / "repository"), "a passphrase", argon2=Argon2(1, 8, 1))

    def opened() -> Repository:
        return open_repository(loaded, open_repository_storage(loaded))

    with closing(open_state(loaded)) as state, Accounts(opened, state) as accounts:
        alice = SimulatedAccount()
        alice.create(b"INBOX")
        repository = accounts.take()
        for number in range(2):
            alice.append(b"INBOX", message(f"Message {number}", noise(20_000, number)))
            when = NOW + timedelta(minutes=number)
            backup(repository, alice, "alice", state=state, clock=lambda when=when: when)  # type: ignore[misc]
        accounts.give_back(repository, failed=False)
        yield House(tmp_path, loaded, accounts, state)


def test_jobs_are_what_the_configuration_asks_for(house: House) -> None:
    jobs = Tasks(house.config, house.accounts, house.state, lambda: NOW).all()
    assert jobs.keys() == {"prune", "forget", "copy", "audit metadata", "audit storage"}
    assert jobs["audit storage"][0] == "every day"


def test_an_audit_that_finds_nothing_is_done(house: House) -> None:
    assert house.do("audit metadata") == "ok, 0 problems"
    assert house.do("audit storage") == "ok, 0 problems"


def test_an_audit_that_finds_damage_has_failed_and_says_what_to_do(house: House) -> None:
    pack = house.one("repository/packs")
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert house.do("audit metadata") == "ok, 0 problems", "it reads no pack"
    with pytest.raises(Damaged, match="backupd audit --level storage tells all of it, backupd repair mends"):
        house.do("audit storage")


def test_an_old_account_fails_no_audit_for_that_is_told_by_itself(house: House) -> None:
    house.now = NOW + timedelta(days=1)
    assert house.do("audit metadata").startswith("critical, ")


def test_forget_and_prune_keep_what_the_rules_keep(house: House) -> None:
    assert house.do("forget") == "1 snapshot forgotten, 1 kept"
    assert " removed" in house.do("prune")
    assert house.do("audit storage") == "ok, 0 problems"


def test_a_copy_that_cannot_be_made_keeps_no_other_from_being_made(house: House) -> None:
    (house.folder / "one").write_bytes(b"a file where a directory should be")
    with pytest.raises(BackupdError, match="one"):
        house.do("copy")
    there = {path.relative_to(house.folder / "two") for path in (house.folder / "two").rglob("*") if path.is_file()}
    assert len([path for path in there if path.parts[0] == "snapshots"]) == 2


@pytest.mark.parametrize("job", ["forget", "copy", "audit storage"])
def test_told_to_stop_a_job_ends_in_order(house: House, job: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        house.do(job, stop)
    assert house.do("audit metadata") == "ok, 0 problems"


def test_what_a_large_job_took_is_given_back_when_it_has_ended() -> None:
    """In a process of its own: what others have freed here would hide it."""
    program = (
        "import ctypes\n"
        "from pathlib import Path\n"
        "from backupd.daemon.maintenance import give_memory_back\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "before = resident()\n"
        "some = [bytes(1000) for _ in range(100_000)]\n"
        "kept = some[::1000]\n"
        "del some\n"
        "give_memory_back()\n"
        "print(resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) < 20_000_000
