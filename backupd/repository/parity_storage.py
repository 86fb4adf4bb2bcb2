"""A storage that stores parity with each object, for repositories that have no copy.

Everything else of a repository, prune included, need not know of it. The object comes first, then its parity: whoever
is killed in between leaves an object without, and `repair` makes up for it. What is removed loses its parity first, so
what has parity, and is not there, was not removed by us.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from backupd.errors import ObjectExists
from backupd.repository import names, parity
from backupd.storage.around import Around
from backupd.storage.base import Buffer, Storage

_WITHOUT: Final = (names.MARKS, names.NEEDS, names.PARITY, names.PROBE)
"""What is about other objects, and is no loss."""


class ParityStorage(Around):
    """A Storage around another one. What it lists has parity among it, below a prefix of its own. Parity is locked when
    it is stored, as all is; its locks are not made longer.

    Args:
        per_cent: of parity for large objects, 1 to 100.
        whole: octets up to which parity is a copy.

    Raises ConfigError where the library is not installed.
    """

    def __init__(self, storage: Storage, per_cent: int, *, whole: int = parity.WHOLE_OCTETS) -> None:
        parity.require()
        super().__init__(storage)
        self._per_cent, self._whole = per_cent, whole

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

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        if has_parity(name):
            self._storage.delete(names.parity(name))
        self._storage.delete(name)


def has_parity(name: str) -> bool:
    """Whether parity is stored of an object of this name."""
    return not name.startswith(_WITHOUT)


