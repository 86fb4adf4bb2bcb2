"""Objects as files below a directory.

A new object is written to a temporary file, synced, and linked to its name, which fails if the name is taken; then
the folder is synced. So an object is there whole or not at all, whatever happens in between, and no object is ever
overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from backupd.errors import (
    Damaged,
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from backupd.storage.base import NAME, Buffer, ObjectInfo

_TEMPORARY = ".tmp"
"""The folder of unfinished writes; its name is none that an object may have."""

_ABANDONED_SECONDS = 24 * 3600.0
_COMPARE_OCTETS = 1 << 20
_MOST_BUFFERS = 512  # of one writev; the least that systems allow is 16, Linux allows 1,024

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.EAGAIN}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStorage:
    """A directory. It is made when the first object is put."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: set[Path] = set()
        self._tidied = False

    @property
    def url(self) -> str:
        """The directory's path."""
        return str(self._root)

    @property
    def requests(self) -> None:
        """A disk charges for nothing."""
        return None

    @property
    def versions(self) -> None:
        """What is removed is gone."""
        return None

    @property
    def locks(self) -> None:
        """Whoever may write to the directory may remove what is in it."""
        return None

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.put."""
        path = self._path(name)
        try:
            if not path.exists():
                self._make_folder(path.parent)
                if self._publish(path, data):
                    return
            same = self._is_same(path, data)
            if same:
                # Whoever stored it may have been killed before its name was durable, or may not be that far yet.
                _sync_folder(path.parent)
        except FileNotFoundError as error:
            raise StorageUnavailable(
                "the repository's directory has gone", subject=self.url, remedy="check whether its disk is mounted"
            ) from error
        except OSError as error:
            raise self._error(error, name) from error
        if not same:
            raise ObjectExists("there is another object of this name", subject=f"{self.url}: {name}")

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.replace."""
        path = self._path(name)
        try:
            self._make_folder(path.parent)
            with self._written(data) as temporary:
                temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise self._error(error, name) from error

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                wanted = os.fstat(descriptor).st_size - offset if length is None else length
                data = _read(descriptor, wanted, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._error(error, name) from error
        if len(data) != wanted:
            raise Damaged("the object is shorter than it should be", subject=name)
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See Storage.list."""
        folder = prefix.rpartition("/")[0]
        try:
            for info in self._walk(self._root / folder, f"{folder}/" if folder else ""):
                if info.name.startswith(prefix) and NAME.match(info.name):
                    yield info
        except OSError as error:
            raise self._error(error, prefix) from error

    def size(self, name: str) -> int:
        """See Storage.size."""
        try:
            return os.stat(self._path(name)).st_size  # noqa: PTH116
        except OSError as error:
            raise self._error(error, name) from error

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_folder(path.parent)
        except OSError as error:
            raise self._error(error, name) from error

    def clean(self, now: float | None = None) -> int:
        """Remove unfinished writes older than a day, which only a killed process leaves; how many. now: Unix time."""
        removed = 0
        before = (time.time() if now is None else now) - _ABANDONED_SECONDS
        try:
            for entry in _entries(self._root / _TEMPORARY):
                try:
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink()
                        removed += 1
                except FileNotFoundError:
                    continue  # it was another process's, which has finished
        except OSError as error:
            raise self._error(error, _TEMPORARY) from error
        return removed

    def free_octets(self) -> int:
        """Room left on the file system the directory is on, or would be."""
        folder = self._root
        try:
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            facts = os.statvfs(folder)
        except OSError as error:
            raise self._error(error, "") from error
        return facts.f_bavail * facts.f_frsize

    def _path(self, name: str) -> Path:
        if not NAME.match(name):
            raise StorageError("not a name for an object", subject=repr(name))
        return self._root / name

    def _publish(self, path: Path, data: Sequence[Buffer]) -> bool:
        """Write a file and give it its name; False when the name has been taken in the meantime."""
        with self._written(data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # A file system without links: rename would overwrite, but the bytes of a name are always the same.
                if path.exists():
                    return False
                temporary.rename(path)
            _sync_folder(path.parent)
            return True

    @contextlib.contextmanager
    def _written(self, data: Sequence[Buffer]) -> Iterator[Path]:
        """A file of no name yet, synced; what has not got one in the end is removed."""
        temporary = self._root / _TEMPORARY / secrets.token_hex(16)
        self._make_folder(temporary.parent)
        self._tidy()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                _write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Before the first write, remove what killed processes left. That it fails is no reason not to write."""
        if not self._tidied:
            self._tidied = True
            with contextlib.suppress(StorageError):
                self.clean()

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durable: it, and the entry in the folder above it, for each that is new."""
        if folder in self._synced:
            return
        if not folder.is_dir():
            if folder != self._root:
                self._make_folder(folder.parent)
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
            else:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_folder(folder.parent)
        self._synced.add(folder)

    def _is_same(self, path: Path, data: Sequence[Buffer]) -> bool:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != sum(len(each) for each in data):
                return False
            for each in data:
                view = memoryview(each)
                for at in range(0, len(view), _COMPARE_OCTETS):
                    part = view[at : at + _COMPARE_OCTETS]
                    if file.read(len(part)) != part:
                        return False
        return True

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        """Files below a folder by name. A folder sorts as its name and a slash, as its files' names do."""
        entries = []
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                entries.append((f"{prefix}{entry.name}/", entry))
            elif entry.is_file(follow_symlinks=False):
                entries.append((f"{prefix}{entry.name}", entry))
        for name, entry in sorted(entries, key=lambda each: each[0]):
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), name)
            else:
                try:
                    facts = entry.stat(follow_symlinks=False)
                    # An object is as old as its name, which a file may get long after it was written: a machine that
                    # stood still in between must not make anything seem older than others can have known of it.
                    yield ObjectInfo(name, facts.st_size, max(facts.st_mtime, facts.st_ctime))
                except FileNotFoundError:
                    continue  # deleted while we looked

    def _error(self, error: OSError, name: str) -> StorageError:
        subject = f"{self.url}: {name}" if name else self.url
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return ObjectMissing("there is no such object", subject=subject)
        what = error.strerror or str(error)
        if error.errno in _FULL:
            return StorageFull(
                f"the repository's disk is full: {what}", subject=subject, remedy="free some space, and run it again"
            )
        if error.errno in _DENIED:
            return StorageDenied(
                f"no permission: {what}", subject=subject, remedy="check who owns the directory, and who runs backupd"
            )
        if error.errno in _PASSING:
            return StorageUnavailable(
                f"the repository's disk fails: {what}", subject=subject, remedy="check the disk and its mount"
            )
        return StorageError(what, subject=subject, remedy="check the directory and its file system")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _write(descriptor: int, data: Sequence[Buffer]) -> None:
    views = iter([memoryview(each) for each in data if len(each)])
    while some := list(islice(views, _MOST_BUFFERS)):
        while some:
            written = os.writev(descriptor, some)
            while some and written >= len(some[0]):
                written -= len(some.pop(0))
            if written:
                some[0] = some[0][written:]


def _read(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, max(0, length), offset)
    if len(data) >= length or not data:
        return data
    pieces, have = [data], len(data)
    while have < length and (more := os.pread(descriptor, length - have, offset + have)):
        pieces.append(more)
        have += len(more)
    return b"".join(pieces)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
