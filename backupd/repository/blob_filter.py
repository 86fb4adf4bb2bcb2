"""Which blobs are certainly not in the index: a Bloom filter in a file beside it, mapped into memory.

Nearly every blob of a backup is a new one, and asking SQLite about each costs more than all else that is done with a
small message: 2 microseconds alone, 20 where other threads wait for the interpreter, which SQLite lets go each time.
The filter answers in one. It only ever saves a question: what it may have is asked for, and a blob that it wrongly
has not (its file was lost in a power cut) is stored once more, and found ever after.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from struct import Struct

SMALLEST = 1 << 19
"""Octets of the smallest filter, for 262,144 blobs. All sizes are powers of 2."""

_OCTETS_EACH = 2
"""Of a full filter: 1 in 70 unknown blobs is asked for in vain."""

_SAMPLE = 1 << 16
_FULL = 0.117
"""The share of bits that are set when every blob has two octets: 1 - exp(-2 / 16)."""

_words = Struct("<II").unpack_from


class BlobFilter:
    """A set of blob ids that may seem to have others too. Ids are hashes, so their own octets serve as hash values.

    Safe to ask from several threads, and to add to from one thread of one process at a time.
    """

    def __init__(self, path: Path | None) -> None:
        """path: its file, shared by several processes; None keeps it in memory. Of no use until `open` or `make`."""
        self._path = path
        self._file = 0  # inode, by which we see that another process has made a larger one
        self._bits: mmap.mmap | bytearray = bytearray()

    def __contains__(self, blob: bytes) -> bool:
        bits, last = self._bits, len(self._bits) - 1
        # Not all(): this is asked for every blob, mostly ends at the first word, and a generator costs twice that.
        for word in _words(blob):  # noqa: SIM110
            if not bits[word >> 3 & last] >> (word & 7) & 1:
                return False
        return True

    @property
    def is_full(self) -> bool:
        """Whether a larger one should be made."""
        return int.from_bytes(self._bits[:_SAMPLE], "big").bit_count() > _FULL * 8 * _SAMPLE

    @property
    def octets(self) -> int:
        """Its size."""
        return len(self._bits)

    def open(self) -> bool:
        """Use the file that is there now; False if there is none that can be used. Raises OSError."""
        if self._path is None:
            return bool(self._bits)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(descriptor)
            if status.st_ino != self._file:
                if status.st_size < SMALLEST or status.st_size & (status.st_size - 1):
                    return False
                self._bits, self._file = mmap.mmap(descriptor, status.st_size), status.st_ino
        finally:
            os.close(descriptor)
        return True

    def add(self, blobs: Iterable[bytes]) -> None:
        """Have these from now on."""
        _set(self._bits, blobs)

    def make(self, blobs: Iterable[bytes], count: int) -> None:
        """Have these and no others, in a new file with room for at least as many again. Raises OSError."""
        bits = bytearray(max(SMALLEST, 1 << (2 * _OCTETS_EACH * count).bit_length()))
        _set(bits, blobs)
        if self._path is None:
            self._bits = bits
            return
        # Beside, then renamed: others go on with the old file until they look again.
        descriptor, temporary = tempfile.mkstemp(prefix=f"{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(bits)
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink()
            raise
        self.open()


def _set(bits: mmap.mmap | bytearray, blobs: Iterable[bytes]) -> None:
    last = len(bits) - 1
    for blob in blobs:
        for word in _words(blob):
            bits[word >> 3 & last] |= 1 << (word & 7)
