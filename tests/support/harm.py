"""Harm to one object of a repository in memory."""

from __future__ import annotations

from backupd.repository import block
from backupd.repository.pack_writer import PACK_MAGIC
from tests.support.memory_storage import MemoryStorage


def flip(storage: MemoryStorage, name: str) -> None:
    """One bit in the first content block of a pack, wherever that lies."""
    data, place = storage.objects[name], len(PACK_MAGIC)
    while (header := block.parse_header(data[place:], name)).kind is not block.Kind.CONTENT:
        place += header.total
    place += header.total - 1
    storage.objects[name] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
