"""Good bytes for an object that is damaged or missing: from copies, from versions that a bucket kept, from parity.

Nothing is believed: what is found is compared with the object's name, or with what else is known of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from backupd.errors import BackupdError, ConfigError, Damaged, ObjectMissing, StorageDenied, StorageError
from backupd.operations.repair_report import PARITY
from backupd.repository import names, parity, slots
from backupd.repository.description import described
from backupd.storage.base import ObjectInfo, Storage, Version


class GoodObjects:
    """Where good bytes are looked for. Safe to use from several threads.

    notes: what could not be looked at, and why.
    """

    def __init__(self, storage: Storage, copies: Sequence[Storage]) -> None:
        self._storage, self._copies = storage, copies
        self._kept: dict[str, list[Version]] = {}
        self.notes: list[str] = []

    def find(self, name: str) -> tuple[str, bytes] | None:
        """Where good bytes are from, and they; None if there are none."""
        for copy in self._copies:
            data = got(copy, name)
            if data is not None:
                return copy.url, data
        for data in self.versions_of(name):
            return self._storage.url, data
        data = self.by_parity(name)
        return None if data is None else (PARITY, data)

    def remember(self, version: Version) -> None:
        """A version that was listed, so that it need not be listed again."""
        self._kept.setdefault(version.name, []).append(version)

    def forget(self, name: str) -> None:
        """It is put back."""
        self._kept.pop(name, None)

    def all_versions(self, prefix: str = "") -> Iterator[Version]:
        """What the bucket kept, of objects that a repository is made of."""
        if self._storage.versions is None:
            return
        try:
            for version in self._storage.versions.list(prefix):
                if version.name.startswith(names.ALL):
                    yield version
        except StorageDenied as error:
            self.note(f"versions could not be looked at: {error.what}")

    def versions_of(self, name: str) -> Iterator[bytes]:
        """Good bytes that the bucket has kept, the oldest first: nothing is ever replaced on purpose."""
        versions = self._kept.get(name) or [each for each in self.all_versions(name) if each.name == name]
        for version in reversed(versions):
            if version.removal or self._storage.versions is None:
                continue
            try:
                data = self._storage.versions.get(version)
            except (ObjectMissing, Damaged):
                continue
            if is_good(name, data):
                yield data

    def by_parity(self, name: str) -> bytes | None:
        """What the object's parity, and what is left of the object, give."""
        kept = read(self._storage, names.parity(name))
        if kept is None:
            return None
        try:
            data = parity.heal(read(self._storage, name) or b"", kept)
        except ConfigError as error:
            self.note(f"there is parity that could not be used: {error.what} ({error.remedy})")
            return None
        return data if data is not None and is_good(name, data) else None

    def is_bad_for_ever(self, name: str) -> bool:
        """Of the description and key slots, whose names prove nothing: whether this one makes no sense, or is not the
        first of this name that the bucket has, or the one that parity was made of. None is ever replaced.
        """
        data = got(self._storage, name)
        if data is None:
            return True
        first = next(self.versions_of(name), None)
        if first is not None:
            return first != data
        kept = read(self._storage, names.parity(name))
        stored = parity.whose(kept) if kept is not None else None
        return stored is not None and stored != hashlib.sha256(data).digest()

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)


def listed(storage: Storage) -> Iterator[ObjectInfo]:
    """All that a repository is made of."""
    return (info for info in storage.list() if info.name.startswith(names.ALL))


def read(storage: Storage, name: str) -> bytes | None:
    """An object's bytes, good or not; None where there are none to be had."""
    try:
        return storage.get(name)
    except (ObjectMissing, Damaged):
        return None
    except StorageError:
        if storage.requests is not None:
            raise
        return None  # a sector of a disk


def got(storage: Storage, name: str) -> bytes | None:
    """The object's bytes, if they are good."""
    data = read(storage, name)
    return data if data is not None and is_good(name, data) else None


def is_good(name: str, data: bytes) -> bool:
    """Whether the bytes may be those of the object; for a pack, an index or a snapshot, whether they are."""
    proved = names.proves(name, [data])
    if proved is not None:
        return proved
    try:
        if name == names.DESCRIPTION:
            described(data, name)
        elif name.startswith(names.KEYS):
            slots.parse(data, name)
    except BackupdError:
        return False
    return True
