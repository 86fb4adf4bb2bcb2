"""Stored objects compared with their names, which needs no key; and what else of an object's bytes can be told without
one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from backupd.errors import BackupdError, Damaged, ObjectMissing, StorageError, StorageUnavailable
from backupd.operations.audit_report import Finding, Level, Severity
from backupd.repository import names, slots
from backupd.repository.description import described
from backupd.storage.base import ObjectInfo, Storage

THREADS = 4
_ROOM_OCTETS = 64 << 20
_MOST_ASKED = 200
"""Questions to copies; each is a request in a bucket."""


class Room:
    """Room in memory that threads share: one object always fits, others only as far as there is room."""

    def __init__(self, octets: int = _ROOM_OCTETS) -> None:
        self._octets, self._held = octets, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, octets: int) -> Iterator[None]:
        """Wait for so much room, and hold it for a while."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + octets <= self._octets)
            self._held += octets
        try:
            yield
        finally:
            with self._changed:
                self._held -= octets
                self._changed.notify_all()


class Read(NamedTuple):
    """An object that was read. data: None where it could not be. good: whether the bytes may be those of the name; for
    packs, indexes and snapshots, whether they are. gone: removed since it was listed. what: why it is not good."""

    name: str
    data: bytes | None
    good: bool
    gone: bool = False
    what: str = ""


def read(storage: Storage, name: str) -> Read:
    """Read an object and judge its bytes. Raises StorageUnavailable where a service cannot be reached at all."""
    try:
        data = storage.get(name)
    except ObjectMissing:
        return Read(name, None, good=False, gone=True)
    except StorageUnavailable as error:
        if storage.requests is not None:
            raise
        return Read(name, None, good=False, what=f"it cannot be read: {error.what}")  # a sector of a disk
    except (StorageError, Damaged) as error:
        return Read(name, None, good=False, what=f"it cannot be read: {error.what}")
    what = _amiss(name, data)
    return Read(name, data, good=not what, what=what)


def _amiss(name: str, data: bytes) -> str:
    """What is wrong with the bytes of an object; empty for nothing that can be told without a key."""
    proved = names.proves(name, [data])
    if proved is not None:
        return "" if proved else "its bytes are not what its name promises"
    try:
        if name == names.DESCRIPTION:
            described(data, name)
        elif name.startswith(names.KEYS):
            label = slots.parse(data, name).label
            if not name.startswith(f"{names.KEYS}{label}-"):
                return f"it is the key slot {label!r} under another's name"
        else:
            return "no object of a repository has such a name"
    except BackupdError as error:
        return error.what
    return ""


class Copies:
    """Copies of the repository, asked whether they have what is damaged here. One that cannot be reached is not asked
    again, and none is asked about everything."""

    def __init__(self, storages: Sequence[Storage] = ()) -> None:
        self._storages = list(storages)
        self._any = bool(storages)
        self._left = _MOST_ASKED

    def finding(self, name: str, what: str) -> Finding:
        """An object that is not what it should be, and who has one of its name."""
        if name.startswith(names.ALL):
            return Finding(Severity.CRITICAL, Level.STORAGE, name, what, self._remedy(name))
        remedy = "it marks nothing, and harms nothing: remove it"
        if name.startswith(names.PARITY):
            remedy = "`backupd repair` makes it anew, where repository.parity is set"
        return Finding(Severity.WARNING, Level.STORAGE, name, what, remedy)

    def _remedy(self, name: str) -> str:
        if holding := self._holding(name):
            return f"`backupd repair` can take it from {', '.join(holding)}, if it is whole there"
        where = "no copy is known to have it" if self._any else "no copy is configured"
        return f"{where}; `backupd repair` looks for versions, for parity, and for the mail on its server"

    def _holding(self, name: str) -> list[str]:
        holding = []
        for storage in list(self._storages) if self._left > 0 else ():
            self._left -= 1
            try:
                storage.size(name)
                holding.append(storage.url)
            except ObjectMissing:
                continue
            except (StorageError, Damaged):
                self._storages.remove(storage)
        return holding


def strangers(there: Mapping[str, ObjectInfo]) -> list[str]:
    """Names below the repository's folders that no object of it has."""
    plain = (names.DESCRIPTION, names.KEYS)
    return [name for name in there if not name.startswith(plain) and names.proves(name, [b""]) is None]
