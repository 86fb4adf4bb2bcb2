"""A full disk, for the repository and for the state: one line, nothing broken, and once there is room the next run
completes and everything comes back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Place, hashes, imap, mail_of
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise

LARGE = 6


def attached(number: int) -> bytes:
    return message(f"With a file {number}", attachments=[Attachment("a.bin", noise(number, 400_000))])


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path, kib: int) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "tmpfs", folder], check=True)

    def enlarge(self, kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", self.folder], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", self.folder], check=True)


def _may_mount(tmp: Path) -> bool:
    if os.geteuid() != 0:
        return False
    probe = tmp / "probe"
    probe.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", probe], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", probe], check=True)
    return True


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """1 MiB, which the test may enlarge; only root can have it."""
    if not _may_mount(tmp_path):
        pytest.skip("only root may mount a small file system; the limit on the size of a file is tried instead")
    made = Disk(tmp_path / "disk", 1024)
    yield made
    made.remove()


@pytest.fixture
def filled(place: Place, account: Account) -> Account:
    """An account with more mail than the small disk holds."""
    account.append_many("INBOX", [message(f"Message {number}", size=2_000) for number in range(100)])
    account.create("Files")
    account.append_many("Files", [attached(number) for number in range(LARGE)])
    place.configure({"alice": imap(account)})
    return account


def test_a_full_disk_of_the_repository(place: Place, filled: Account, disk: Disk) -> None:
    place.repository = disk.folder / "repository"
    place.configure({"alice": imap(filled)})
    place.create()

    place.failed(1, "backup", saying=["alice: ", str(place.repository), "disk is full", "free some space"])

    before = {name: place.objects.get(name) for name in place.names("")}
    disk.enlarge(16_384)
    place.done("backup")
    assert {name: place.objects.get(name) for name in before} == before
    assert place.restored("alice@latest") == mail_of(filled)


def test_a_disk_that_is_full_when_the_next_backup_comes_leaves_the_last_one_as_it_is(
    place: Place, account: Account, disk: Disk
) -> None:
    place.repository = disk.folder / "repository"
    account.append_many("INBOX", [message(f"Message {number}", size=2_000) for number in range(100)])
    then = mail_of(account)
    place.configure({"alice": imap(account)})
    place.create()
    place.done("backup")
    (first,) = place.snapshots()
    account.append_many("INBOX", [attached(number) for number in range(LARGE)])

    place.failed(1, "backup", saying=["alice: ", "disk is full", "free some space"])

    assert [each["id"] for each in place.snapshots() if each["complete"]] == [first["id"]]
    assert place.restored(str(first["id"])) == then
    disk.enlarge(16_384)
    place.done("backup")
    assert place.restored("alice@latest") == mail_of(account)


def test_a_file_that_may_not_grow_is_a_full_disk_too(place: Place, filled: Account) -> None:
    """As with quotas and limits (EFBIG): the way to a full disk that needs no privilege."""
    place.create()
    place.before = ("prlimit", f"--fsize={1_000_000}")

    place.failed(1, "backup", saying=["alice: ", str(place.repository), "disk is full", "free some space"])

    place.before = ()
    place.done("backup")
    assert place.restored("alice@latest") == mail_of(filled)


def test_a_full_disk_of_the_state(place: Place, filled: Account, disk: Disk) -> None:
    place.state = disk.folder / "state"
    place.configure({"alice": imap(filled)})
    place.create()
    (disk.folder / "ballast").write_bytes(bytes(disk_room(disk.folder) - 4096))

    place.failed(1, "backup", saying=[str(place.state), "no space for the state", "free some space"])

    (disk.folder / "ballast").unlink()
    disk.enlarge(4_096)  # a megabyte is little for the state even so
    place.done("backup")
    assert place.restored("alice@latest") == mail_of(filled)


@pytest.mark.parametrize("left_kib", [64, 128, 192, 608, 640, 704])
def test_a_disk_of_the_state_that_becomes_full_during_the_run(
    place: Place, filled: Account, disk: Disk, left_kib: int
) -> None:
    place.state = disk.folder / "state"
    place.configure({"alice": imap(filled)})
    place.create()
    filled.append_many("INBOX", [message(f"Short {number}") for number in range(1_500)])
    disk.enlarge(4096)
    (disk.folder / "ballast").write_bytes(bytes(disk_room(disk.folder) - left_kib * 1024))

    place.failed(1, "backup", saying=[str(place.state), "no space for the state", "free some space"])

    (disk.folder / "ballast").unlink()
    place.done("backup")
    assert place.restored("alice@latest") == mail_of(filled)


def disk_room(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def test_a_full_disk_of_a_restore(place: Place, filled: Account, disk: Disk) -> None:
    place.create()
    place.done("backup")

    saying = [str(disk.folder), "no room", "free some space"]
    place.failed(1, "restore", "alice@latest", f"maildir:{disk.folder / 'mail'}", saying=saying)

    disk.enlarge(16_384)
    place.done("restore", "alice@latest", f"maildir:{disk.folder / 'mail'}")
    files = [path for path in (disk.folder / "mail").rglob("*") if path.parent.name in ("cur", "new")]
    assert hashes_of(files) == mail_of(filled)


def hashes_of(files: list[Path]) -> object:
    return hashes(path.read_bytes() for path in files)
