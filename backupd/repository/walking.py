"""What the snapshots need: from each snapshot over its runs to messages and envelopes, into a survey.

Snapshots share nearly all their runs, so each membership run is read once. Where some of the messages that it names are
gone, its state run says which are left, and only these are needed. No key that reads mail is needed: what a message is
joined from, the index tells.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from backupd.errors import Damaged, Interrupted, ObjectMissing
from backupd.repository import block, payload, runs
from backupd.repository.erasures import Erasures
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.segments import Segment
from backupd.repository.snapshots import Snapshot, SnapshotRef
from backupd.repository.survey import Survey
from backupd.storage.parallel import at_once, in_order

_SNAPSHOTS_AT_ONCE: Final = 32
_TASKS_AT_ONCE: Final = 16
_BLOCKS_KEPT: Final = 32
_THREADS: Final = 8
_MASKS_KEPT: Final = 4096


class Walked(NamedTuple):
    """unreadable: snapshots, by id, that cannot be read. lost: those of which a run cannot be read. missing: how many
    blobs are needed and in no pack that is there."""

    unreadable: list[str]
    lost: list[str]
    missing: int

    @property
    def is_whole(self) -> bool:
        """Whether all is known that the snapshots need."""
        return not self.unreadable and not self.lost


class _Run(NamedTuple):
    """A run: its number in the survey, and its id."""

    number: int
    id: bytes


class _Task(NamedTuple):
    """A membership run to be read, and its state run if not all of its messages are there any more."""

    membership: _Run
    state: _Run | None
    snapshot: str


def walk(
    repository: Repository,
    survey: Survey,
    refs: Sequence[SnapshotRef],
    stop: threading.Event | None = None,
    *,
    erased: Erasures | None = None,
) -> Walked:
    """Mark all that these snapshots need. erased: whose messages nobody needs; None: as the repository knows by now.

    Raises Interrupted; Overtaken when others have pruned meanwhile.
    """
    erased = repository.erased.now if erased is None else erased
    return _Walk(repository, survey, erased, stop or threading.Event()).run(refs)


class _Walk:
    def __init__(self, repository: Repository, survey: Survey, erased: Erasures, stop: threading.Event) -> None:
        self._repository, self._survey, self._erased, self._stop = repository, survey, erased, stop
        self._unreadable: list[str] = []
        self._lost: dict[str, None] = {}
        self._missing = 0
        self._blocks: OrderedDict[int, list[tuple[BlobKind, memoryview]]] = OrderedDict()
        self._masks: OrderedDict[int, int] = OrderedDict()

    def run(self, refs: Sequence[SnapshotRef]) -> Walked:
        waiting = iter(refs)
        while some := list(islice(waiting, _SNAPSHOTS_AT_ONCE)):
            tasks = [task for ref, snapshot in self._read(some) for task in self._tasks(ref, snapshot)]
            tasks.sort(key=lambda task: task.membership.number)  # so that each block is read once
            for at in range(0, len(tasks), _TASKS_AT_ONCE):
                self._fetch(tasks[at : at + _TASKS_AT_ONCE])
                for task in tasks[at : at + _TASKS_AT_ONCE]:
                    self._go_on()
                    self._do(task)
        return Walked(self._unreadable, list(self._lost), self._missing + self._survey.missing)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._repository.storage.url, remedy="the next prune goes on")

    def _read(self, refs: Iterable[SnapshotRef]) -> Iterator[tuple[SnapshotRef, Snapshot]]:
        for ref, found in in_order(self._snapshot, refs, threads=at_once(self._repository.storage)):
            self._go_on()
            if isinstance(found, Snapshot):
                yield ref, found
            elif isinstance(found, Damaged):
                self._unreadable.append(ref.id)

    def _snapshot(self, ref: SnapshotRef) -> Snapshot | Damaged | ObjectMissing:
        try:
            return self._repository.snapshot(ref)
        except (Damaged, ObjectMissing) as error:  # the latter is forgotten since it was listed
            return error

    def _tasks(self, ref: SnapshotRef, snapshot: Snapshot) -> Iterator[_Task]:
        for record in snapshot.mailboxes:
            for segment in record.segments:
                if task := self._task(ref, segment):
                    yield task

    def _task(self, ref: SnapshotRef, segment: Segment) -> _Task | None:
        survey = self._survey
        membership, _ = survey.need(segment.membership)
        state, _ = survey.need(segment.state)
        if membership < 0 or state < 0:
            self._lost[ref.id] = None
            return None
        if survey.is_walked(membership):
            return None
        run = _Run(membership, segment.membership)
        if segment.rows == segment.messages:
            return _Task(run, None, ref.id) if survey.walked(membership) else None
        return _Task(run, _Run(state, segment.state), ref.id) if survey.walked(membership, state) else None

    def _fetch(self, tasks: Iterable[_Task]) -> None:
        """Read the blocks that these need: side by side, where each is a request."""
        if self._repository.storage.requests is None:
            return
        every = (run for task in tasks for run in (task.membership, task.state) if run)
        wanted = {self._survey.block_of(run.number): run for run in every}
        missing = [run for at, run in wanted.items() if at not in self._blocks]
        with ThreadPoolExecutor(_THREADS) as pool:
            for run, data in zip(missing, pool.map(self._read_block, missing), strict=True):
                if data is not None:
                    with suppress(Damaged):  # whoever wants it meets that again
                        self._keep(run, *data)

    def _read_block(self, run: _Run) -> tuple[str, bytes] | None:
        try:
            return self._survey.read(run.number)
        except Damaged:
            return None

    def _keep(self, run: _Run, name: str, data: bytes) -> None:
        found = payload.parse(block.unseal(data, self._repository.secrets, name), name)
        self._blocks[self._survey.block_of(run.number)] = found
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)

    def _do(self, task: _Task) -> None:
        try:
            found = runs.references(self._blob(task.membership), task.snapshot)
            if task.state is None:
                rows = [(0, len(found.run))]
            else:
                states = runs.state_uid_ranges(self._blob(task.state), task.snapshot)
                rows = list(self._fresh(task.membership.number, _rows(found.stretches, states)))
        except Damaged:
            self._lost[task.snapshot] = None
            return
        envelopes: set[int] = set()
        for first, end in rows:
            envelopes.update(found.run[first:end])
            for at in range(32 * first, 32 * end, 32):
                if (message := found.messages[at : at + 32]) not in self._erased:
                    self._need(message)
        for number in sorted(envelopes):
            self._need(*self._erased.places(found.runs[number]))

    def _need(self, *blobs: bytes) -> None:
        """The first of these that is there is needed."""
        if not any(blob in self._erased.planned or self._survey.need(blob)[0] >= 0 for blob in blobs):
            self._missing += 1

    def _fresh(self, membership: int, rows: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Those of the rows that have not been seen to yet: a flag that changes gives another state run, and the same
        messages."""
        done = self._masks.pop(membership, 0)
        for first, end in rows:
            mask = ((1 << (end - first)) - 1) << first
            left, done = mask & ~done, done | mask
            if left == mask:
                yield first, end
                continue
            at = first
            while left >> at:
                begin = at + ((left >> at) & -(left >> at)).bit_length() - 1
                at = begin
                while left >> at & 1:
                    at += 1
                yield begin, at
        self._masks[membership] = done
        if len(self._masks) > _MASKS_KEPT:
            self._masks.popitem(last=False)

    def _blob(self, run: _Run) -> memoryview:
        """A run's octets, proved. Raises Damaged, Overtaken."""
        at, place = self._survey.block_of(run.number), self._survey.place_in_block(run.number)
        if at not in self._blocks:
            self._keep(run, *self._survey.read(run.number))
        self._blocks.move_to_end(at)
        blobs = self._blocks[at]
        kind, data = blobs[place] if place < len(blobs) else (BlobKind.PLAIN, memoryview(b""))
        if not kind.is_metadata or self._repository.secrets.metadata_id(data) != run.id:
            raise Damaged("a run is not what its id says", subject=f"blob {run.id.hex()[:16]}")
        return data


def _rows(
    stretches: Sequence[tuple[int, int, int]], states: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of the rows whose UIDs are among those of the state run."""
    at = 0
    for first, last, row in stretches:
        while at < len(states) and states[at][1] < first:
            at += 1
        each = at
        while each < len(states) and states[each][0] <= last:
            begin, end = max(first, states[each][0]), min(last, states[each][1])
            yield row + begin - first, row + end - first + 1
            each += 1
