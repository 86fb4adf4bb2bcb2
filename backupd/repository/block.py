"""A block: the unit of compression, encryption and reading (docs/format.md, "Blocks").

    offset  size
    0       4     magic "BKB1"
    4       1     kind
    5       1     compression: 0 none, 1 zstd
    6       2     K, length of the key field, little endian
    8       4     C, length of the sealed payload with its tag, little endian
    12      4     P, length of the plain payload, little endian
    16      K     key field: the block key sealed with HPKE (content), or a salt (all other kinds)
    16+K    C     AES-256-GCM of the (compressed) payload; nonce of zeros, for each key is used once; AAD: all before

Nothing in a block says where it lies, so it can be copied from pack to pack without a key.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backupd.errors import Damaged
from backupd.repository.keys import SEALED_KEY_BYTES, Random, Secrets, derive
from backupd.storage.base import Buffer

HEADER = struct.Struct("<4sBBHII")
MAGIC = b"BKB1"
TAG_BYTES = 16
SALT_BYTES = 32
MAXIMUM_PAYLOAD = 64 * 1024 * 1024
"""Octets; a block that claims more is not ours. Bounds what reading a hostile block can cost."""

MAXIMUM_BLOCK = HEADER.size + SEALED_KEY_BYTES + MAXIMUM_PAYLOAD + TAG_BYTES
"""Octets of a whole block."""

_NONCE = bytes(12)
_PLAIN, _ZSTD = 0, 1


class Kind(IntEnum):
    """What a block holds. All but CONTENT are open to the writer role."""

    CONTENT = 1
    METADATA = 2
    INDEX = 3
    SNAPSHOT = 4
    HOLD = 5
    ERASURE = 6
    RECORD = 7


_KINDS = frozenset(int(kind) for kind in Kind)


class Header(NamedTuple):
    """The first 16 octets of a block."""

    kind: Kind
    compression: int
    key_length: int
    sealed_length: int
    plain_length: int

    @property
    def total(self) -> int:
        """Octets of the whole block."""
        return HEADER.size + self.key_length + self.sealed_length


def parse_header(data: Buffer, subject: str) -> Header:
    """Read and check a block's header. Raises Damaged, naming `subject`."""
    if len(data) < HEADER.size:
        raise Damaged("a block is cut short", subject=subject)
    magic, kind, compression, key_length, sealed_length, plain_length = HEADER.unpack_from(data)
    if magic != MAGIC or kind not in _KINDS or compression not in (_PLAIN, _ZSTD):
        raise Damaged("this is no block of a known kind", subject=subject)
    if plain_length > MAXIMUM_PAYLOAD or sealed_length > MAXIMUM_PAYLOAD + TAG_BYTES:
        raise Damaged("a block claims an absurd size", subject=subject)
    if key_length != (SEALED_KEY_BYTES if kind == Kind.CONTENT else SALT_BYTES):
        raise Damaged("a block has a key field of the wrong length", subject=subject)
    return Header(Kind(kind), compression, key_length, sealed_length, plain_length)


def seal(kind: Kind, payload: Buffer, secrets: Secrets, random: Random, *, level: int) -> bytearray:
    """Compress and encrypt a payload into a block. level: of zstd; a payload that will not shrink is kept as it is."""
    size = len(payload)
    if size > MAXIMUM_PAYLOAD:
        raise ValueError(f"a payload of {size} octets does not fit a block")
    compressed = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(payload)
    method, body = (_ZSTD, compressed) if len(compressed) < size * 0.98 else (_PLAIN, payload)
    del payload, compressed  # of up to 12 MiB each, and not needed any more
    if kind is Kind.CONTENT:
        key = random(32)
        field = secrets.seal_key(key)
    else:
        field = random(SALT_BYTES)
        key = _metadata_key(secrets, field, kind)
    head = HEADER.pack(MAGIC, kind, method, len(field), len(body) + TAG_BYTES, size) + field
    sealed = bytearray(len(head) + len(body) + TAG_BYTES)
    sealed[: len(head)] = head
    AESGCM(key).encrypt_into(_NONCE, body, head, memoryview(sealed)[len(head) :])
    return sealed


def unseal(data: Buffer, secrets: Secrets, subject: str, *, expect: Kind | None = None) -> bytes:
    """The payload of a block. Raises Damaged naming `subject`; WrongKey where the role may not read it."""
    header = parse_header(data, subject)
    if len(data) != header.total:
        raise Damaged(f"a block has {len(data)} octets where its header says {header.total}", subject=subject)
    if expect is not None and header.kind is not expect:
        raise Damaged(f"a block of kind {header.kind.name} stands where {expect.name} belongs", subject=subject)
    view = memoryview(data)
    field_end = HEADER.size + header.key_length
    field = bytes(view[HEADER.size : field_end])
    try:
        key = secrets.open_key(field) if header.kind is Kind.CONTENT else _metadata_key(secrets, field, header.kind)
        body = AESGCM(key).decrypt(_NONCE, view[field_end:], view[:field_end])
        if header.compression == _ZSTD:
            body = _decompress(body, header.plain_length)
    except (InvalidTag, zstandard.ZstdError) as error:
        raise Damaged(
            "a block cannot be opened: its bytes were altered, or it belongs to another repository", subject=subject
        ) from error
    if len(body) != header.plain_length:
        raise Damaged("a block holds another length than it says", subject=subject)
    return body


def _decompress(frame: bytes, size: int) -> bytes:
    # The frame's own idea of its size is not trusted: the authenticated header's is.
    parameters = zstandard.get_frame_parameters(frame)
    if parameters.content_size != size:
        raise zstandard.ZstdError("the frame's size is not the header's")
    return zstandard.ZstdDecompressor().decompress(frame, max_output_size=size)


def _metadata_key(secrets: Secrets, salt: bytes, kind: Kind) -> bytes:
    return derive(secrets.metadata_key, salt, b"backupd v1 block" + bytes([kind]))
