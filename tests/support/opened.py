"""All that a repository holds, opened: what somebody with every key would find in it, wherever it lies."""

from __future__ import annotations

from backupd.repository import block, names, payload
from backupd.repository.keys import Secrets
from backupd.repository.pack_writer import PACK_MAGIC
from backupd.repository.payload import BlobKind
from backupd.storage.base import Storage


def payloads(storage: Storage, secrets: Secrets) -> list[bytes]:
    """The decrypted and decompressed payload of every block of every pack, and of every other block there is."""
    found = []
    for info in storage.list():
        data = storage.get(info.name)
        if info.name.startswith(names.PACKS):
            at = len(PACK_MAGIC)
            while at < len(data):
                size = block.parse_header(memoryview(data)[at:], info.name).total
                found.append(bytes(block.unseal(data[at : at + size], secrets, info.name)))
                at += size
        elif info.name.startswith((names.INDEX, names.SNAPSHOTS, names.HOLDS, names.ERASURES)):
            found.append(bytes(block.unseal(data, secrets, info.name)))
    return found


def blobs(storage: Storage, secrets: Secrets) -> list[tuple[BlobKind, bytes]]:
    """Every blob of every pack, whether an index tells of it or not."""
    found = []
    for info in storage.list(names.PACKS):
        data = storage.get(info.name)
        at = len(PACK_MAGIC)
        while at < len(data):
            size = block.parse_header(memoryview(data)[at:], info.name).total
            plain = block.unseal(data[at : at + size], secrets, info.name)
            found += [(kind, bytes(blob)) for kind, blob in payload.parse(plain, info.name)]
            at += size
    return found


def contains(storage: Storage, secrets: Secrets, secret: bytes) -> bool:
    """Whether these octets are in any of it."""
    return any(secret in each for each in payloads(storage, secrets))
