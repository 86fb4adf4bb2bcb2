"""The interface to where a repository lives: immutable objects under slash-separated names.

Nothing here assumes a file system. One conformance suite (tests/storage/test_conformance.py) runs on every
implementation. Errors are those of `backupd.errors.StorageError`; implementations retry transient faults themselves and
raise StorageUnavailable when their budget is used up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
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


class Version(NamedTuple):
    """What an object was, or is, in a storage that keeps what is replaced or removed.

    id: the storage's own name for it. size: in bytes. stored: seconds since 1970. latest: whether the object is this
    now. removal: the object was removed then, and there are no bytes.
    """

    name: str
    id: str
    size: int
    stored: float
    latest: bool
    removal: bool


class Versions(Protocol):
    """Of a storage that keeps what is replaced or removed."""

    def list(self, prefix: str = "") -> Iterator[Version]:
        """All versions of all objects whose names start with `prefix`; of one name behind each other, newest first."""
        ...

    def get(self, version: Version) -> bytes:
        """Its bytes. Raises ObjectMissing."""
        ...


class Locks(Protocol):
    """Of a storage that can keep what is stored from being destroyed by anybody until a time."""

    @property
    def seconds(self) -> float:
        """How long each object is locked when it is stored."""
        ...

    def extend(self, name: str, until: datetime) -> None:
        """Lock what is stored under the name until then; a success if it is locked for longer. Raises ObjectMissing,
        StorageDenied.
        """
        ...

    def until(self, name: str) -> datetime | None:
        """When the lock ends; None if there never was one. Raises ObjectMissing."""
        ...


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

    @property
    def versions(self) -> Versions | None:
        """What was replaced or removed, where the storage may have kept it."""
        ...

    @property
    def locks(self) -> Locks | None:
        """Locks of objects, where the configuration asks for them."""
        ...

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """Store the concatenation of `data` under `name`, durably and atomically: all of it is there when this returns,
        and nothing of it is visible before.

        Idempotent: the same bytes under the same name again is a success. Other bytes raise ObjectExists, and what was
        there stays.
        """
        ...

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """Store this in the place of what is there, which is damaged: for repairs, and for nothing else. As durable and
        atomic as `put`.
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
