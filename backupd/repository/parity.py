"""Parity: what heals an object of which some stretches have changed, without another copy of it.

A large object is cut into 100 shards, and as many parity shards are reckoned from them as per cent were asked for. Any
100 of all these give the object again (Reed-Solomon, docs/format.md, "Parity"), so as many shards may be bad as there
are parity shards. Each shard has a checksum, so what is bad is known, and what comes out is compared with the object's
SHA-256. A small object costs nothing to speak of, and its parity is a second copy: it heals even what is gone.

Nothing here knows a name or a storage; operations/repair_parity.py heals.
"""

from __future__ import annotations

import hashlib
import importlib.util
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from backupd.errors import ConfigError
from backupd.storage.base import Buffer

WHOLE_OCTETS: Final = 16 * 1024
"""Objects up to this size are stored a second time."""

_MAGIC = b"BKPDPAR1"
_FIXED = struct.Struct("<8sHHIQ32s")
_SHARDS = 100
_MOST_SHARDS = 256  # of both kinds: the elements of GF(2^8)
_CHECKSUM = 8
_DIGEST = 32
_LENGTH = struct.Struct("<I")
_CODING = threading.Lock()
"""The library takes the memory of two objects beside the one that is coded: so one thread at a time."""
_FRAGMENT_HEADER = 80  # of the library's own, before each shard it makes


class _Header(NamedTuple):
    """data, parity: how many shards. shard: octets of each. size: of the object; digest: its SHA-256. checksums: of
    all shards. octets: the header itself."""

    data: int
    parity: int
    shard: int
    size: int
    digest: bytes
    checksums: list[bytes]
    octets: bytes


def require() -> None:
    """Raises ConfigError where the library is not installed."""
    if importlib.util.find_spec("pyeclib") is None:
        raise ConfigError(
            "parity needs PyECLib, which is not installed",
            subject="repository.parity",
            remedy="pip install 'backupd[parity]', or leave parity out",
        )


@lru_cache(maxsize=8)
def _driver(data: int, parity: int):  # type: ignore[no-untyped-def]
    """What codes so many shards: ISA-L's code with a Cauchy matrix."""
    require()
    from pyeclib.ec_iface import ECDriver

    return ECDriver(k=data, m=parity, ec_type="isa_l_rs_cauchy")


def encode(data: Sequence[Buffer], per_cent: int, *, whole: int = WHOLE_OCTETS) -> list[Buffer]:
    """The parity object of the object with these bytes, in pieces. whole: octets up to which it is a copy.

    Raises ConfigError where the library is not installed, and more than a copy is asked for.
    """
    joined = b"".join(data)
    count, more = (1, 1) if len(joined) <= whole else (_SHARDS, per_cent)
    size = _shard_octets(len(joined), count)
    shards = list(_shards(memoryview(joined), count, size))
    parity = shards if count == 1 else _parity(joined, more)
    fixed = _FIXED.pack(_MAGIC, count, more, size, len(joined), hashlib.sha256(joined).digest())
    header = fixed + b"".join(map(_checksum, [*shards, *parity]))
    header += hashlib.sha256(header).digest()
    return [header, *parity, header, _LENGTH.pack(len(header))]


def _parity(data: bytes, more: int) -> list[Buffer]:
    driver = _driver(_SHARDS, more)
    with _CODING:
        fragments: list[bytes] = driver.encode(data)
        return [memoryview(each)[_FRAGMENT_HEADER:] for each in fragments[_SHARDS:]]


def _shard_octets(size: int, count: int) -> int:
    return max(1, -(-size // count))


def _shards(data: memoryview, count: int, size: int) -> Iterator[Buffer]:
    """The object cut into shards of one size; what is missing at its end is zeros."""
    for start in range(0, count * size, size):
        shard = data[start : start + size]
        yield shard if len(shard) == size else bytes(shard).ljust(size, b"\0")


def _checksum(shard: Buffer) -> bytes:
    return hashlib.sha256(shard).digest()[:_CHECKSUM]


def _header(parity: memoryview) -> _Header | None:
    """The header: the one at the beginning, or if that is damaged, the one at the end."""
    found = _header_at(parity)
    if found is None and len(parity) > _LENGTH.size:
        (length,) = _LENGTH.unpack_from(parity, len(parity) - _LENGTH.size)
        start = len(parity) - _LENGTH.size - length
        found = _header_at(parity[start:]) if start >= 0 else None
    return found


def _header_at(octets: memoryview) -> _Header | None:
    if len(octets) < _FIXED.size:
        return None
    magic, data, parity, shard, size, digest = _FIXED.unpack_from(octets)
    end = _FIXED.size + _CHECKSUM * (data + parity)
    header = bytes(octets[: end + _DIGEST])
    if magic != _MAGIC or hashlib.sha256(header[:end]).digest() != header[end:]:
        return None
    if not (data and parity and data + parity <= _MOST_SHARDS and shard == _shard_octets(size, data)):
        return None
    checksums = [header[at : at + _CHECKSUM] for at in range(_FIXED.size, end, _CHECKSUM)]
    return _Header(data, parity, shard, size, digest, checksums, header)


def _own_shards(parity: memoryview, header: _Header) -> list[memoryview]:
    start = len(header.octets)
    return [parity[start + at * header.shard : start + (at + 1) * header.shard] for at in range(header.parity)]


def whose(parity: Buffer) -> bytes | None:
    """The SHA-256 of the object that a parity object is of; None where the parity is not what was stored.

    It proves itself, as far as chance goes.
    """
    view = memoryview(parity).cast("B")
    header = _header_at(view)
    if header is None:
        return None
    shards = _own_shards(view, header)
    end = header.octets + _LENGTH.pack(len(header.octets))
    is_whole = (
        len(view) == len(header.octets) + header.parity * header.shard + len(end)
        and view[-len(end) :] == end
        and [_checksum(each) for each in shards] == header.checksums[header.data :]
    )
    return header.digest if is_whole else None


def heal(damaged: Buffer, parity: Buffer) -> bytes | None:
    """The object as it was stored, from what is left of it and of its parity; None where too much is gone.

    Raises ConfigError where the library is not installed, and a copy is not enough.
    """
    view = memoryview(parity).cast("B")
    header = _header(view)
    if header is None:
        return None
    there = memoryview(damaged).cast("B")[: header.size]
    shards = [*_shards(there, header.data, header.shard), *_own_shards(view, header)]
    good = {
        number: shard
        for number, shard in enumerate(shards)
        if len(shard) == header.shard and _checksum(shard) == header.checksums[number]
    }
    if len(good) < header.data:
        return None
    healed = _joined(good, header)[: header.size]
    return healed if hashlib.sha256(healed).digest() == header.digest else None


def _joined(good: dict[int, Buffer], header: _Header) -> bytes:
    if header.data == 1 or all(number in good for number in range(header.data)):
        return b"".join(good[number] for number in sorted(good)[: header.data])
    driver = _driver(header.data, header.parity)
    # The library's headers, which it wants back and which are not stored: all objects of one size have the same.
    with _CODING:
        heads = [each[:_FRAGMENT_HEADER] for each in driver.encode(bytes(header.size))]
        healed: bytes = driver.decode([b"".join((heads[number], shard)) for number, shard in sorted(good.items())])
        return healed
