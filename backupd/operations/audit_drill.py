"""A drill: mail of an account is restored to a scratch target, read back, and compared; and it is timed.

It goes the way of `backupd restore`, so what it proves is that restoring works, and not only that bytes are there. What
is tried is a sample at random, in stretches of neighbours as a restore reads them; or with a budget the stretches that
were tried longest ago; or all. """

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from backupd.errors import Damaged, ObjectMissing
from backupd.mail import dates
from backupd.model import Flags, MessageState
from backupd.operations import audit_rotation, restore_plan
from backupd.operations.audit_memory import DRILLED, Memory
from backupd.operations.audit_report import DrillResult, Finding, Level, Severity
from backupd.operations.audit_rotation import Item
from backupd.operations.audit_scratch import Back, Scratch
from backupd.operations.counting import count
from backupd.operations.events import Observer
from backupd.operations.messages import MessageStore
from backupd.operations.restore import RestoreReport, restore
from backupd.operations.selection import readable_path
from backupd.operations.state import State
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot, SnapshotRef

SAMPLE = 500
"""Messages that are restored, unless a budget or `full` says otherwise."""

_STRETCH = 50
"""Neighbours that are restored together: a restore of all reads them together, too, so it is timed as it would be."""

_MOST_OCTETS = 1 << 30
"""Of a sample at random: it must fit where temporary files go."""

_TOLD = 5

Uids = dict[bytes, set[int]]
"""UIDs by the raw names of mailboxes."""


