"""Making many files durable at once.

Durable is what a power failure does not undo. fsync for each file makes a file system commit its journal again and
again: 30,000 small files took 11 s on ext4, and 1.2 s with one syncfs for each 1,024 of them. So where that can be
relied upon, files are written and closed, and then the file system is told once to write all it has; whatever other
programs left to be written there is written with it. Elsewhere each file gets its fsync, on several threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from backupd.targets.folders import Folder, naming_errors

_RELIABLE = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
"""File systems whose syncfs writes everything to the disk. Those of a network, or of a program of the user (FUSE), may
leave it with somebody who has not."""

_KERNEL = (5, 12)
"""Linux from which on syncfs tells of a disk that failed (5.8), also through an overlay."""

_TOGETHER = 2048
"""Files that are made durable at once by syncfs."""

_OPEN = 100
"""Files of a batch that are kept open until their fsync. There are two batches; some systems allow a process 256."""

_THREADS = 4
"""Together, the file system's journal commits once for many of them: a third faster than one by one."""


class Durability:
    """Makes files durable on the file systems that a target writes to; their names only when told to `finish`."""

    def __init__(self, root: Path) -> None:
        """root: the folder below which all files are."""
        self._root = root
        self._systems: dict[int, _System] = {}
        self._above: set[Path] = set()

    def most(self, folder: Folder) -> int:
        """How many files in this folder should be made durable at once."""
        return _TOGETHER if self._system(folder).together else _OPEN

    def begin(self, folder: Folder) -> Batch:
        """For files that are about to be written in this folder."""
        return Batch(self._system(folder))

    def replace(self, folder: Folder, name: str, content: bytes) -> None:
        """Put a small file in place, whole, durable at the latest when all is. Only for one that can be made again."""
        if folder.replace(name, content, durable=not self._system(folder).together):
            self.named(folder)

    def named(self, folder: Folder) -> None:
        """Files were given names in this folder."""
        system = self._system(folder)
        if system.together:
            system.unfinished = True
        else:
            folder.sync()
            self._above.update(each for each in Path(folder.path).parents if each.is_relative_to(self._root.parent))

    def finish(self) -> None:
        """Make everything durable, the names too. Raises StorageError."""
        for system in self._systems.values():
            if system.unfinished:
                system.sync()
                system.unfinished = False
        while self._above:
            with naming_errors(str(self._root)):
                _sync_folder(self._above.pop())

    def close(self) -> None:
        """Let go of the file systems, and wait for what is under way there."""
        for system in self._systems.values():
            system.close()
        self._systems.clear()

    def _system(self, folder: Folder) -> _System:
        with naming_errors(folder.path):
            device = os.fstat(folder.descriptor).st_dev
            system = self._systems.get(device)
            if system is None:
                # Opened before anything is written: syncfs tells of failures since.
                opened = Folder(os.dup(folder.descriptor), folder.path)
                system = self._systems[device] = _System(opened, together=is_reliable(folder.descriptor))
        return system


class _System:
    """One file system. unfinished: whether there are names that may not be durable."""

    def __init__(self, folder: Folder, *, together: bool) -> None:
        self.together, self.unfinished = together, False
        self.background = ThreadPoolExecutor(1 if together else _THREADS, thread_name_prefix="durable")
        self._folder = folder

    def sync(self) -> None:
        with naming_errors(self._folder.path):
            syncfs(self._folder.descriptor)

    def close(self) -> None:
        self.background.shutdown()
        self._folder.close()


class Batch:
    """Files that are made durable together."""

    def __init__(self, system: _System) -> None:
        self._system = system
        self._open: list[int] = []
        self._under_way: list[Future[None]] = []

    def take(self, descriptor: int) -> None:
        """A file that is written; the descriptor belongs to the batch from now on."""
        if self._system.together:
            os.close(descriptor)
        else:
            self._open.append(descriptor)

    def start(self) -> None:
        """Make all files taken durable, on other threads."""
        submit = self._system.background.submit
        if self._system.together:
            self._under_way = [submit(self._system.sync)]
        else:
            self._under_way = [submit(_sync_each, self._open[start::_THREADS]) for start in range(_THREADS)]

    def wait(self) -> None:
        """Until all are durable. Raises StorageError."""
        for each in self._under_way:
            each.result()

    def close(self) -> None:
        """Let go of the files."""
        for each in self._under_way:
            with contextlib.suppress(BaseException):  # `wait` raises it, whoever still wants to know
                each.result()
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_each(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def is_reliable(descriptor: int) -> bool:
    """Whether syncfs makes durable what is written below this folder, and tells if it could not."""
    return _syncfs is not None and _kernel() >= _KERNEL and _file_system(descriptor) in _RELIABLE


def syncfs(descriptor: int) -> None:
    """Write all that waits to be written to the file system of this folder. Raises OSError."""
    if _syncfs is None:
        raise NotImplementedError("this system has no syncfs")
    if _syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release()) if platform.system() == "Linux" else None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _file_system(descriptor: int) -> str:
    """The kind of file system, by the mount that a folder was opened through; empty if that cannot be told."""
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    mount = re.search(r"^mnt_id:\s*(\d+)$", facts, re.MULTILINE)
    kind = re.search(rf"^{mount[1]} .* - (\S+) ", mounts, re.MULTILINE) if mount else None
    return kind[1] if kind else ""
