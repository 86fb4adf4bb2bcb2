"""repository.json: what anybody may know of a repository, and what it is opened with."""

from __future__ import annotations

import re

import msgspec

from backupd.errors import Damaged, NoRepository, ObjectMissing
from backupd.repository import names
from backupd.repository.decoding import UNDECODABLE
from backupd.storage.base import Storage

FORMAT = 1
PUBLIC_KEY_BYTES = 1_216
_ID = re.compile(r"[0-9a-f]{32}")

SUITES = {
    "object": "SHA-256",
    "blob": "BLAKE3-256 keyed",
    "block": "AES-256-GCM",
    "content-key": "HPKE base MLKEM768_X25519 HKDF-SHA256 AES-256-GCM",
    "metadata-key": "HKDF-SHA256",
    "compression": "zstd",
    "slot": "Argon2id AES-256-GCM",
}


class Description(msgspec.Struct, frozen=True):
    """repository.json: what anybody may know. id: 16 octets in hexadecimal. public_key: base64."""

    format: int
    id: str
    created: str
    public_key: bytes
    suites: dict[str, str]


def describe(storage: Storage) -> Description:
    """Read repository.json; needs no key. Raises NoRepository, Damaged."""
    try:
        data = storage.get(names.DESCRIPTION)
    except ObjectMissing:
        if holds_backups(storage):
            raise _unusable(f"{names.DESCRIPTION} is missing", storage.url) from None
        raise NoRepository(
            "there is no repository here",
            subject=storage.url,
            remedy="`backupd init` makes one; is repository.url right?",
        ) from None
    return described(data, storage.url)


def described(data: bytes, subject: str) -> Description:
    """Decode repository.json. Raises Damaged."""
    try:
        description = msgspec.json.decode(data, type=Description)
    except UNDECODABLE as error:
        raise _unusable(f"{names.DESCRIPTION} makes no sense: {error}", subject) from error
    if description.format != FORMAT:
        raise Damaged("the repository is of another format", subject=subject, remedy="a newer backupd may know it")
    if not _ID.fullmatch(description.id) or len(description.public_key) != PUBLIC_KEY_BYTES:
        raise _unusable(f"{names.DESCRIPTION} makes no sense", subject)
    return description


def _unusable(what: str, subject: str) -> Damaged:
    return Damaged(what, subject=subject, remedy="`backupd repair` puts it back from a copy, or from a version of it")


def holds_backups(storage: Storage) -> bool:
    """Whether there is anything of a repository, with or without a description."""
    return any(True for kind in (names.PACKS, names.INDEX, names.SNAPSHOTS) for _ in storage.list(kind))


