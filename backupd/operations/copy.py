"""`backupd copy`: make a second repository equal to the first, object by object. No key is needed, or asked for.

Objects never change, so what the copy has of the right size is there; a copy that was interrupted goes on by itself.
What is read is compared with what its name proves before it is written, so damage is not copied. What the first has no
longer stays in the copy: somebody who destroys the first must not destroy the copy with it. That goes for key slots
too, unless it is said that slots which were revoked in the first are to be revoked in the copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter

import msgspec

from backupd.errors import Damaged, Interrupted, NoRepository, ObjectExists, ObjectMissing, StorageDenied, UsageError
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.repository import marks, names, needs, record
from backupd.repository.reliance import LATE_SECONDS, LOOK_SECONDS, seconds_gone
from backupd.storage.base import ObjectInfo, Storage

CONNECTIONS = 8
_OCTETS_UNDER_WAY = 64 << 20
_JOINED_OCTETS = 6 << 20
_OBJECTS_AT_ONCE = 1000
_PASSES = 10
_REFERRING = (names.INDEX, names.ERASURES, names.SNAPSHOTS)


class CopyProblem(msgspec.Struct, frozen=True):
    """An object that was not copied, and why."""

    object: str
    what: str


class CopyReport(msgspec.Struct, frozen=True):
    """What a copy did.

    objects, octets: of the first repository. gone: objects that only the copy has. key_slots: key slots that only the
    copy has, and that still open it; revoked: those that were removed from it. waiting: indexes and snapshots that the
    next copy brings, an hour from now or later: the copy's own prune is about to remove packs that they may need, and
    has been told not to.
    """

    source: str
    target: str
    objects: int
    octets: int
    copied: int
    copied_octets: int
    gone: int
    key_slots: list[str]
    revoked: list[str]
    waiting: int
    problems: list[CopyProblem]


def copy(
    source: Storage,
    target: Storage,
    *,
    revoke: bool = False,
    connections: int = CONNECTIONS,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    seconds: Callable[[], float] = seconds_gone,
) -> CopyReport:
    """Write what the target lacks. revoke: remove the key slots that the first repository no longer has.

    At any moment the target is a valid repository: whatever a snapshot in it refers to is there, unless it is missing
    or damaged in the first one too, which is a problem of the report. That holds while others prune either of them.
    seconds: a clock that only goes forward.

    Raises NoRepository without a first one, UsageError where the target is another repository, Interrupted, and errors
    of the storage that stop everything.
    """
    _refuse_another(source, target)
    return _Copy(source, target, connections, observer, stop or threading.Event(), clock, seconds).run(revoke=revoke)


def _refuse_another(source: Storage, target: Storage) -> None:
    if source.url == target.url:
        raise UsageError("a copy beside itself protects nothing", subject=target.url, remedy="give it another place")
    try:
        first = source.get(names.DESCRIPTION)
    except ObjectMissing:
        raise NoRepository("there is no repository to copy", subject=source.url, remedy="check url") from None
    try:
        second = target.get(names.DESCRIPTION)
    except ObjectMissing:
        return
    if first != second:
        raise UsageError(
            "another repository is there", subject=target.url, remedy="give the copy a place of its own in copies"
        )


class _Copy:
    """One copy, while it lasts."""

    def __init__(
        self,
        source: Storage,
        target: Storage,
        connections: int,
        observer: Observer,
        stop: threading.Event,
        clock: Callable[[], datetime],
        seconds: Callable[[], float],
    ) -> None:
        self._source, self._target, self._connections = source, target, connections
        self._observer, self._stop, self._clock, self._seconds = observer, stop, clock, seconds
        self._objects = self._octets = self._copied = self._copied_octets = 0
        self._gone: list[str] = []
        self._problems: list[CopyProblem] = []
        self._vanished = False
        self._looked: float | None = None

    def run(self, *, revoke: bool) -> CopyReport:
        with ThreadPoolExecutor(self._connections, thread_name_prefix="copy") as pool:
            for _ in range(_PASSES):
                waiting = self._pass(pool)
                if not self._vanished or self._stop.is_set():
                    break
        if self._stop.is_set():
            raise Interrupted(
                "stopped", subject=self._target.url, remedy="what was copied stays; the same command goes on from there"
            )
        slots = [name for name in self._gone if name.startswith(names.KEYS)]
        # Without a slot of its own, the first repository has lost its keys, and the copy's are all there are.
        revoked = slots if revoke and any(self._source.list(names.KEYS)) else []
        for name in revoked:
            self._target.delete(name)
        return CopyReport(
            source=self._source.url,
            target=self._target.url,
            objects=self._objects,
            octets=self._octets,
            copied=self._copied,
            copied_octets=self._copied_octets,
            gone=len(self._gone) - len(revoked),
            key_slots=[] if revoked else slots,
            revoked=revoked,
            waiting=waiting,
            problems=self._problems,
        )

    def _pass(self, pool: ThreadPoolExecutor) -> int:
        """Copy what there is; how many indexes and snapshots must wait. What goes from the source meanwhile, others
        have taken the place of: then it is to be looked at anew."""
        self._vanished = False
        self._objects = self._octets = 0
        self._gone, self._problems = [], []
        log = {info.name for info in self._source.list(names.LOG)}
        # Listed before what they refer to: what is written while this runs may come along, and need not.
        snapshots = self._lacking(names.SNAPSHOTS)
        erasures = self._lacking(names.ERASURES)
        indexes = self._lacking(names.INDEX)
        packs = self._lacking(names.PACKS)
        description = self._lacking(names.DESCRIPTION)
        keys = self._lacking(names.KEYS)
        # Before the snapshots: what is held must never be there without its hold.
        holds = self._lacking(names.HOLDS)
        last = indexes + erasures + snapshots
        ahead = description + keys + holds + packs + last
        self._observer(Plan(self._target.url, len(ahead), sum(each.size for each in ahead)))
        for stage in (description + keys + holds, packs):
            self._run(pool, stage)
        left = self._finish(pool, [indexes, erasures, snapshots]) if last else 0
        if not left and not self._vanished and not self._stop.is_set():
            self._record(pool, log)
        return left

    def _record(self, pool: ThreadPoolExecutor, log: set[str]) -> None:
        """What is in the source's record by these objects, which were listed before all else: so that whatever they
        tell of is in the target, or they tell that it went. What was forgotten since then they cannot tell; then all is
        to be looked at anew."""
        late = [info.name for info in self._source.list(names.LOG) if info.name not in log]
        there = {info.name for info in self._target.list(names.SNAPSHOTS)} if late else set()
        for name in late:
            try:
                entries = [record.read(octets, name).entry for octets in record.cut(self._source.get(name), name)]
            except (ObjectMissing, Damaged):  # merged by others; what is damaged is no business of this pass
                entries = []
            if any(each not in there for entry in entries for each in entry.going):
                self._vanished = True
                return
        lacking = [each for each in self._lacking(names.LOG) if each.name in log]
        # Half of it would tell of entries that are not there, or of snapshots and not that they went. So all of it
        # comes at once, as one object, before it comes piece by piece.
        joined = self._joined(lacking) if len(lacking) > 1 else []
        if self._vanished:
            return
        self._run(pool, lacking)
        whole = not any(each.object.startswith(names.LOG) for each in self._problems)
        if whole and not self._vanished and not self._stop.is_set():
            with suppress(StorageDenied):  # then it stays, until a prune of the copy merges it with others
                for name in joined:
                    self._target.delete(name)

    def _joined(self, lacking: list[ObjectInfo]) -> list[str]:
        """Names of the objects that hold all of these; of a long record, of parts of it."""
        some, octets, stored = list[bytes](), 0, list[str]()
        time = max(time for each in lacking if (time := names.log_time(each.name))) if lacking else self._clock()
        for number, each in enumerate(lacking, 1):
            try:
                found = [*record.cut(self._source.get(each.name), each.name)]
            except ObjectMissing:  # joined by others: the rest would tell of what came after it
                self._vanished = True
                return stored
            except Damaged:
                found = []
            some += found
            octets += sum(map(len, found))
            if some and (octets > _JOINED_OCTETS or number == len(lacking)):
                stored.append(record.put(self._target, some, time)[0])
                some, octets = [], 0
        return stored

    def _finish(self, pool: ThreadPoolExecutor, stages: list[list[ObjectInfo]]) -> int:
        """What refers to packs comes when these are there to stay; how many of it must wait."""
        left = sum(map(len, stages))
        self._looked = None
        for stage in stages:
            for at in range(0, len(stage), _OBJECTS_AT_ONCE):
                if self._looked is None or self._seconds() - self._looked > LOOK_SECONDS:
                    self._looked = self._seconds()
                    if not self._is_safe() or not self._has_packs(pool):
                        return left
                if self._vanished or self._stop.is_set():
                    return left
                some = stage[at : at + _OBJECTS_AT_ONCE]
                self._run(pool, some)
                left -= len(some)
                self._mind_the_time()
        return left

    def _mind_the_time(self) -> bool:
        """Whether it has stood still since it looked: then what it brings may lack what was there before."""
        late = self._looked is not None and self._seconds() - self._looked > LATE_SECONDS
        self._vanished |= late
        return late

    def _has_packs(self, pool: ThreadPoolExecutor) -> bool:
        """Whether all packs of the source are in the target, but for those that are damaged; what somebody has removed
        there since this began is copied again."""
        known = {problem.object for problem in self._problems}
        both = _side_by_side(self._source.list(names.PACKS), self._target.list(names.PACKS))
        lacking = [ObjectInfo(name, here) for name, here, there in both if here is not None and there is None]
        lacking = [each for each in lacking if each.name not in known]
        self._run(pool, lacking)
        if lacking:
            self._vanished = True  # and looked at once more
        return not lacking

    def _is_safe(self) -> bool:
        """Whether nobody is about to remove packs from the target that the source has. Whoever is, is told not to, and
        has seen that when an hour has gone by.
        """
        now = self._clock()
        marked = [each for each in marks.read(self._target) if not marks.for_locks(each)]
        if not marked:
            return True
        ours = {info.name for info in self._source.list(names.PACKS)}
        said = needs.read(self._target)
        old = marks.older(self._target, said, LATE_SECONDS, now)
        safe = True
        for each in marked:
            concerned = ours.intersection(each.mark.objects)
            if concerned - needs.of(said, each.name):
                needs.put(self._target, each.name, concerned, now)
            safe = safe and not concerned - needs.of(old, each.name)
        return safe

    def _lacking(self, prefix: str) -> list[ObjectInfo]:
        """What the target lacks of these objects, in the order of their names."""
        lacking: list[ObjectInfo] = []
        for name, here, there in _side_by_side(self._source.list(prefix), self._target.list(prefix)):
            if here is None:
                self._gone.append(name)
                continue
            self._objects += 1
            self._octets += here
            if there is None:
                lacking.append(ObjectInfo(name, here))
            elif there != here:
                what = f"the copy's object has {there:,} octets and should have {here:,}; remove it there"
                self._problems.append(CopyProblem(name, what))
        return lacking

    def _run(self, pool: ThreadPoolExecutor, objects: list[ObjectInfo]) -> None:
        """Copy these, and wait until all are there, before anything that refers to them."""
        under_way: dict[Future[bool], ObjectInfo] = {}
        try:
            for each in objects:
                while under_way and sum(one.size for one in under_way.values()) + each.size > _OCTETS_UNDER_WAY:
                    self._take(under_way)
                if len(under_way) > 2 * self._connections:
                    self._take(under_way)
                if self._stop.is_set():
                    break
                under_way[pool.submit(self._one, each)] = each
            while under_way:
                self._take(under_way)
        finally:
            for future in under_way:
                future.cancel()

    def _take(self, under_way: dict[Future[bool], ObjectInfo]) -> None:
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            info = under_way.pop(future)
            try:
                copied = future.result()
            except (Damaged, ObjectMissing, ObjectExists) as error:
                self._problems.append(CopyProblem(info.name, error.what))
            else:
                self._copied += copied
                self._copied_octets += info.size * copied
                self._observer(Advance(self._target.url, info.name, 1, info.size))

    def _one(self, info: ObjectInfo) -> bool:
        try:
            data = self._source.get(info.name)
        except ObjectMissing:  # removed since it was listed
            self._vanished |= info.name.startswith((names.PACKS, names.INDEX, names.LOG))
            return False
        if names.proves(info.name, [data]) is False:
            raise Damaged("its bytes are not those that its name promises; it was not copied", subject=info.name)
        if info.name.startswith(_REFERRING) and self._mind_the_time():
            return False
        self._target.put(info.name, [data])
        return True


def _side_by_side(
    first: Iterator[ObjectInfo], second: Iterator[ObjectInfo]
) -> Iterator[tuple[str, int | None, int | None]]:
    """(name, size in the first, size in the second) of all objects; both listings are in the order of names."""
    here = ((info.name, 0, info.size) for info in first)
    there = ((info.name, 1, info.size) for info in second)
    for name, found in groupby(merge(here, there), key=itemgetter(0)):
        sizes = {side: size for _, side, size in found}
        yield name, sizes.get(0), sizes.get(1)
