"""Messages that a server keeps compressed: Dovecot's zlib plugin writes gzip, bzip2, xz and zstd files.

The name of such a file tells the size of the message in it (",S="), which proves that it was read rightly. A file that
has just this size itself is not compressed, whatever it begins with.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import zstandard

from backupd.errors import Damaged
from backupd.sources.local.body import Chunks
from backupd.sources.local.files import CHUNK_OCTETS, OpenFile

LONGEST_MAGIC = 16

_ZSTD_PIECE = 1024
"""Octets; no more than 32 MiB come out of so few, whatever they are."""

BROKEN = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, gzip.BadGzipFile)


class _Positioned(io.RawIOBase):
    """A file with a position of its own, as the decompressors of the standard library want one."""

    def __init__(self, file: OpenFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._file.size)[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        octets = self._file.read(len(buffer), self._position)
        buffer[: len(octets)] = octets
        self._position += len(octets)
        return len(octets)


def _gzip(file: OpenFile) -> Iterator[bytes]:
    yield from _all(gzip.GzipFile(fileobj=cast("BinaryIO", _Positioned(file)), mode="rb"))


def _bzip2(file: OpenFile) -> Iterator[bytes]:
    yield from _all(bz2.BZ2File(cast("BinaryIO", _Positioned(file))))


def _xz(file: OpenFile) -> Iterator[bytes]:
    yield from _all(lzma.LZMAFile(cast("BinaryIO", _Positioned(file))))  # noqa: SIM115 _all closes it


def _all(stream: io.BufferedIOBase) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(CHUNK_OCTETS):
            yield chunk


def _zstd(file: OpenFile) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj()
    for chunk in file.chunks():
        for start in range(0, len(chunk), _ZSTD_PIECE):
            piece = chunk[start : start + _ZSTD_PIECE]
            while piece:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                if found := frame.decompress(piece):
                    yield found
                piece = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError("the end of the file is missing")


_KINDS: dict[bytes, Callable[[OpenFile], Iterator[bytes]]] = {
    b"\x1f\x8b\x08": _gzip,
    b"\xfd7zXZ\0": _xz,
    b"\x28\xb5\x2f\xfd": _zstd,
}
_BZIP2_BLOCK = b"1AY&SY"
_LZ4 = b"Dovecot-LZ4\x0d\x2a\x9b\xc5"


class Unreadable(Damaged):
    """The message is compressed in a way that is not read here, or the file is damaged."""


def decompressed(file: OpenFile, head: bytes, size: int | None) -> Chunks | None:
    """The message in a compressed file; None if the file is not compressed.

    Args:
        file: kept as long as the octets are asked for.
        head: its first octets.
        size: of the message, as the file's name tells it; None if it does not.

    Raises Unreadable; so do the octets when they are asked for.
    """
    if size == file.size:
        return None
    found = next((opened for magic, opened in _KINDS.items() if head.startswith(magic)), None)
    if head.startswith(b"BZh") and head[4:].startswith(_BZIP2_BLOCK):
        found = _bzip2
    if head.startswith(_LZ4):
        raise Unreadable("compressed by lz4, which is not read here; have Dovecot write it anew: doveadm sync")
    if found is None:
        return None
    chosen = found

    def chunks() -> Iterator[bytes]:
        octets = 0
        try:
            for chunk in chosen(file):
                octets += len(chunk)
                yield chunk
        except BROKEN as error:
            raise Unreadable(f"a compressed file that is damaged: {error}") from error
        if size is not None and octets != size:
            raise Unreadable(f"a compressed file that holds {octets} octets where its name tells {size}")

    return chunks
