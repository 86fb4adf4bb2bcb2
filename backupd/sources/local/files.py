"""Folders and files of a local store, opened so that nothing in them can mislead or hold us.

A store may lie where others write. So each folder below its root is opened from its parent's descriptor and no symbolic
link is followed; and only regular files are read: a pipe, socket or device somebody put there is passed over unopened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

Parts = tuple[str, ...]
"""Names of folders below the root of a store, the outermost first."""

CHUNK_OCTETS = 1 << 20

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINK = "a symbolic link, which is not followed"
_SMALL_FILE = 16 << 20


def reason(error: OSError) -> str:
    """What is wrong, for people."""
    return _LINK if error.errno == errno.ELOOP else error.strerror or str(error)


def oddity(entry: os.DirEntry[str]) -> str:
    """What an entry of a folder is if it is no regular file, for people; empty if it is one."""
    try:
        if entry.is_file(follow_symlinks=False):
            return ""
        if entry.is_symlink():
            return _LINK
        if entry.is_dir(follow_symlinks=False):
            return "a folder where a message was expected"
    except OSError as error:
        return reason(error)
    return "a pipe, socket or device, which is not read"


def shown(name: str) -> str:
    """A file's name for people: what is not UTF-8 in it stays visible."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def moment(seconds: float) -> datetime | None:
    """A file's time; None where no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class OpenFile:
    """A regular file, open for reading by position. It closes when nobody holds it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        self.size, self.modified = status.st_size, status.st_mtime

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()

    @property
    def has_grown(self) -> bool:
        """Whether there is more in it than when it was opened. Raises OSError."""
        return os.fstat(self.descriptor).st_size > self.size

    def read(self, octets: int, start: int = 0) -> bytes:
        """So many octets from there, fewer at the end of the file."""
        return os.pread(self.descriptor, octets, start)

    def chunks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The octets from start up to end (or the end there was when the file was opened)."""
        end = self.size if end is None else min(end, self.size)
        while start < end:
            chunk = os.pread(self.descriptor, min(CHUNK_OCTETS, end - start), start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk


class Folder:
    """An open folder. path is for messages only."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor, self.path = descriptor, path

    @classmethod
    def root(cls, path: Path) -> Folder:
        """The store's own folder, which may be reached through links. Raises OSError."""
        return cls(os.open(path, _FOLDER), str(path))

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

    def child(self, name: str) -> Folder:
        """A folder in this one, never through a link. Raises OSError."""
        return Folder(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor), f"{self.path}/{name}")

    def descend(self, parts: Parts) -> Folder:
        """A folder below this one, level by level; a new descriptor even for no parts at all. Raises OSError."""
        folder = Folder(os.dup(self.descriptor), self.path)
        for name in parts:
            with folder:
                below = folder.child(name)
            folder = below
        return folder

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """What is in it, in no order; names that are not UTF-8 hold surrogates. Raises OSError."""
        with os.scandir(self.descriptor) as entries:
            yield from entries

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name, and not a link to one."""
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def open(self, name: str) -> OpenFile:
        """A regular file in it. Raises OSError."""
        descriptor = os.open(name, _FILE, dir_fd=self.descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file")
        return OpenFile(descriptor)

    def read(self, name: str) -> bytes | None:
        """The whole of a small file; None if there is none of this name. Raises OSError, also where it is too large."""
        try:
            file = self.open(name)
        except FileNotFoundError:
            return None
        with file:
            if file.size > _SMALL_FILE:
                raise OSError(errno.EFBIG, "much larger than such files are")
            return b"".join(file.chunks())