class Drill:
    """One account, tried."""

    def __init__(
        self,
        repository: Repository,
        account: str,
        ref: SnapshotRef,
        snapshot: Snapshot,
        *,
        memory: Memory,
        chance: random.Random,
        observer: Observer,
        stop: threading.Event,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._repository, self._account, self._ref, self._snapshot = repository, account, ref, snapshot
        self._memory, self._chance, self._observer, self._stop = memory, chance, observer, stop
        self._clock = clock
        self._store = MessageStore(repository)
        self._tried: list[str] = []
        self.findings: list[Finding] = []

    def run(self, scratch: Scratch, *, full: bool = False, budget: float | None = None) -> DrillResult:
        """Restore, read back, compare.

        Args:
            full: all of the account.
            budget: a share of its messages, from 0 to 1, those that were tried longest ago; else a sample at random.

        Raises errors of the target and of the storage, and Interrupted.
        """
        only = None if full else self._at_random(SAMPLE) if budget is None else self._by_turns(budget)
        with tempfile.TemporaryDirectory(prefix="backupd-drill-") as folder, closing(State(Path(folder))) as state:
            began = self._clock()
            report = restore(
                self._repository,
                self._ref,
                lambda: scratch.open(self._repository.secrets.fingerprint),
                only=only,
                state=state,
                observer=self._observer,
                stop=self._stop,
            )
            seconds = self._clock() - began
        altered = self._judge(report)
        messages, octets, wrong = self._compare(scratch, report, only, altered)
        if not wrong:
            for name in self._tried:
                self._memory.prove(DRILLED, name)
        total = self._snapshot.messages, self._snapshot.octets
        scale = max(total[0] / max(1, messages), total[1] / max(1, octets)) if messages else 1.0
        return DrillResult(
            snapshot=self._ref.id,
            target=scratch.description,
            full=full,
            messages=messages,
            octets=octets,
            seconds=seconds,
            total_messages=total[0],
            total_octets=total[1],
            total_seconds=seconds if full else seconds * max(1.0, scale),
            altered=sum(map(len, altered.values())),
            wrong=wrong,
        )

    # What is tried

    def _at_random(self, count: int) -> Uids:
        """Stretches of neighbours at random."""
        total = self._snapshot.messages
        firsts = [self._chance.randrange(total) for _ in range(-(-count // _STRETCH))] if total > count else [0]
        length = _STRETCH if total > count else total
        wanted = sorted({number for first in firsts for number in range(first, min(first + length, total))})
        chosen: Uids = {}
        before = octets = 0
        for record in self._snapshot.mailboxes:
            for segment in record.segments:
                own = {number - before for number in wanted if before <= number < before + segment.messages}
                before += segment.messages
                for place, (row, _) in enumerate(self._pairs(segment)) if own else ():
                    if place in own and octets + row.size <= _MOST_OCTETS:
                        octets += row.size
                        chosen.setdefault(record.mailbox.raw_name, set()).add(row.uid)
        return chosen

    def _by_turns(self, budget: float) -> Uids:
        """Stretches that were tried longest ago."""
        places = {self._name(segment): (record, segment) for record, segment in self._stretches()}
        proofs = self._memory.proofs(DRILLED)
        known = {name: time for name, time in proofs.items() if name.startswith(f"{self._account}/")}
        self._memory.unprove(known.keys() - places)
        items = [Item(name, segment.messages, known.get(name)) for name, (_, segment) in places.items()]
        chosen: Uids = {}
        self._tried = audit_rotation.choose(items, budget)
        for name in self._tried:
            record, segment = places[name]
            uids = {row.uid for row, _ in self._pairs(segment)}
            chosen.setdefault(record.mailbox.raw_name, set()).update(uids)
        return chosen

    def _name(self, segment: Segment) -> str:
        return f"{self._account}/{segment.membership.hex()}"

    def _stretches(self) -> Iterator[tuple[MailboxRecord, Segment]]:
        return ((record, segment) for record in self._snapshot.mailboxes for segment in record.segments)

    def _pairs(self, segment: Segment) -> Iterator[tuple[MessageRow, MessageState]]:
        try:
            yield from segments.read(self._repository, segment)
        except (Damaged, ObjectMissing):  # the level of metadata has told about it
            return

    # What came of it

    def _judge(self, report: RestoreReport) -> Uids:
        """Tell what could not be restored; the messages that the target could not take exactly, as it said itself."""
        altered: Uids = {}
        lost = {each.name: each.refused + each.unreadable for each in report.mailboxes}
        lost = {name: number for name, number in lost.items() if number}
        for name, number in lost.items():
            whats = [each.what for each in report.problems if each.mailbox == name]
            what = f"{count(number, 'message')} could not be restored: {whats[0] if whats else 'refused'}"
            self._tell(Severity.CRITICAL, name, what)
        for problem in report.problems:
            for record in self._snapshot.mailboxes if problem.uid is not None else ():
                if record.mailbox.name == problem.mailbox and problem.uid is not None:
                    altered.setdefault(record.mailbox.raw_name, set()).add(problem.uid)
        others = [each for each in report.problems if each.mailbox not in lost]
        if others:
            what = f"{count(len(others), 'message')} could not be taken exactly by the target: {others[0].what}"
            self._tell(Severity.NOTE, others[0].mailbox, what)
        return altered

    def _compare(
        self, scratch: Scratch, report: RestoreReport, only: Uids | None, altered: Uids
    ) -> tuple[int, int, int]:
        """Messages and octets that were restored, and how many of them came out otherwise."""
        restored = restore_plan.limit(self._snapshot.mailboxes, only)
        pairs = zip(report.mailboxes, restored, strict=True)  # by place: of two mailboxes what is shown may be the same
        names = {each.target_name: record.mailbox.raw_name for each, record in pairs}
        there: dict[bytes, Counter[bytes]] = {}
        messages = octets = 0
        for back in scratch.read_back(names):
            messages += 1
            octets += len(back.body) if isinstance(back.body, bytes) else back.body.size
            there.setdefault(back.mailbox, Counter())[self._digest_of(back)] += 1
        wrong = 0
        for record in self._snapshot.mailboxes:
            raw_name = record.mailbox.raw_name
            own, apart = there.get(raw_name, Counter()), altered.get(raw_name, set())
            lacking = []
            for segment in record.segments:
                for row, state in self._pairs(segment):
                    if only is not None and row.uid not in only.get(raw_name, ()):
                        continue
                    if row.uid in apart or row.message in self._repository.erased.now:
                        continue
                    digest = _digest(row.message, state.flags, dates.nearest(row.internaldate).timestamp())
                    own[digest] -= 1
                    if own[digest] < 0:
                        lacking.append(row.uid)
            if lacking:
                wrong += len(lacking)
                uids = ", ".join(map(str, lacking[:_TOLD])) + (" and others" if len(lacking) > _TOLD else "")
                some = count(len(lacking), "message")
                what = f"{some} came back otherwise (bytes, flags, date), or not at all: UID {uids}"
                self._tell(Severity.CRITICAL, readable_path(record.mailbox), what)
        return messages, octets, wrong

    def _digest_of(self, back: Back) -> bytes:
        return _digest(self._store.id_of(back.body), back.flags, back.moment)

    def _tell(self, severity: Severity, mailbox: str, what: str) -> None:
        self.findings.append(
            Finding(severity, Level.DRILL, f"{self._account}: {mailbox}", what, account=self._account)
        )


def _digest(message: bytes, flags: Flags, moment: float | None) -> bytes:
    """What is compared of a message, in 16 octets: bytes, flags in any case and order, and when it arrived, to the
    second."""
    own = sorted(flag.lower() for flag in flags if flag.lower() != b"\\recent")
    whole = b"%b %d " % (message, int(moment) if moment is not None else -1)
    return hashlib.blake2b(whole + b" ".join(own), digest_size=16).digest()
