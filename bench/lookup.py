"""How long it takes to ask the index for a blob.

    python -m bench.lookup fill|ask FOLDER BLOBS RESULT

`fill` makes an index of so many blobs in the folder, `ask` looks up new and known ones, in a process of its own, so
that its memory is that of asking. Both write what they measured to RESULT, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import IndexCache

_IN_BLOCK, _IN_INDEX = 50, 100_000
_ASKED = 100_000
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_REPOSITORY = bytes(16)


def identity(number: int) -> bytes:
    """A blob's id."""
    return sha256(b"%d" % number).digest()


def packs(first: int, count: int) -> Iterator[PackEntry]:
    """Packs of as many blobs as one index object holds."""
    blobs = [identity(number) for number in range(first, first + count)]
    blocks = [BlockEntry(8 + 900 * n, 900, 1, 1000, _IN_BLOCK) for n in range(count // _IN_BLOCK)]
    yield PackEntry(identity(-1 - first), 900 * len(blocks), blocks, b"".join(blobs), bytes(count), [20] * count)


def fill(folder: Path, blobs: int) -> dict[str, float]:
    began = time.perf_counter()
    cache = IndexCache(folder / "index.sqlite", _REPOSITORY)
    for first in range(0, blobs, _IN_INDEX):
        cache.add(f"index/{first}", packs(first, _IN_INDEX))
    cache.close()
    seconds = time.perf_counter() - began
    files = [*folder.glob("index.sqlite*"), *folder.glob("blobs-*")]
    return {"blobs": blobs, "fill_seconds": seconds, "on_disk": sum(path.stat().st_size for path in files)}


def ask(folder: Path, blobs: int) -> dict[str, float]:
    began = time.perf_counter()
    cache = IndexCache(folder / "index.sqlite", _REPOSITORY)
    opened = time.perf_counter() - began
    step = blobs // _ASKED
    known = [identity(number * step) for number in range(_ASKED)]
    new = [identity(blobs + number) for number in range(_ASKED)]
    times = []
    for asked, expected in ((new, False), (known, True)):
        began = time.perf_counter()
        answers = sum(map(cache.has, asked))
        times.append((time.perf_counter() - began) / _ASKED)
        if answers != (_ASKED if expected else 0):
            raise RuntimeError(f"the index has {answers} of {_ASKED} blobs, where {expected} was right for all")
    found = _PEAK.search(Path("/proc/self/status").read_text())
    peak = int(found[1]) * 1024 if found else 0
    return {"open_seconds": opened, "unknown_seconds": times[0], "known_seconds": times[1], "peak": peak}


if __name__ == "__main__":
    step, folder, blobs, result = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    measured = fill(folder, blobs) if step == "fill" else ask(folder, blobs)
    result.write_text(json.dumps(measured), encoding="utf-8")
