"""The repository as it would be after a dry run: what would be put back is read from where it would come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge

from backupd.errors import Damaged, ObjectMissing
from backupd.storage.around import Around
from backupd.storage.base import Buffer, ObjectInfo, Storage


class Preview(Around):
    """A Storage around another one, which changes nothing.

    Args:
        planned: octets of what would be put back, by name; looked at each time.
        find: good bytes of one of these.
    """

    def __init__(self, storage: Storage, planned: Mapping[str, int], find: Callable[[str], bytes | None]) -> None:
        super().__init__(storage)
        self._planned, self._find = planned, find
        self._last: tuple[str, bytes | None] = ("", None)

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """Nothing is stored."""

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """Nothing is stored."""

    def delete(self, name: str) -> None:
        """Nothing is removed."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        if name not in self._planned:
            return self._storage.get(name, offset, length)
        # One block after another is read of a pack.
        last, data = self._last
        if last != name:
            data = self._find(name)
            self._last = name, data
        if data is None:
            raise ObjectMissing("there is no such object", subject=name)
        wanted = data[offset:] if length is None else data[offset : offset + length]
        if length is not None and len(wanted) < length:
            raise Damaged("the object is shorter than it should be", subject=name)
        return wanted

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See Storage.list."""
        planned = [ObjectInfo(name, size) for name, size in sorted(self._planned.items()) if name.startswith(prefix)]
        there = (info for info in self._storage.list(prefix) if info.name not in self._planned)
        return merge(there, planned, key=lambda info: info.name)

    def size(self, name: str) -> int:
        """See Storage.size."""
        return self._planned[name] if name in self._planned else self._storage.size(name)
