"""A storage that stores parity with each object, for repositories that have no copy.

Everything else of a repository, prune included, need not know of it. The object comes first, then its parity: whoever
is killed in between leaves an object without, and `repair` makes up for it. What is removed loses its parity first, so
what has parity, and is not there, was not removed by us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from backupd.errors import ObjectExists
from backupd.repository import names, parity
from backupd.storage.base import Buffer, Locks, ObjectInfo, Requests, Storage, Versions

_WITHOUT: Final = (names.MARKS, names.NEEDS, names.PARITY, names.PROBE)
"""What is about other objects, and is no loss."""


class ParityStorage:
    """A Storage around another one.

    Args:
        per_cent: of parity for large objects, 1 to 100.
        whole: octets up to which parity is a copy.

    Raises ConfigError where the library is not installed.
    """

    def __init__(self, storage: Storage, per_cent: int, *, whole: int = parity.WHOLE_OCTETS) -> None:
        parity.require()
        self._storage, self._per_cent, self._whole = storage, per_cent, whole

    @property
    def url(self) -> str:
        """See Storage.url."""
        return self._storage.url

    @property
    def requests(self) -> Requests | None:
        """See Storage.requests."""
        return self._storage.requests

    @property
    def versions(self) -> Versions | None:
        """See Storage.versions."""
        return self._storage.versions

    @property
    def locks(self) -> Locks | None:
        """See Storage.locks. Parity is locked when it is stored, as all is; its locks are not made longer."""
        return self._storage.locks

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.put. Durable when this returns are both the object and its parity."""
        self._storage.put(name, data)
        if has_parity(name):
            # There may be some already, of another share.
            with suppress(ObjectExists):
                self._storage.put(names.parity(name), self._encoded(data))

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.replace."""
        self._storage.replace(name, data)
        if has_parity(name):
            self.renew_parity(name, data)

    def renew_parity(self, name: str, data: Sequence[Buffer]) -> None:
        """Store the parity of an object that is there, in the place of any that there is."""
        self._storage.replace(names.parity(name), self._encoded(data))

    def _encoded(self, data: Sequence[Buffer]) -> list[Buffer]:
        return parity.encode(data, self._per_cent, whole=self._whole)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        return self._storage.get(name, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See Storage.list. Parity is among it, below a prefix of its own."""
        return self._storage.list(prefix)

    def size(self, name: str) -> int:
        """See Storage.size."""
        return self._storage.size(name)

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        if has_parity(name):
            self._storage.delete(names.parity(name))
        self._storage.delete(name)


def has_parity(name: str) -> bool:
    """Whether parity is stored of an object of this name."""
    return not name.startswith(_WITHOUT)


