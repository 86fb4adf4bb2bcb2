"""The interface to where a repository lives: immutable objects under slash-separated names.

Nothing here assumes a file system. One conformance suite (tests/storage/test_conformance.py) runs on every
implementation. Errors are those of `backupd.errors.StorageError`; implementations retry transient faults themselves and
raise StorageUnavailable when their budget is used up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

NAME = re.compile(r"[a-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9][A-Za-z0-9._~-]*){0,3}\Z")
"""What an object name may look like; checked both on the way in and on the way out of a listing."""

Buffer = bytes | bytearray | memoryview


class ObjectInfo(NamedTuple):
    """An object in a listing. size: in bytes. modified: when it was stored, in seconds since 1970, where listings say
    so."""

    name: str
    size: int
    modified: float | None = None


class Requests(NamedTuple):
    """Requests that a service charges for, each attempt counted. writes: PUT, POST and COPY. listings: pages of names,
    which cost what writes cost. reads: GET and HEAD, which cost about a tenth. Deleting costs nothing, and is not
    counted."""

    writes: int = 0
    listings: int = 0
    reads: int = 0

    def since(self, before: Requests) -> Requests:
        """Those that came after `before`."""
        return Requests(*(now - then for now, then in zip(self, before, strict=True)))


class Storage(Protocol):
    """Immutable named objects."""

    @property
    def url(self) -> str:
        """The place, for messages to people; never with a secret in it."""
        ...

    @property
    def requests(self) -> Requests | None:
        """What was asked for through this object. None where requests cost neither money nor a round trip: elsewhere
        nothing is looked up without need."""
        ...

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """Store the concatenation of `data` under `name`, durably and atomically: all of it is there when this returns,
        and nothing of it is visible before.

        Idempotent: the same bytes under the same name again is a success. Other bytes raise ObjectExists, and what was
        there stays.
        """
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `offset`. Fewer than asked for raises Damaged.

        Raises ObjectMissing.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose names start with `prefix`, in the order of their names. Unfinished writes are not shown,
        nor are names that `NAME` does not allow.
        """
        ...

    def size(self, name: str) -> int:
        """The object's size in bytes. Raises ObjectMissing."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; a success if there is none."""
        ...
