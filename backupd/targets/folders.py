"""Open folders, in which files are found and made by name, never through a symbolic link.

Whoever can write to a restore's folder could put a symbolic link in the place of a mailbox; a restore that follows it
would write mail anywhere. So each folder below the root is opened from its parent's descriptor with O_NOFOLLOW, and
stays open while it is used. Every error of the operating system becomes a StorageError that names the place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from backupd.errors import Busy, StorageDenied, StorageError, StorageFull

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}
PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet."""


class naming_errors:
    """Turn an OSError within the block into the StorageError it stands for. May be used again.

    A class in place of a generator costs a third, and each message is written within six of them.
    """

    __slots__ = ("_subject",)

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise _meaning(error, self._subject) from error


def _meaning(error: OSError, subject: str) -> StorageError:
    what = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFull(
            f"no room: {what}", subject=subject, remedy="free some space; the same command goes on from here"
        )
    if error.errno in _DENIED:
        return StorageDenied(f"not allowed: {what}", subject=subject, remedy="check owner and permissions")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return StorageError(
            "not a folder, or a symbolic link, which is not followed", subject=subject, remedy="move it away"
        )
    return StorageError(f"cannot be used: {what}", subject=subject)


class Folder:
    """One open folder. `path` is for messages only: nothing is opened by it but the root."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    @classmethod
    def root(cls, path: Path, *, create: bool) -> Folder | None:
        """The target's own folder, which may be reached through links; None if it is not there."""
        with naming_errors(str(path)):
            if create:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                return cls(os.open(path, _FOLDER), str(path))
            except FileNotFoundError:
                return None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def lock(self) -> None:
        """Keep other restores out of the folder until it is closed. Raises Busy."""
        with naming_errors(self.path):
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("another restore writes to this folder", subject=self.path, remedy="let it finish") from None

    def child(self, name: str, *, create: bool) -> Folder | None:
        """A folder in this one; None if it is not there."""
        path = f"{self.path}/{name}"
        with naming_errors(path):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self.descriptor)
            try:
                return Folder(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor), path)
            except FileNotFoundError:
                return None

    def descend(self, parts: tuple[str, ...], *, create: bool) -> Folder | None:
        """A folder below this one, level by level; a new descriptor even for no parts at all."""
        folder: Folder | None
        with naming_errors(self.path):
            folder = Folder(os.dup(self.descriptor), self.path)
        for name in parts:
            parent = folder
            with parent:
                folder = parent.child(name, create=create)
            if folder is None:
                return None
        return folder

    def names(self) -> list[str]:
        """All names in it, in no order. Names that are not UTF-8 hold surrogates."""
        with naming_errors(self.path):
            return os.listdir(self.descriptor)  # noqa: PTH208 a path could lead elsewhere by now

    def has(self, name: str) -> bool:
        """Whether there is anything of this name."""
        with naming_errors(f"{self.path}/{name}"):
            try:
                os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return True

    def open(self, name: str) -> BinaryIO | None:
        """A regular file for reading; None if there is no such file, or it is a link or something else."""
        with naming_errors(f"{self.path}/{name}"):
            try:
                # O_NONBLOCK: a pipe somebody put there must not hold us.
                descriptor = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.descriptor
                )
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                    return None
                raise
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return None
            return os.fdopen(descriptor, "rb")

    def create(self, name: str, flags: int = os.O_WRONLY | os.O_EXCL) -> int:
        """A descriptor of a new file (or, without O_EXCL in flags, perhaps of an old one)."""
        with naming_errors(f"{self.path}/{name}"):
            return os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor)

    def read(self, name: str) -> bytes | None:
        """The whole of a small file; None if it is not there."""
        file = self.open(name)
        if file is None:
            return None
        with file, naming_errors(f"{self.path}/{name}"):
            return file.read()

    def replace(self, name: str, content: bytes, *, durable: bool = True) -> bool:
        """Put a file in place at once, whole and, unless told otherwise, durable; False if it is so already."""
        if self.read(name) == content:
            return False
        partial = f".{name}{PARTIAL}"
        self.remove(partial)
        descriptor = self.create(partial)
        with naming_errors(f"{self.path}/{name}"):
            try:
                write_all(descriptor, content)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(partial, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            if durable:
                os.fsync(self.descriptor)
        return True

    def append(self, name: str, content: bytes) -> int:
        """Add to a file; its descriptor. What a killed run left of a last line gets an end first."""
        descriptor = self.create(name, os.O_RDWR | os.O_APPEND)
        try:
            with naming_errors(f"{self.path}/{name}"):
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    os.ftruncate(descriptor, last_line_end(descriptor, size))
                write_all(descriptor, content)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def publish(self, name: str, into: Folder, final: str) -> None:
        """Move a finished file to its name in another folder, never over another file."""
        with naming_errors(f"{into.path}/{final}"):
            try:
                os.link(name, final, src_dir_fd=self.descriptor, dst_dir_fd=into.descriptor, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if into.has(final):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                os.rename(name, final, src_dir_fd=self.descriptor, dst_dir_fd=into.descriptor)
                return
            os.unlink(name, dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with naming_errors(f"{self.path}/{name}"), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Make the names in it durable."""
        with naming_errors(self.path):
            os.fsync(self.descriptor)


def write_all(descriptor: int, content: bytes | bytearray) -> None:
    """Write all of it, however often the system takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def last_line_end(descriptor: int, size: int) -> int:
    """Octets up to the end of the last whole line of a file."""
    while size:
        start = max(0, size - 65536)
        found = os.pread(descriptor, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0
