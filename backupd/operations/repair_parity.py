"""Parity of what is there and good: made where there is none, and made anew where it is damaged itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from backupd.operations.repair_objects import read
from backupd.repository import names, parity
from backupd.repository.parity_storage import ParityStorage, has_parity
from backupd.storage.base import Storage


class ParityRepair:
    """Looks after parity, where the storage is one that stores it. made: objects that got some. Safe to use from
    several threads."""

    def __init__(self, storage: Storage, *, dry_run: bool) -> None:
        self._storage = storage if isinstance(storage, ParityStorage) else None
        self._dry_run = dry_run
        self._there = {info.name for info in storage.list(names.PARITY)} if self._storage else frozenset[str]()

    def see_to(self, name: str, data: bytes) -> bool:
        """Of an object that is good: whether its parity had to be made."""
        if self._storage is None or not has_parity(name):
            return False
        own = names.parity(name)
        kept = read(self._storage, own) if own in self._there else None
        if kept is not None and parity.whose(kept) == hashlib.sha256(data).digest():
            return False
        if not self._dry_run:
            self._storage.renew_parity(name, [data])
        return True

    def left_behind(self, there: Iterable[str]) -> list[str]:
        """Names of parity of packs and index objects that are gone: a machine that knows nothing of parity has removed
        them. there: names of all objects."""
        if self._storage is None:
            return []
        kept = set(map(names.parity, there))
        whose = tuple(map(names.parity, (names.PACKS, names.INDEX)))
        now = (info.name for info in self._storage.list(names.PARITY))
        return [name for name in now if name.startswith(whose) and name not in kept]
