"""The archive itself in an audit: metadata, and bytes and content as far as key and level go. Asks no server."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from backupd.errors import Damaged
from backupd.operations.audit_bytes import Objects
from backupd.operations.audit_memory import Memory
from backupd.operations.audit_objects import Copies
from backupd.operations.audit_packs import Damage, PackAudit
from backupd.operations.audit_report import Affected, Checked, Finding, Level, Severity, Wish
from backupd.operations.audit_snapshots import SnapshotAudit, summed_up
from backupd.operations.events import Observer, Plan, ignore
from backupd.operations.messages import MessageStore
from backupd.repository import holds, mending, names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef

_UNDER_WAY = timedelta(minutes=30)
"""A run that stores packs indexes them with its next checkpoint, minutes later."""

Refs = Mapping[str, list[SnapshotRef]]
"""Snapshots by account, the oldest first."""


class ArchiveAudit:
    """One look at an archive.

    Args:
        refs: snapshots by account. They were listed before the index was read, and that before the packs.
        unindexed: packs that no index describes.
    """

    def __init__(
        self,
        repository: Repository,
        wish: Wish,
        objects: Objects,
        refs: Refs,
        unindexed: set[str],
        copies: Copies,
        memory: Memory,
        observer: Observer,
        stop: threading.Event,
        now: datetime,
    ) -> None:
        self._repository, self._wish, self._objects, self._refs = repository, wish, objects, refs
        self._unindexed, self._copies, self._memory = unindexed, copies, memory
        self._observer, self._stop, self._now = observer, stop, now
        self.damage = Damage()
        self.snapshots = self._walk_of(self.damage, unsure=False)
        self.affected: list[Affected] = []
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Look. Raises Interrupted, and errors of the storage that stop everything."""
        repository, objects = self._repository, self._objects
        role, level = repository.secrets.role, self._wish.level
        repository.erased.look()
        share = objects.share(level, role, self._packs() if self._wish.alone else None, self._wish.budget)
        sizes = [objects.there[name].size for name in share]
        self._observer(Plan(repository.storage.url, len(sizes), sum(sizes)))
        packs = PackAudit(
            repository, objects.there, share, level, self._copies, self._memory, self._observer, self._stop
        )
        self.damage = packs.damage
        packs.run()
        if repository.index.lost() and not (level.includes(Level.CONTENT) and objects.packs <= share):
            packs.rescan()
        self._walk(unsure=bool(self._unindexed) and role is not Role.READER)
        if self.snapshots.is_harmed and self._unindexed and role is Role.READER:
            # As a restore does: what no index tells of, the packs themselves do.
            mending.adopt(repository, tuple(self._unindexed), MessageStore(repository).identify, store=False)
            packs.damage.unjoined.clear()
            packs.rescan()
            self._walk(unsure=False)
        packs.judge_missing()
        if undescribed := {name for name in self._unindexed - packs.described if self._is_left(name)}:
            some = f"{len(undescribed):,} packs are" if len(undescribed) > 1 else "1 pack is"
            what = f"{some} described by no index object: a backup was killed, or an index object is lost"
            remedy = "the next backup with a reader's key indexes them"
            self.findings.append(Finding(Severity.WARNING, Level.METADATA, repository.storage.url, what, remedy))
        self._holds()
        self._erasures()
        if level.includes(Level.STORAGE):
            objects.prove(objects.small | (share - packs.described))
        self.affected = self.snapshots.affected()
        self.findings += packs.damage.findings + self.snapshots.findings
        self.findings += summed_up(self.affected, self.snapshots.more)

    def checked(self, others: Checked) -> Checked:
        """What was looked at, others included."""
        return Checked(
            snapshots=self.snapshots.read,
            references=self.damage.references + self.snapshots.references,
            objects=self.damage.objects + self.snapshots.objects + others.objects,
            octets=self.damage.octets + self.snapshots.octets + others.octets,
            joined=self.damage.joined,
        )

    def _holds(self) -> None:
        """What must not be forgotten, and what people said of losses: whether it can be read."""
        try:
            holds.read(self._repository)
        except Damaged as error:
            remedy = "nothing can be forgotten meanwhile; `backupd repair` looks for a good one"
            self.findings.append(Finding(Severity.CRITICAL, Level.METADATA, error.subject, error.what, remedy))

    def _erasures(self) -> None:
        """What was erased is not damaged, and is told; an erasure that cannot be read is damage."""
        erased = self._repository.erased.now
        for name in erased.damaged:
            what = "an erasure cannot be read: what it names may be stored again, and be missed where it is not"
            remedy = self._copies.finding(name, what).remedy
            self.findings.append(Finding(Severity.CRITICAL, Level.METADATA, name, what, remedy))
        if self.snapshots.erased:
            last = max((erased.messages[each] for each in self.snapshots.erased), key=lambda gone: gone.created)
            count = len(self.snapshots.erased)
            messages = "1 message was" if count == 1 else f"{count:,} messages were"
            what = f"{messages} taken out of these snapshots, the last {last}"
            self.findings.append(Finding(Severity.NOTE, Level.METADATA, self._repository.storage.url, what))

    def _is_left(self, pack: str) -> bool:
        """Whether a pack is so old that no running backup is about to index it."""
        info = self._objects.there.get(pack)
        young = (self._now - _UNDER_WAY).timestamp()
        return info is not None and (info.modified is None or info.modified <= young)

    def _walk_of(self, damage: Damage, *, unsure: bool) -> SnapshotAudit:
        return SnapshotAudit(
            self._repository, damage, self._copies, self._memory, self._observer, self._stop, unsure=unsure
        )

    def _walk(self, *, unsure: bool) -> None:
        self.snapshots = self._walk_of(self.damage, unsure=unsure)
        for account, some in self._refs.items():
            self.snapshots.account(account, self._of_time(some))

    def _of_time(self, refs: list[SnapshotRef]) -> list[SnapshotRef]:
        return [ref for ref in refs if self._wish.since is None or ref.time >= self._wish.since]

    def _packs(self) -> set[str]:
        """Names of the packs that hold what these snapshots refer to."""
        repository, found = self._repository, set[str]()

        def note(blobs: Iterable[bytes]) -> None:
            places = (repository.index.find(blob) for blob in blobs)
            found.update(names.pack(place.pack.hex()) for place in places if place)

        unheard = Memory(None, repository.storage.url)
        walk = SnapshotAudit(repository, Damage(), Copies(), unheard, ignore, self._stop, on_blobs=note)
        for account, some in self._refs.items():
            walk.account(account, self._of_time(some))
        return found
