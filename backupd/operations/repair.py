"""`backupd repair`: good objects in the place of damaged and missing ones, from copies and from a bucket's versions.

Names say what the bytes of nearly all objects must be, so no key is needed to find damage, or to trust what is put in
the place of it. A key is needed for one thing: the index tells which packs must be there. Other objects that were
removed, such as snapshots, nobody can miss; they are brought back where it is asked for, since somebody may have meant
to remove them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from backupd.errors import (
    BackupdError,
    ConfigError,
    Damaged,
    Interrupted,
    NoRepository,
    ObjectMissing,
    StorageDenied,
    UsageError,
    WrongKey,
)
from backupd.operations import record
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.operations.state import State
from backupd.repository import mending, names, slots
from backupd.repository.description import described
from backupd.repository.repository import Repository
from backupd.storage.base import ObjectInfo, Storage, Version
from backupd.storage.parallel import in_order

THREADS = 4
"""Each may hold an object: a pack of about 32 MiB."""

Why = Literal["damaged", "missing", "removed"]


class Mended(msgspec.Struct, frozen=True):
    """An object that was put back. source: the copy's address, or the repository's own for a version of it there."""

    object: str
    why: Why
    source: str


class Lost(msgspec.Struct, frozen=True):
    """An object for which nothing good was found."""

    object: str
    why: Why


class RepairReport(msgspec.Struct, frozen=True):
    """What a repair did, or would do.

    objects, octets: that were read and compared with their names. mended: what was put back. lost: what was not.
    notes: what could not be looked for, and why.
    """

    repository: str
    dry_run: bool
    objects: int
    octets: int
    mended: list[Mended]
    lost: list[Lost]
    notes: list[str]


def repair(
    storage: Storage,
    copies: Sequence[Storage],
    open_repository: Callable[[], Repository],
    *,
    removed_since: datetime | None = None,
    quick: bool = False,
    dry_run: bool = False,
    state: State | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> RepairReport:
    """Look for damage, and mend it.

    Args:
        removed_since: bring back what was removed from the bucket at this time or later, and whatever else a copy has
            and the repository does not; None leaves removed what is removed.
        state: knows the signed record; None: it is read.
        quick: read no pack, index or snapshot; packs that are missing are found, and those of a wrong size.

    Raises NoRepository, UsageError where a copy is another repository's, Interrupted (what was put back stays), and
    errors of the storage that stop everything.
    """
    report = _Repair(storage, copies, dry_run, observer, stop or threading.Event()).run(
        open_repository, removed_since, quick=quick
    )
    told = (names.SNAPSHOTS, names.HOLDS, names.ERASURES)
    back = [each.object for each in report.mended if each.object.startswith(told)]
    if not back or dry_run:
        return report
    try:
        with open_repository() as repository:
            record.brought_back(repository, state, clock(), "repair", back)
    except (WrongKey, ConfigError, Damaged, StorageDenied) as error:
        note = f"the signed record does not tell what was put back: {error.what}; `backupd record accept` tells it"
        report.notes.append(note)
    return report


class _Repair:
    """One repair, while it lasts."""

    def __init__(
        self, storage: Storage, copies: Sequence[Storage], dry_run: bool, observer: Observer, stop: threading.Event
    ) -> None:
        self._storage, self._copies, self._dry_run = storage, copies, dry_run
        self._observer, self._stop = observer, stop
        self._there: dict[str, int] = {}
        self._versions: dict[str, list[Version]] = {}
        self._done: set[str] = set()
        self._objects = self._octets = 0
        self._mended: list[Mended] = []
        self._lost: list[Lost] = []
        self._notes: list[str] = []

    def run(
        self, open_repository: Callable[[], Repository], removed_since: datetime | None, *, quick: bool
    ) -> RepairReport:
        self._there = {info.name: info.size for info in _listed(self._storage)}
        if not self._there and removed_since is None:
            raise NoRepository(
                "there is no repository here",
                subject=self._storage.url,
                remedy="--removed-since TIME brings back one that was removed; or use a copy: --copy 1",
            )
        self._settle_description()
        self._settle_keys()
        if removed_since:
            # In the order in which they refer to each other, so that at any moment what is there is of use.
            self._mend(sorted(self._removed(removed_since), key=_stage), "removed")
        if not quick:
            self._mend(sorted(self._damaged(), key=_stage), "damaged")
        before = len(self._mended)
        self._mend(self._missing(open_repository), "missing")
        if len(self._mended) > before and not self._dry_run:
            self._missing(open_repository)  # what is there again is reckoned with again
        return RepairReport(
            repository=self._storage.url,
            dry_run=self._dry_run,
            objects=self._objects,
            octets=self._octets,
            mended=self._mended,
            lost=self._lost,
            notes=self._notes,
        )

    # What is amiss

    def _settle_description(self) -> None:
        """repository.json comes first: without it there is nothing, and it tells whose copies the copies are."""
        name = names.DESCRIPTION
        if name not in self._there:
            self._mend([name], "missing")
        elif self._bad_for_ever(name):
            self._mend([name], "damaged")
        ours = next(self._old(name), None) or _got(self._storage, name)
        for copy in self._copies:
            theirs = _got(copy, name)
            if ours is not None and theirs not in (None, ours):
                raise UsageError("this is a copy of another repository", subject=copy.url, remedy="check copies:")

    def _settle_keys(self) -> None:
        slots = [name for name in self._there if name.startswith(names.KEYS)]
        self._mend([name for name in slots if self._bad_for_ever(name)], "damaged")
        if slots:
            return
        # There is always one. Those of copies too, though some of them may have been removed on purpose.
        wanted = {each.name for each in self._all_versions(names.KEYS) if each.latest and each.removal}
        wanted.update(info.name for copy in self._copies for info in copy.list(names.KEYS))
        self._mend(sorted(wanted), "missing")

    def _bad_for_ever(self, name: str) -> bool:
        """Of the description and key slots, whose names prove nothing: whether this one makes no sense, or is not the
        first that the bucket has of this name. None is ever replaced.
        """
        if self._bad(name):
            return True
        first = next(self._old(name), None)
        return first is not None and first != self._storage.get(name)

    def _removed(self, since: datetime) -> set[str]:
        """Names of what was removed since then, as far as versions or copies tell."""
        wanted: set[str] = set()
        earlier: set[str] = set()
        for version in self._all_versions():
            self._go_on()
            if version.name not in self._there and version.latest and version.removal:
                (wanted if version.stored >= since.timestamp() else earlier).add(version.name)
            elif version.name in wanted and not version.removal:
                self._versions.setdefault(version.name, []).append(version)
        for copy in self._copies:
            for info in _listed(copy):
                # When it was removed is told by versions only. That a key slot was, is most often meant.
                if info.name not in self._there and info.name not in earlier and not info.name.startswith(names.KEYS):
                    wanted.add(info.name)
        return wanted

    def _all_versions(self, prefix: str = "") -> Iterator[Version]:
        if self._storage.versions is None:
            return
        try:
            for version in self._storage.versions.list(prefix):
                if version.name.startswith(names.ALL):
                    yield version
        except StorageDenied as error:
            note = f"versions could not be looked at: {error.what}"
            if note not in self._notes:
                self._notes.append(note)

    def _damaged(self) -> list[str]:
        """Names of what is there and is not what it should be."""
        self._observer(Plan(self._storage.url, len(self._there), sum(self._there.values())))
        damaged = []
        for name, bad in in_order(self._bad, list(self._there), threads=THREADS):
            self._go_on()
            if bad:
                damaged.append(name)
            self._objects += 1
            self._octets += self._there[name]
            self._observer(Advance(self._storage.url, name, 1, self._there[name]))
        return damaged

    def _bad(self, name: str) -> bool:
        try:
            return not _is_good(name, self._storage.get(name))
        except Damaged:
            return True
        except ObjectMissing:  # removed since it was listed
            return False

    def _missing(self, open_repository: Callable[[], Repository]) -> list[str]:
        """Names of packs that the index wants and that are not there, or not of their size."""
        try:
            with open_repository() as repository:
                lost = mending.examine(repository).lost
                unread = set(repository.damaged_indexes) - self._done
                self._notes += [f"{name} cannot be read" for name in sorted(unread)]
        except (WrongKey, ConfigError, NoRepository, Damaged) as error:
            self._notes.append(f"packs that are missing were not looked for, which needs the index: {error.what}")
            return []
        return sorted({names.pack(pack.hex()) for pack, _ in lost})

    # What is put in its place

    def _mend(self, wanted: Iterable[str], why: Why) -> None:
        def find(name: str) -> tuple[str, bytes] | None:
            return next(self._good(name), None)

        for name, found in in_order(find, [each for each in wanted if each not in self._done], threads=THREADS):
            self._go_on()
            self._done.add(name)
            if found is None:
                self._lost.append(Lost(name, why))
                continue
            source, data = found
            if not self._dry_run:
                store = self._storage.replace if name in self._there else self._storage.put
                store(name, [data])
                self._there[name] = len(data)
            self._mended.append(Mended(name, why, source))
            self._versions.pop(name, None)

    def _good(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Good bytes for an object, and where they are from."""
        for copy in self._copies:
            data = _got(copy, name)
            if data is not None:
                yield copy.url, data
        for data in self._old(name):
            yield self._storage.url, data

    def _old(self, name: str) -> Iterator[bytes]:
        """Good bytes for an object that the bucket has kept, the oldest first: nothing is ever replaced on purpose."""
        versions = self._versions.get(name) or [each for each in self._all_versions(name) if each.name == name]
        for version in reversed(versions):
            if version.removal or self._storage.versions is None:
                continue
            try:
                data = self._storage.versions.get(version)
            except (ObjectMissing, Damaged):
                continue
            if _is_good(name, data):
                yield data

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._storage.url, remedy="what was put back stays; run it again")


def _stage(name: str) -> int:
    order = (
        names.DESCRIPTION, names.KEYS, names.HOLDS, names.LOG, names.PACKS, names.INDEX, names.ERASURES, names.SNAPSHOTS
    )  # fmt: skip
    return next(place for place, prefix in enumerate(order) if name.startswith(prefix))


def _listed(copy: Storage) -> Iterator[ObjectInfo]:
    return (info for info in copy.list() if info.name.startswith(names.ALL))


def _got(storage: Storage, name: str) -> bytes | None:
    """The object's bytes, if they are good."""
    try:
        data = storage.get(name)
    except (ObjectMissing, Damaged):
        return None
    return data if _is_good(name, data) else None


def _is_good(name: str, data: bytes) -> bool:
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
