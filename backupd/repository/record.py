"""The signed record: what was done to the repository, by entries that name the ones before (docs/format.md, "Record").

An entry is signed by whoever holds the writer secret, and checked by anybody who has the public key. It names by their
SHA-256 all entries that its writer knew of as the last, so none can be altered, left out or put in between afterwards
without breaking those that came later. There is no lock and no order that all agree on: entries of machines that did
not know of each other stand side by side, until a later one names both.

Here is how entries are written, read and proved; what they say together is for operations/record_ledger.py.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from backupd.errors import Damaged
from backupd.repository import block, names
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Secrets
from backupd.storage.base import Storage

FORMAT: Final = 1
MAGIC: Final = b"BKPDLOG1"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MOST_OCTETS: Final = 16 << 20
"""Of an object: what reading one costs is bounded."""

_SIGNED: Final = b"backupd v1 record entry\x00"
_LENGTH: Final = struct.Struct("<I")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done. All of it but `sealed` can be read without a key, and tells no more than names in the storage do.

    time: RFC 3339, by the clock of whoever did it. kind: such as "backup". after: SHA-256 of the last entries that were
    known. adds: (name, SHA-256) of objects that are there from now on, SHA-256 empty where it was not looked at.
    going: names of objects that may be gone from now on; gone: of those that are. despite: of entries with these: they
    count no more for what is added here, which was brought back. lost: entries that are gone, which somebody has looked
    into. counts, words: more about it. sealed: a block of reasons.
    """

    format: int
    repository: bytes
    key: bytes
    time: str
    kind: str
    after: list[bytes] = []
    adds: list[tuple[str, bytes]] = []
    going: list[str] = []
    gone: list[str] = []
    despite: list[bytes] = []
    lost: list[bytes] = []
    counts: dict[str, int] = {}
    words: dict[str, str] = {}
    sealed: bytes = b""


class Signed(NamedTuple):
    """An entry as it is stored. id: SHA-256 of the octets, which are the signature and what it signs."""

    id: bytes
    octets: bytes
    entry: Entry


class Signer(NamedTuple):
    """Whose entries are believed: the repository's id, and the public key."""

    repository: bytes
    key: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_decode_reasons = msgspec.msgpack.Decoder(dict[str, str]).decode


def signer(secrets: Secrets) -> Signer:
    """Whose entries a holder of these secrets believes."""
    return Signer(secrets.repository, secrets.record_public_key)


def sign(entry: Entry, secrets: Secrets) -> Signed:
    """Sign an entry (RFC 8032, Ed25519)."""
    body = _encode(entry)
    return _signed(secrets.record_key.sign(_SIGNED + body) + body, entry)


def _signed(octets: bytes, entry: Entry) -> Signed:
    return Signed(hashlib.sha256(octets).digest(), octets, entry)


def verify(octets: bytes, whose: Signer, subject: str) -> Signed:
    """An entry, if it is one of theirs. Raises Damaged naming `subject`."""
    signed = read(octets, subject)
    entry = signed.entry
    if entry.repository != whose.repository:
        raise Damaged("an entry of another repository's record stands here", subject=subject)
    if entry.key != whose.key:
        raise Damaged("an entry of the record is signed with a key that is not this repository's", subject=subject)
    try:
        Ed25519PublicKey.from_public_bytes(whose.key).verify(
            octets[:SIGNATURE_BYTES], _SIGNED + octets[SIGNATURE_BYTES:]
        )
    except InvalidSignature:
        raise Damaged("the signature of an entry of the record is wrong", subject=subject) from None
    return signed


def read(octets: bytes, subject: str) -> Signed:
    """An entry, whoever signed it. Raises Damaged."""
    try:
        entry = _decode(octets[SIGNATURE_BYTES:])
        if datetime.fromisoformat(entry.time).tzinfo is None or any(len(each) != 32 for each in entry.after):
            raise ValueError("a time without its zone, or a digest that is none")
    except UNDECODABLE as error:
        raise Damaged(f"an entry of the record makes no sense: {error}", subject=subject) from error
    if entry.format > FORMAT:
        raise Damaged("an entry of the record is of a newer format", subject=subject, remedy="update backupd")
    return _signed(octets, entry)


# -- objects -----------------------------------------------------------------------------------------------------------


def join(entries: Iterable[bytes]) -> bytes:
    """The object of these entries, which stay as they are."""
    pieces = [MAGIC]
    for octets in entries:
        pieces += [_LENGTH.pack(len(octets)), octets]
    return b"".join(pieces)


def cut(data: bytes, name: str) -> Iterator[bytes]:
    """The entries of an object. Raises Damaged."""
    if not names.proves(name, [data]):
        raise Damaged("a piece of the record is not what its name says", subject=name)
    if data[: len(MAGIC)] != MAGIC or len(data) > MOST_OCTETS:
        raise Damaged("a piece of the record is none", subject=name)
    at = len(MAGIC)
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise Damaged("a piece of the record is cut", subject=name)
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length <= SIGNATURE_BYTES or at + length > len(data):
            raise Damaged("a piece of the record is cut", subject=name)
        yield data[at : at + length]
        at += length


def name_of(data: bytes, time: datetime) -> str:
    """The object name of a piece of the record that is stored at this time."""
    return f"{names.LOG}{names.snapshot_id(time, names.sha256([data]))}"


def put(storage: Storage, entries: Iterable[bytes], time: datetime) -> tuple[str, int]:
    """Store entries as one object; its name and octets."""
    data = join(entries)
    name = name_of(data, time)
    storage.put(name, [data])
    return name, len(data)


# -- what only a writer can read ---------------------------------------------------------------------------------------


def seal(reasons: dict[str, str], secrets: Secrets, random: Random) -> bytes:
    """What people wrote, for an entry; empty for nothing."""
    return bytes(block.seal(block.Kind.RECORD, _encode(reasons), secrets, random, level=9)) if reasons else b""


def unseal(entry: Entry, secrets: Secrets, subject: str) -> dict[str, str]:
    """What people wrote. Raises Damaged."""
    if not entry.sealed:
        return {}
    try:
        return _decode_reasons(block.unseal(entry.sealed, secrets, subject, expect=block.Kind.RECORD))
    except UNDECODABLE as error:
        raise Damaged(f"the reason in an entry of the record makes no sense: {error}", subject=subject) from error
