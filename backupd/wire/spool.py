"""Large messages on disk instead of in memory: an unlinked temporary file that goes when nobody holds it any more.

A literal may be as large as the server likes (RFC 3501, 4.3), and memory is bounded by configuration, so what is larger
than a few MiB goes to a file that has no name and therefore cannot be left behind by a crash.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from backupd.errors import StorageError, StorageFull

CHUNK_OCTETS = 1 << 20
"""How much is read at once by `SpooledBody.chunks`, far below the 16 MiB that `backupd.model.Body` allows."""


def _storage_error(error: OSError, folder: Path | None) -> StorageError:
    where = str(folder or tempfile.gettempdir())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            "no room for the temporary copy of a large message", subject=where, remedy="free some space there"
        )
    return StorageError(f"cannot keep a large message in a temporary file: {error.strerror}", subject=where)


class SpooledBody:
    """The bytes of one large message; a `backupd.model.Body`.

    Reading is by position, so several readers and threads do not disturb each other. The disk space is given back with
    `close` or when the last reference goes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    @property
    def size(self) -> int:
        """Octets."""
        return self._size

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"SpooledBody({self._size} octets)"

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, 1 MiB at a time. May be called again."""
        descriptor = self._file.fileno()
        for start in range(0, self._size, CHUNK_OCTETS):
            yield os.pread(descriptor, min(CHUNK_OCTETS, self._size - start), start)

    def cut(self, octets: int) -> SpooledBody:
        """The same without its last octets. This one is of no more use."""
        return SpooledBody(self._file, max(0, self._size - octets))

    @contextlib.contextmanager
    def buffer(self) -> Iterator[memoryview]:
        """All bytes as one read-only view of the file, mapped and not copied; valid within the block only."""
        if self._size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()

    def close(self) -> None:
        """Give the disk space back now."""
        self._file.close()


class Spool:
    """Takes the octets of one large message as they arrive.

    Raises StorageFull or StorageError when the folder cannot hold them.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._size = 0
        try:
            self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115 lives on
        except OSError as error:
            raise _storage_error(error, folder) from error

    def write(self, octets: memoryview) -> None:
        """Append; short writes are continued."""
        try:
            while octets:
                written = self._file.write(octets)
                self._size += written
                octets = octets[written:]
        except OSError as error:
            self._file.close()
            raise _storage_error(error, self._folder) from error

    def finish(self) -> SpooledBody:
        """What was written, as a body."""
        return SpooledBody(self._file, self._size)
