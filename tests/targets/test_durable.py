"""What a restore to files promises about a power failure, whichever way files are made durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupd.errors import StorageError
from backupd.targets import durable
from backupd.targets.eml import EmlTarget
from backupd.targets.maildir import MaildirTarget
from tests.support.mail import message
from tests.support.restoring import fingerprint, mailbox, outgoing

WORK = mailbox(b"Work/2026")
Kind = type[EmlTarget] | type[MaildirTarget]


@pytest.fixture(params=["at once", "each file"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether files are made durable by one syncfs, or by one fsync each; each in turn, in batches of seven."""
    found = bool(request.param == "at once")
    monkeypatch.setattr(durable, "is_reliable", lambda descriptor: found)
    monkeypatch.setattr(durable, "_TOGETHER", 7)
    monkeypatch.setattr(durable, "_OPEN", 7)
    return found


@pytest.fixture(params=[EmlTarget, MaildirTarget])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each layout with one file a message."""
    found: Kind = request.param
    return found


class Disk:
    """What a power failure would leave: of each file its octets only if they were synced after they were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._dirty: set[int] = set()
        self._unnamed: set[int] = set()
        self.lost: list[str] = []
        self.on_sync: Callable[[], None] = lambda: None
        self._write, self._link, self._fsync = os.write, os.link, os.fsync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "link", self.link)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(durable, "syncfs", self.syncfs)

    @property
    def unnamed(self) -> int:
        """Folders with names that are not durable."""
        return len(self._unnamed)

    def write(self, descriptor: int, data: Any) -> int:
        self._dirty.add(os.fstat(descriptor).st_ino)
        return self._write(descriptor, data)

    def link(self, source: str, target: str, **where: Any) -> None:
        if os.stat(source, dir_fd=where["src_dir_fd"]).st_ino in self._dirty:
            self.lost.append(target)
        self._unnamed.add(os.fstat(where["dst_dir_fd"]).st_ino)
        self._link(source, target, **where)

    def fsync(self, descriptor: int) -> None:
        self.on_sync()
        self._fsync(descriptor)
        self._dirty.discard(os.fstat(descriptor).st_ino)
        self._unnamed.discard(os.fstat(descriptor).st_ino)

    def syncfs(self, descriptor: int) -> None:
        self.on_sync()
        self._dirty.clear()
        self._unnamed.clear()


def open_files() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


MAIL = [outgoing(message(f"m{uid}"), uid) for uid in range(1, 31)]


@pytest.mark.usefixtures("together")
def test_no_message_has_its_name_before_its_octets_are_durable(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    target = kind(tmp_path / "out", fingerprint)
    target.prepare(WORK)
    outcomes = list(target.write(WORK, MAIL))
    assert [each.result for each in outcomes] == ["written"] * len(MAIL)
    assert disk.lost == []
    target.close()
    assert disk.unnamed == 0


@pytest.mark.usefixtures("together")
def test_a_disk_that_fails_is_told_of_and_nothing_gets_its_name(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    target = kind(tmp_path / "out", fingerprint)
    target.prepare(WORK)

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.on_sync = fail
    with pytest.raises(StorageError, match="Input/output error"):
        list(target.write(WORK, MAIL))
    assert target.present(WORK).total() == 0
    disk.on_sync = lambda: None
    target.close()


def test_a_disk_that_fails_at_the_end_is_told_of(
    together: bool, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    target = kind(tmp_path / "out", fingerprint)
    target.prepare(WORK)
    list(target.write(WORK, MAIL))

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    disk.on_sync = fail
    with pytest.raises(StorageError, match="Input/output error"):
        target.close()


@pytest.mark.usefixtures("together")
def test_files_do_not_stay_open(kind: Kind, tmp_path: Path) -> None:
    before = open_files()
    most = 0
    target = kind(tmp_path / "out", fingerprint)
    target.prepare(WORK)
    for _ in target.write(WORK, MAIL):
        most = max(most, open_files() - before)
    target.close()
    assert most < 7 * 2 + 12
    assert open_files() == before


@pytest.mark.usefixtures("together")
def test_whoever_stops_early_leaves_whole_messages_and_no_open_file(kind: Kind, tmp_path: Path) -> None:
    before = open_files()
    target = kind(tmp_path / "out", fingerprint)
    target.prepare(WORK)
    writing = target.write(WORK, MAIL)
    next(writing)
    writing.close()  # type: ignore[attr-defined]
    target.close()
    again = kind(tmp_path / "out", fingerprint)
    there = again.present(WORK)
    assert 0 < there.total() < len(MAIL)
    again.close()
    assert open_files() == before


def test_the_file_systems_of_programs_and_networks_are_not_relied_upon(tmp_path: Path) -> None:
    folder = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not durable.is_reliable(folder)
    finally:
        os.close(folder)


def test_syncfs_is_asked_of_the_system(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    durable.syncfs(folder)
    os.close(folder)
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable.syncfs(folder)
