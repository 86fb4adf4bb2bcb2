"""`backupd repair`: good objects in the place of damaged and missing ones; lost messages from where they came from; and
an exact account of what stays lost.

Names say what the bytes of nearly all objects must be, so no key is needed to find damage, or to trust what is put in
the place of it: copies, versions and parity are enough (repair_objects.py). A key tells what of the mail is concerned,
and then messages can be fetched again from the server (repair_mail.py). Objects that were removed, such as snapshots,
nobody can miss; they are brought back where it is asked for, since somebody may have meant to remove them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from backupd.errors import ConfigError, Damaged, Interrupted, NoRepository, StorageDenied, UsageError, WrongKey
from backupd.operations import record
from backupd.operations.audit_source import Servers
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.operations.repair_mail import MailRepair
from backupd.operations.repair_objects import GoodObjects, got, is_good, listed, read
from backupd.operations.repair_parity import ParityRepair
from backupd.operations.repair_preview import Preview
from backupd.operations.repair_report import PACKS, SERVER, Lost, Mended, RepairReport, Why, concerned
from backupd.operations.repair_retire import Retirement
from backupd.operations.state import State
from backupd.repository import mending, names
from backupd.repository.repository import Repository
from backupd.storage.base import Storage
from backupd.storage.parallel import in_order

__all__ = ["RepairReport", "repair"]

THREADS = 4
"""Each may hold an object: a pack of about 32 MiB."""
_UNDER_WAY_SECONDS = 1800.0
"""Where packs have times, those that are younger may be about to be indexed by a running backup."""


def repair(
    storage: Storage,
    copies: Sequence[Storage],
    open_repository: Callable[[Storage], Repository],
    *,
    accounts: Sequence[str] = (),
    servers: Servers | None = None,
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
        open_repository: opens what is in the storage it is given, which in a dry run is not the first argument.
        accounts: the configured ones.
        servers: how their mail servers are reached; None: they are not asked.
        removed_since: bring back what was removed from the bucket at this time or later, and whatever else a copy has
            and the repository does not; None leaves removed what is removed.
        state: knows the signed record; None: it is read.
        quick: read no pack, index or snapshot; packs that are missing are found, and those of a wrong size.

    Raises NoRepository, UsageError where a copy is another repository's, Interrupted (what was put back stays), and
    errors of the storage that stop everything.
    """
    with ExitStack() as stack:
        one = _Repair(storage, copies, dry_run, observer, stop or threading.Event(), clock)
        report = one.run(open_repository, accounts, servers, removed_since, stack, quick=quick)
    told = (names.SNAPSHOTS, names.HOLDS, names.ERASURES)
    back = [each.object for each in report.mended if each.object.startswith(told)]
    if not back or dry_run:
        return report
    try:
        with open_repository(storage) as repository:
            record.brought_back(repository, state, clock(), "repair", back)
    except (WrongKey, ConfigError, Damaged, StorageDenied) as error:
        note = f"the signed record does not tell what was put back: {error.what}; `backupd record accept` tells it"
        report.notes.append(note)
    return report


