"""The objects of an audit: what there is, which share of it is read this time, and what needs no key to be judged."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime

from backupd.operations import audit_objects, audit_record, audit_rotation
from backupd.operations.audit_memory import BYTES, CONTENT, Memory
from backupd.operations.audit_objects import THREADS, Copies, Room
from backupd.operations.audit_packs import interrupted
from backupd.operations.audit_report import Checked, Coverage, Finding, Level, Severity
from backupd.operations.audit_rotation import Item
from backupd.operations.counting import count
from backupd.operations.events import Advance, Observer
from backupd.repository import names, parity, slots
from backupd.repository.keys import Role
from backupd.repository.parity_storage import has_parity
from backupd.repository.snapshots import timestamp
from backupd.storage.base import ObjectInfo, Storage
from backupd.storage.parallel import in_order


class Objects:
    """All objects, as they are listed when this is made.

    Args:
        since: only objects of this time or later are read, where listings tell when an object was stored.
    """

    def __init__(
        self,
        storage: Storage,
        copies: Copies,
        memory: Memory,
        since: datetime | None,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self._storage, self._copies, self._memory = storage, copies, memory
        self._observer, self._stop = observer, stop
        self.findings: list[Finding] = []
        self.read = self.octets = 0
        listed = {info.name: info for info in storage.list()}
        ours = (*names.ALL, names.MARKS, names.NEEDS, names.PARITY)
        self.there: dict[str, ObjectInfo] = {name: info for name, info in listed.items() if name.startswith(ours)}
        after = since.timestamp() if since else 0.0
        self._young = {name for name, info in self.there.items() if since is None or (info.modified or after) >= after}
        self._kinds: dict[str, str] = {}
        self._order: list[int] = []
        others = len(listed) - len(self.there)
        for name in audit_objects.strangers(self.there):
            self._found(Severity.WARNING, name, "no object of a repository has such a name")
            del self.there[name]
        self._look_for_parity()
        if others:
            objects = count(others, "object here belongs", "objects here belong")
            self._found(Severity.NOTE, storage.url, f"{objects} to no repository")

    def _look_for_parity(self) -> None:
        """Where there is any, whether everything has some."""
        protected = {name.removeprefix(names.PARITY) for name in self.there if name.startswith(names.PARITY)}
        without = sum(has_parity(name) and name not in protected for name in self.there) if protected else 0
        if superfluous := len(protected - self.there.keys()):
            some = "1 parity object is" if superfluous == 1 else f"{superfluous:,} parity objects are"
            what = f"{some} of what is not there: it was removed by who knows nothing of parity, or just now"
            self._found(Severity.NOTE, self._storage.url, what)
        if without:
            some = "1 object has" if without == 1 else f"{without:,} objects have"
            what = f"{some} no parity: a backup was killed, or runs without"
            self._found(Severity.NOTE, self._storage.url, what, "`backupd repair` makes it")

    @property
    def packs(self) -> set[str]:
        """Names of all packs."""
        return {name for name in self.there if name.startswith(names.PACKS)}

    @property
    def small(self) -> set[str]:
        """Names of all but packs, indexes, snapshots, the signed record, and what proves nothing by its name: marks and
        the like, which are few and small, and are read each time."""
        others = (names.PACKS, names.INDEX, names.SNAPSHOTS, names.LOG, names.KEYS, names.DESCRIPTION, names.PARITY)
        return {name for name in self.there if not name.startswith(others)}

    def share(self, level: Level, role: Role, wanted: Collection[str] | None, budget: float | None) -> set[str]:
        """Names of what is read this time of that which takes turns: packs and their parity, and without a key indexes
        and snapshots, too.

        wanted: these packs alone; None: all.
        """
        turns = self.packs if wanted is None else self.packs.intersection(wanted)
        if role is Role.READER and level.includes(Level.CONTENT):
            self._kinds = dict.fromkeys(turns & self._young, CONTENT)
        elif role is Role.AUDITOR:
            takes_turns = (names.PACKS, names.INDEX, names.SNAPSHOTS, names.LOG)
            others = {name for name in self.there if name.startswith(takes_turns)}
            self._kinds = dict.fromkeys(others & self._young, BYTES)
        elif level.includes(Level.STORAGE):
            self._kinds = dict.fromkeys(turns & self._young, BYTES)
        if level.includes(Level.STORAGE):
            self._kinds.update(dict.fromkeys(self._parity(wanted) & self._young, BYTES))
        proofs = {kind: self._memory.proofs(kind) for kind in set(self._kinds.values())}
        items = [Item(name, self.there[name].size, proofs[kind].get(name)) for name, kind in self._kinds.items()]
        self._order = [self.there[name].size for name in audit_rotation.choose(items, None)]
        return set(audit_rotation.choose(items, budget))

    def _parity(self, wanted: Collection[str] | None) -> set[str]:
        every = {name for name in self.there if name.startswith(names.PARITY)}
        return every if wanted is None else every.intersection(map(names.parity, wanted))

    def unproved_names(self, identity: str | None) -> None:
        """The description and the key slots, whose names prove nothing: whether they make sense, and are what they
        were.

        identity: the repository's id, as a key has proved it.
        """
        digests: dict[str, str] = {}
        labels: Counter[str] = Counter()
        for name in self.there:
            if name != names.DESCRIPTION and not name.startswith(names.KEYS):
                continue
            found = audit_objects.read(self._storage, name)
            self.read += 1
            if found.data is not None:
                self.octets += len(found.data)
                digests[name] = names.sha256([found.data])
                self._compare_with_parity(name, digests[name])
            if found.good:
                self._memory.prove(BYTES, name)
                if name.startswith(names.KEYS) and found.data is not None:
                    labels[slots.parse(found.data, name).label] += 1
            elif not found.gone:
                self.findings.append(self._copies.finding(name, found.what))
        if names.DESCRIPTION not in self.there:
            self.findings.append(self._copies.finding(names.DESCRIPTION, "it is missing"))
        for label in (label for label, times in labels.items() if times > 1):
            what = f"there are {labels[label]} key slots of the name {label!r}: what opened the older ones still does"
            remedy = "a rotation was interrupted, or one was put back: rotate it again"
            self._found(Severity.WARNING, names.KEYS, what, remedy)
        if not labels:
            what = "no key slot can be read: only an exported key opens the repository"
            self._found(Severity.CRITICAL, names.KEYS, what, "`backupd repair` takes them from a copy")
        self.findings += self._memory.compare(digests, identity)
        self.findings += audit_record.gone(self._memory.gone(self.there), self._storage.url)

    def _compare_with_parity(self, name: str, digest: str) -> None:
        """Where a name proves nothing, parity tells what was stored under it."""
        kept = audit_objects.read(self._storage, names.parity(name)) if names.parity(name) in self.there else None
        if kept and kept.good and kept.data is not None and parity.whose(kept.data) != bytes.fromhex(digest):
            what = "its parity is of other bytes: one of them is not what was stored"
            self._found(Severity.WARNING, name, what, "`backupd repair --dry-run` tells what it would do")

    def prove(self, wanted: Collection[str]) -> None:
        """Compare these objects with their names, by some threads with bounded memory. Raises Interrupted."""
        room = Room()

        def look(name: str) -> tuple[audit_objects.Read, int]:
            if self._stop.is_set():
                return audit_objects.Read(name, None, good=False, gone=True), 0
            with room.hold(self.there[name].size):
                found = audit_objects.read(self._storage, name)
                return found._replace(data=None), len(found.data or b"")

        for name, (found, octets) in in_order(look, sorted(wanted), threads=THREADS):
            if self._stop.is_set():
                raise interrupted(self._storage.url)
            self.read += 1
            self.octets += octets
            self._observer(Advance(self._storage.url, name, 1, octets))
            if found.good:
                self._memory.prove(BYTES, name)
            elif not found.gone:
                self.findings.append(self._copies.finding(name, found.what))
                self._memory.unprove([name])

    def coverage(self, level: Level, budget: float | None, pace: float | None) -> Coverage | None:
        """How far all bytes are proved; None where this audit read none in turn. pace: seconds from audit to audit."""
        if not self._kinds:
            return None
        proofs = {kind: self._memory.proofs(kind) for kind in set(self._kinds.values())}
        times = {name: proofs[kind].get(name) for name, kind in self._kinds.items()}
        octets = sum(self.there[name].size for name in self._kinds)
        never = sum(self.there[name].size for name, time in times.items() if time is None)
        oldest = min((time for time in times.values() if time is not None), default=None)
        runs = audit_rotation.cycle_runs(self._order, budget)
        return Coverage(
            level=level,
            objects=len(self._kinds),
            octets=octets,
            proved=octets - never,
            never=never,
            oldest=timestamp(datetime.fromtimestamp(oldest, UTC)) if oldest is not None else None,
            budget=budget,
            cycle_runs=runs,
            cycle_seconds=runs * pace if pace is not None else None,
            remembered=self._memory.remembers,
        )

    @property
    def checked(self) -> Checked:
        """What was read here."""
        return Checked(objects=self.read, octets=self.octets)

    def _found(self, severity: Severity, subject: str, what: str, remedy: str = "") -> None:
        self.findings.append(Finding(severity, Level.STORAGE, subject, what, remedy))
