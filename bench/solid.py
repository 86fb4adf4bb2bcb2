"""What the same mail takes as one compressed stream, in which nothing is encrypted, or found but from the start.

No backup can be this and still give one message back, so this is a limit to compare with, and not a contestant.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from bench.spool import read_spool

FAST, DENSE = "tar, zstd -3", "tar, zstd -19 --long=27"
SOLID = {
    FAST: zstandard.ZstdCompressionParameters.from_level(3),
    DENSE: zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True),
}


class _Counter(io.RawIOBase):
    """Takes octets, and only counts them."""

    octets = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        self.octets += size
        return size


def solid(spool: Path) -> Iterator[tuple[str, int]]:
    """How it is compressed, and the octets it then takes."""
    for name, parameters in SOLID.items():
        counter = _Counter()
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        with (
            compressor.stream_writer(counter, closefd=False) as stream,  # type: ignore[arg-type]
            tarfile.open(fileobj=stream, mode="w|") as archive,
        ):
            for mailbox, messages in read_spool(spool):
                for number, raw in enumerate(messages):
                    entry = tarfile.TarInfo(f"{mailbox}/{number}")
                    entry.size = len(raw)
                    archive.addfile(entry, io.BytesIO(raw))
        yield name, counter.octets
