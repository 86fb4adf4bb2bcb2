"""Index objects: which blobs are in which block of which pack (docs/format.md, "Index")."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from backupd.errors import Damaged
from backupd.repository import block, names
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Secrets
from backupd.repository.payload import BlobKind


class BlockEntry(msgspec.Struct, array_like=True, frozen=True):
    """A block in a pack: where it starts, how long it is, its kind, how long its payload is, how many blobs it holds.
    """

    offset: int
    length: int
    kind: int
    plain_length: int
    blobs: int


class PackEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pack: name is the SHA-256 of its bytes; ids, kinds and lengths are columns over its blobs, block by block.

    parts: for each recipe among them, in their order, the ids of the blobs that it needs, or None where that is not
    known; None: of no recipe it is known.
    """

    name: bytes
    size: int
    blocks: list[BlockEntry]
    ids: bytes
    kinds: bytes
    lengths: list[int]
    parts: list[bytes | None] | None = None

    @property
    def weight(self) -> int:
        """Ids in it."""
        return len(self.lengths) + sum(len(each or b"") for each in self.parts or ()) // 32

    def parts_of_blobs(self) -> Iterator[bytes | None]:
        """For each blob the ids of those it needs, one after another: empty of what needs none; None where that is not
        known."""
        recipes = iter(self.parts if self.parts is not None else itertools.repeat(None))
        return (next(recipes) if kind == BlobKind.RECIPE else b"" for kind in self.kinds)


class _Index(msgspec.Struct, frozen=True):
    packs: list[PackEntry]


MOST_BLOBS = 500_000
"""Of a pack and of an index object: at up to 40 octets each, an index of as many again fits a block (64 MiB). The parts
that recipes need count too, at 32 octets."""

TOLD_TOGETHER = 150_000
"""Of an index object, where there is a choice: whoever writes or reads one holds all of it, at 100 octets each."""

_MOST = 1 << 62
"""Octets of a pack: what fits a signed integer of 64 bits, which databases have."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Index).decode


def cut(packs: Iterable[PackEntry], *, most: int = TOLD_TOGETHER) -> Iterator[list[PackEntry]]:
    """Packs that one index object can describe together. most: blobs of one, and parts of recipes."""
    some: list[PackEntry] = []
    weight = 0
    for pack in packs:
        if some and weight + pack.weight > most:
            yield some
            some, weight = [], 0
        some.append(pack)
        weight += pack.weight
    if some:
        yield some


def seal(packs: Sequence[PackEntry], secrets: Secrets, random: Random) -> bytearray:
    """An index object's bytes. Ids do not compress, so a low level does."""
    return block.seal(block.Kind.INDEX, _encode(_Index(list(packs))), secrets, random, level=3)


def unseal(data: bytes, secrets: Secrets, subject: str) -> list[PackEntry]:
    """The packs an index object describes. subject: its name. Raises Damaged."""
    if names.proves(subject, [data]) is False:  # one index object could stand in the place of another
        raise Damaged("an index object is not what its name says", subject=subject)
    payload = block.unseal(data, secrets, subject, expect=block.Kind.INDEX)
    try:
        packs = _decode(payload).packs
    except UNDECODABLE as error:
        raise Damaged(f"an index makes no sense: {error}", subject=subject) from error
    for pack in packs:
        count = sum(entry.blobs for entry in pack.blocks)
        if not len(pack.ids) == 32 * count or not len(pack.kinds) == len(pack.lengths) == count or len(pack.name) != 32:
            raise Damaged("an index has columns of different lengths", subject=subject)
        if pack.parts is not None and len(pack.parts) != pack.kinds.count(BlobKind.RECIPE):
            raise Damaged("an index tells of other recipes than there are", subject=subject)
        if not _is_possible(pack):
            raise Damaged("an index describes a pack that cannot be", subject=subject)
    return packs


def _is_possible(pack: PackEntry) -> bool:
    """Whether its numbers can be true. They say how much is read at once, so they are bounded here."""
    return (
        0 <= pack.size <= _MOST
        and all(0 <= length <= block.MAXIMUM_PAYLOAD for length in pack.lengths)
        and not any(len(parts or b"") % 32 for parts in pack.parts or ())
        and all(
            entry.blobs >= 0
            and 0 <= entry.plain_length <= block.MAXIMUM_PAYLOAD
            and 0 < entry.length <= block.MAXIMUM_BLOCK
            and 0 <= entry.offset <= pack.size - entry.length
            for entry in pack.blocks
        )
    )
