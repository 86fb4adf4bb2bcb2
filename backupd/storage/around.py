"""A storage around another one, for those that differ in little from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backupd.storage.base import Buffer, Locks, ObjectInfo, Requests, Storage, Versions


class Around:
    """Does all that the storage within does; who inherits from it says what is otherwise."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

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
        """See Storage.locks."""
        return self._storage.locks

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.put."""
        self._storage.put(name, data)

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.replace."""
        self._storage.replace(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        return self._storage.get(name, offset, length)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See Storage.list."""
        return self._storage.list(prefix)

    def size(self, name: str) -> int:
        """See Storage.size."""
        return self._storage.size(name)

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        self._storage.delete(name)
