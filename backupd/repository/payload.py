"""The payload of a content or metadata block: a directory, then blobs (docs/format.md, "Payload").

u32 little endian   D, length of the directory
D octets            MessagePack array [kinds: bin, lengths: array of unsigned]
the rest            the blobs, one after another
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from backupd.errors import Damaged
from backupd.repository.decoding import UNDECODABLE
from backupd.storage.base import Buffer

_LENGTH = struct.Struct("<I")


class BlobKind(IntEnum):
    """What a blob is.

    PLAIN: bytes as they are, a whole message or a part. RECIPE: how to join a message. ENVELOPES: a run of envelopes.
    MEMBERSHIP and STATE: runs of mailbox state, in metadata blocks.
    """

    PLAIN = 0
    RECIPE = 1
    MEMBERSHIP = 2
    STATE = 3
    ENVELOPES = 4

    @property
    def is_metadata(self) -> bool:
        """Whether it goes into a metadata block, which the writer role can read."""
        return self in (BlobKind.MEMBERSHIP, BlobKind.STATE)


class _Directory(msgspec.Struct, array_like=True, frozen=True):
    kinds: bytes
    lengths: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Directory).decode


def join(kinds: bytes, blobs: Sequence[Buffer]) -> bytes:
    """Make a payload."""
    directory = _encode(_Directory(kinds, [len(blob) for blob in blobs]))
    return b"".join([_LENGTH.pack(len(directory)), directory, *blobs])


def parse(payload: bytes, subject: str) -> list[tuple[BlobKind, memoryview]]:
    """The blobs of a payload, in order. Raises Damaged."""
    try:
        (size,) = _LENGTH.unpack_from(payload)
        position = _LENGTH.size + size
        directory = _decode(payload[_LENGTH.size : position])
        if len(directory.kinds) != len(directory.lengths) or min(directory.lengths, default=0) < 0:
            raise ValueError("directory columns differ")
        view = memoryview(payload)
        blobs = []
        for kind, length in zip(directory.kinds, directory.lengths, strict=True):
            blobs.append((BlobKind(kind), view[position : position + length]))
            position += length
        if position != len(payload):
            raise ValueError("blobs and lengths differ")
    except (struct.error, *UNDECODABLE) as error:
        raise Damaged(f"a block's directory makes no sense: {error}", subject=subject) from error
    return blobs