class _Repair:
    """One repair, while it lasts."""

    def __init__(
        self,
        storage: Storage,
        copies: Sequence[Storage],
        dry_run: bool,
        observer: Observer,
        stop: threading.Event,
        clock: Callable[[], datetime],
    ) -> None:
        self._storage, self._copies, self._dry_run = storage, copies, dry_run
        self._observer, self._stop, self._clock = observer, stop, clock
        self._good = GoodObjects(storage, copies)
        self._parity = ParityRepair(storage, dry_run=dry_run)
        self._there: dict[str, int] = {}
        self._planned: dict[str, int] = {}
        self._done: set[str] = set()
        self._opened: bool | None = True
        self._objects = self._octets = self._made = 0
        self._mended: list[Mended] = []
        self._lost: list[Lost] = []
        self._notes: list[str] = []

    def run(
        self,
        open_repository: Callable[[Storage], Repository],
        accounts: Sequence[str],
        servers: Servers | None,
        removed_since: datetime | None,
        stack: ExitStack,
        *,
        quick: bool,
    ) -> RepairReport:
        self._there = {info.name: info.size for info in listed(self._storage)}
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
        repository = self._open(open_repository, stack)
        mail = None
        if repository:
            self._mend_missing(repository)
            if not quick or self._lost or repository.damaged_indexes:
                mail = self._mend_mail(repository, accounts, servers)
        if mail and mail.is_whole and not self._lost and not self._dry_run:
            self._sweep_parity()
        return RepairReport(
            repository=self._storage.url,
            dry_run=self._dry_run,
            objects=self._objects,
            octets=self._octets,
            mended=self._mended,
            lost=self._lost,
            parity=self._made,
            indexed=mail.indexed if mail else 0,
            damaged=mail.damaged if mail else 0 if repository else None,
            opened=self._opened,
            fetched=mail.fetched if mail else [],
            affected=mail.affected if mail else [],
            affected_more=mail.more if mail else 0,
            concerned=concerned(self._lost, mail.affected if mail else ()),
            notes=[*self._notes, *self._good.notes, *(mail.notes if mail else ())],
        )

    # What is amiss

    def _settle_description(self) -> None:
        """repository.json comes first: without it there is nothing, and it tells whose copies the copies are."""
        name = names.DESCRIPTION
        if name not in self._there:
            self._mend([name], "missing")
        elif self._good.is_bad_for_ever(name):
            self._mend([name], "damaged")
        ours = next(self._good.versions_of(name), None) or got(self._storage, name)
        for copy in self._copies:
            theirs = got(copy, name)
            if ours is not None and theirs not in (None, ours):
                raise UsageError("this is a copy of another repository", subject=copy.url, remedy="check copies:")

    def _settle_keys(self) -> None:
        slots = [name for name in self._there if name.startswith(names.KEYS)]
        self._mend([name for name in slots if self._good.is_bad_for_ever(name)], "damaged")
        if slots:
            return
        # There is always one. Those of copies too, though some of them may have been removed on purpose.
        wanted = {each.name for each in self._good.all_versions(names.KEYS) if each.latest and each.removal}
        wanted.update(info.name for copy in self._copies for info in copy.list(names.KEYS))
        wanted.update(self._orphans(names.KEYS))
        self._mend(sorted(wanted), "missing")

    def _orphans(self, prefix: str = "") -> list[str]:
        """Names of objects that are not there, and that their parity gives."""
        whose = (info.name.removeprefix(names.PARITY) for info in self._storage.list(names.parity(prefix)))
        return [name for name in whose if name not in self._there and self._good.by_parity(name) is not None]

    def _removed(self, since: datetime) -> set[str]:
        """Names of what was removed since then, as far as versions, copies or parity tell."""
        wanted: set[str] = set()
        earlier: set[str] = set()
        for version in self._good.all_versions():
            self._go_on()
            if version.name not in self._there and version.latest and version.removal:
                (wanted if version.stored >= since.timestamp() else earlier).add(version.name)
            elif version.name in wanted and not version.removal:
                self._good.remember(version)
        # When it was removed is told by versions only. That a key slot was, is most often meant.
        others = [info.name for copy in self._copies for info in listed(copy)] + self._orphans()
        unknown = (name for name in others if name not in self._there and not name.startswith(names.KEYS))
        return wanted.union(name for name in unknown if name not in earlier)

    def _damaged(self) -> list[str]:
        """Names of what is there and is not what it should be. What is good gets parity, where that is wanted."""
        self._observer(Plan(self._storage.url, len(self._there), sum(self._there.values())))
        damaged = []
        for name, (bad, made) in in_order(self._look, list(self._there), threads=THREADS):
            self._go_on()
            if bad:
                damaged.append(name)
            self._made += made
            self._objects += 1
            self._octets += self._there[name]
            self._observer(Advance(self._storage.url, name, 1, self._there[name]))
        return damaged

    def _look(self, name: str) -> tuple[bool, bool]:
        """Whether an object is bad, and whether parity was made of it."""
        data = read(self._storage, name)
        if data is None:
            there = any(info.name == name for info in self._storage.list(name))
            return there, False  # or removed since it was listed
        if not is_good(name, data):
            return True, False
        return False, name not in self._done and self._parity.see_to(name, data)

    def _open(self, open_repository: Callable[[Storage], Repository], stack: ExitStack) -> Repository | None:
        storage: Storage = self._storage
        if self._dry_run:
            storage = Preview(storage, self._planned, self._bytes)
        try:
            return stack.enter_context(open_repository(storage))
        except (WrongKey, ConfigError, NoRepository, Damaged) as error:
            self._opened = None if isinstance(error, ConfigError) else False
            self._notes.append(
                f"which mail is concerned, and which packs are missing, was not looked for, for that needs the index: "
                f"{error.what}"
            )
            return None

    def _bytes(self, name: str) -> bytes | None:
        found = self._good.find(name)
        return found[1] if found else None

    def _mend_missing(self, repository: Repository) -> None:
        """Packs that the index wants and that are not there, or not of their size."""
        before = len(self._mended)
        self._mend(sorted({names.pack(pack.hex()) for pack, _ in mending.examine(repository).lost}), "missing")
        if len(self._mended) > before:
            mending.examine(repository)  # what is there again is reckoned with again

    # What is put in its place

    def _mend(self, wanted: Iterable[str], why: Why) -> None:
        left = [each for each in wanted if each not in self._done]
        for name, found in in_order(self._good.find, left, threads=THREADS):
            self._go_on()
            self._done.add(name)
            if found is None:
                self._lost.append(Lost(name, why))
                continue
            source, data = found
            if self._dry_run:
                self._planned[name] = len(data)
            else:
                store = self._storage.replace if name in self._there else self._storage.put
                store(name, [data])
                self._there[name] = len(data)
            self._mended.append(Mended(name, why, source))
            self._good.forget(name)

    def _mend_mail(self, repository: Repository, accounts: Sequence[str], servers: Servers | None) -> MailRepair:
        """What a key can do for what nothing good was found for."""
        before = self._clock().timestamp() - _UNDER_WAY_SECONDS if self._storage.requests else None
        mail = MailRepair(
            repository, accounts, servers, self._observer, self._stop, dry_run=self._dry_run, stored_before=before
        )
        packs = [each.object for each in self._lost if each.object.startswith(names.PACKS)]
        mail.run([each.object for each in self._lost])
        indexes = [each.object for each in self._lost if each.object.startswith(names.INDEX)]
        indexes = list(dict.fromkeys([*indexes, *(repository.damaged_indexes if not self._dry_run else ())]))
        retirement = Retirement(repository, self._storage, whole=mail.is_whole)
        if self._dry_run:
            gone = retirement.foreseen(packs) if packs else []
            told = [] if mail.unindexed else indexes
        else:
            gone = retirement.packs(packs) if packs else []
            told = retirement.indexes(indexes) if not mail.unindexed else []
            self._notes += retirement.notes
            if gone or told:
                mending.examine(repository)
        made_up = {**dict.fromkeys(gone, SERVER if mail.fetched else PACKS), **dict.fromkeys(told, PACKS)}
        whys = {each.object: each.why for each in self._lost}
        self._mended += [Mended(name, whys.get(name, "damaged"), source) for name, source in made_up.items()]
        tags = {repository.secrets.account_tag(account): account for account in accounts}
        self._lost = [_with_account(each, tags) for each in self._lost if each.object not in made_up]
        return mail

    def _sweep_parity(self) -> None:
        """Nothing is lost, so what is gone is gone on purpose, and so may its parity be."""
        left = self._parity.left_behind(info.name for info in listed(self._storage))
        try:
            for name in left:
                self._storage.delete(name)
        except StorageDenied as error:
            self._notes.append(f"parity of objects that are gone may not be removed by these credentials: {error.what}")
        else:
            if left:
                self._notes.append(f"parity of objects that are gone was removed: {len(left):,}")

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._storage.url, remedy="what was put back stays; run it again")


def _with_account(lost: Lost, tags: Mapping[str, str]) -> Lost:
    found = names.parse_snapshot(lost.object)
    return Lost(lost.object, lost.why, tags.get(found[0], "")) if found else lost


def _stage(name: str) -> int:
    order = (
        names.DESCRIPTION, names.KEYS, names.HOLDS, names.LOG, names.PACKS, names.INDEX, names.ERASURES, names.SNAPSHOTS
    )  # fmt: skip
    return next(place for place, prefix in enumerate(order) if name.startswith(prefix))
