"""Damaged objects that are superfluous by now, because all that they held is somewhere else: they are taken out.

What can be read of a damaged pack is moved to a new one first. A pack goes when each of its blobs is in a good pack, or
when every snapshot can be read and restored without it; an index object goes when all packs are told of by others. An
index that tells of packs which go is told anew without them. So nothing that anybody could need is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from backupd.errors import Damaged, ObjectExists, ObjectMissing, StorageDenied
from backupd.operations.messages import MessageStore
from backupd.operations.repair_objects import is_good, read
from backupd.repository import index, marks, mending, names
from backupd.repository.index import PackEntry
from backupd.repository.repository import Repository
from backupd.storage.base import Storage


class Retirement:
    """Takes out what is superfluous.

    Args:
        storage: the repository's.
        whole: every snapshot can be read, and all that it refers to is there without any damaged object.

    notes: what could not be removed, and why.
    """

    def __init__(self, repository: Repository, storage: Storage, *, whole: bool) -> None:
        self._repository, self._storage, self._whole = repository, storage, whole
        self._join = MessageStore(repository).identify
        self.notes: list[str] = []

    def packs(self, bad: Collection[str]) -> list[str]:
        """Those of these packs, damaged or missing, that are no concern any more: nothing refers to them, or they are
        themselves again."""
        healed = [name for name in sorted(bad) if self._is_mended(name)]
        bad = [name for name in sorted(bad) if name not in healed]
        marked = {name for name in marks.objects(marks.read(self._storage)) if name.startswith(names.PACKS)}
        unusable = {_digest(name) for name in {*bad, *marked}}
        told: dict[bytes, list[PackEntry]] = {_digest(name): [] for name in bad}
        for entry in (entry for _, every in self._told() for entry in every if entry.name in told):
            told[entry.name].append(entry)
        superfluous: list[str] = []
        for name in bad:
            data = read(self._storage, name) or b""
            if self._whole or self._is_elsewhere(name, data, told[_digest(name)], unusable):
                try:
                    mending.salvage(self._repository, name, data, unusable, self._join)
                except ObjectExists:
                    continue
                # What had octets too many, and nothing else, is itself again.
                (healed if self._is_mended(name) else superfluous).append(name)
        if superfluous and self._tell_anew({_digest(name) for name in superfluous}):
            return [*healed, *(name for name in superfluous if self._remove(name))]
        return healed

    def foreseen(self, bad: Collection[str]) -> list[str]:
        """Those of these packs that `packs` would find to be no concern any more, as far as that can be told before
        anything is fetched or moved. Changes nothing."""
        unusable = {_digest(name) for name in bad}
        told: dict[bytes, list[PackEntry]] = {digest: [] for digest in unusable}
        for entry in (entry for _, every in self._told() for entry in every if entry.name in told):
            told[entry.name].append(entry)
        return [
            name
            for name in sorted(bad)
            if self._whole
            or self._is_elsewhere(name, read(self._storage, name) or b"", told[_digest(name)], unusable)
        ]

    def indexes(self, damaged: Collection[str]) -> list[str]:
        """Those of these index objects that are removed: all packs that are there are told of by others."""
        return [name for name in damaged if not self._is_mended(name) and self._remove(name)]

    def _is_mended(self, name: str) -> bool:
        """Whether it has been put back since it was found damaged."""
        data = read(self._storage, name)
        return data is not None and is_good(name, data)

    def _is_elsewhere(
        self, name: str, data: bytes, entries: Collection[PackEntry], unusable: Collection[bytes]
    ) -> bool:
        """Whether an index tells what was in a pack, and each blob of it is in another one, or can be moved."""
        if not entries:
            return False
        found, movable = self._repository.index, mending.readable(self._repository, name, data, self._join)
        ids = (entry.ids[at : at + 32] for entry in entries for at in range(0, len(entry.ids), 32))
        return all(each in movable or any(home not in unusable for home, _ in found.homes(each)) for each in ids)

    def _told(self) -> Iterator[tuple[str, list[PackEntry]]]:
        for info in list(self._storage.list(names.INDEX)):
            try:
                yield info.name, index.unseal(self._storage.get(info.name), self._repository.secrets, info.name)
            except (Damaged, ObjectMissing):
                continue

    def _tell_anew(self, packs: Collection[bytes]) -> bool:
        """Store the index without these packs; False if the objects that tell of them may not be removed."""
        for name, entries in self._told():
            staying = [entry for entry in entries if entry.name not in packs]
            if len(staying) < len(entries):
                if staying:
                    self._repository.add_index(staying)
                if not self._remove(name):
                    return False
        return True

    def _remove(self, name: str) -> bool:
        try:
            self._storage.delete(name)
        except StorageDenied as error:
            self.notes.append(f"{name} is superfluous, and these credentials may not remove it: {error.what}")
            return False
        return True


def _digest(name: str) -> bytes:
    return bytes.fromhex(name.rpartition("/")[2])
