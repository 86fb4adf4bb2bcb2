"""A storage in memory, which fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from backupd.errors import Damaged, ObjectExists, ObjectMissing, StorageError
from backupd.storage.base import NAME, Buffer, ObjectInfo, Requests


class MemoryStorage:
    """objects: by name, to be looked at and damaged by tests.

    before_put: called with the name before each object is stored; what it raises keeps the object from being stored.
    """

    url = "memory:"
    requests: Requests | None = None
    versions = None
    locks = None

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before_put: Callable[[str], None] = lambda _name: None
        self.puts = 0

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        _check(name)
        self.before_put(name)
        self.puts += 1
        whole = b"".join(data)
        if self.objects.setdefault(name, whole) != whole:
            raise ObjectExists("there is another object of this name", subject=name)

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        _check(name)
        self.before_put(name)
        self.objects[name] = b"".join(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self._find(name)
        wanted = data[offset:] if length is None else data[offset : offset + length]
        if length is not None and len(wanted) < length:
            raise Damaged("the object is shorter than it should be", subject=name)
        return wanted

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for name in sorted(self.objects):
            if name.startswith(prefix) and NAME.match(name):
                yield ObjectInfo(name, len(self.objects[name]))

    def size(self, name: str) -> int:
        return len(self._find(name))

    def delete(self, name: str) -> None:
        _check(name)
        self.objects.pop(name, None)

    def _find(self, name: str) -> bytes:
        _check(name)
        try:
            return self.objects[name]
        except KeyError:
            raise ObjectMissing("there is no such object", subject=name) from None


def _check(name: str) -> None:
    if not NAME.match(name):
        raise StorageError("not a name for an object", subject=repr(name))
