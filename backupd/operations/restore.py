"""`backupd restore`: mail of a snapshot into a target, only what is not there yet.

What the target holds already is found by header and size, so a second restore writes nothing, and an interrupted one
goes on where it was. A journal in the state directory covers servers that change the headers of what they are given.
Every message is proved against its id when it is read; one that is damaged, or that the target refuses, costs that
message, and is reported.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from backupd.errors import (
    BackupdError,
    Damaged,
    Interrupted,
    ObjectMissing,
    ServerError,
    StorageError,
    Transient,
    WrongKey,
)
from backupd.model import Mailbox, Problem
from backupd.operations import restore_plan
from backupd.operations.ahead import read_ahead
from backupd.operations.batch import gather
from backupd.operations.counting import count
from backupd.operations.events import Advance, Notice, Observer, Plan, ignore
from backupd.operations.messages import MessageStore
from backupd.operations.restore_plan import Lookup, Pair
from backupd.operations.restore_task import MailboxTask, RestoredMailbox
from backupd.operations.session_pool import PAUSES
from backupd.operations.state import State
from backupd.operations.stopping import Stop
from backupd.repository import mending, segments
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, SnapshotRef
from backupd.sources.base import Source
from backupd.targets.base import FarTarget, Outcome, Outgoing, Present, Target

_AHEAD_OCTETS = 16 * 1024 * 1024
_JOURNAL_EVERY = 50

_FEW_MESSAGES, _MOST_AT_ONCE = 2048, 128
"""Mailboxes with no more than so many messages altogether, and no more than so many mailboxes, are written together."""

_CAREFULLY = 64
"""Messages sent one by one after the connection was lost without getting on: more than are under way at once."""


class RestoreReport(msgspec.Struct, frozen=True):
    """What a restore did, or in a dry run would do."""

    snapshot: str
    account: str
    target: str
    dry_run: bool
    mailboxes: list[RestoredMailbox]
    problems: list[Problem]


def restore(
    repository: Repository,
    ref: SnapshotRef,
    open_target: Callable[[], Target],
    *,
    mailboxes: Sequence[str] = (),
    only: Mapping[bytes, Collection[int]] | None = None,
    missing_only: bool = False,
    elsewhere: Source | None = None,
    dry_run: bool = False,
    state: State,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> RestoreReport:
    """Write a snapshot's mail, or some mailboxes of it, to a target.

    Args:
        mailboxes: names or patterns; none means all.
        only: UIDs by the raw names of mailboxes; all else is left out.
        missing_only: leave out what the account still has in any mailbox: on its server, if `elsewhere` reads that, or
            in its newest snapshot.

    Raises UsageError for an unknown mailbox, WrongKey without the reader role, Interrupted, and errors of the target
    or the storage that stop everything.
    """
    if repository.secrets.role is not Role.READER:
        raise WrongKey(
            "this key is a writer's: it cannot read stored mail",
            remedy="restore with a key or passphrase of the reader role",
        )
    health = mending.examine(repository)
    if health.unindexed:
        # An index object may be missing or damaged. Whoever restores need not be able to write to the repository.
        mending.adopt(repository, health.unindexed, MessageStore(repository).identify, store=False)
    snapshot = repository.snapshot(ref)
    chosen = restore_plan.limit(restore_plan.choose(snapshot, mailboxes), only)
    held: Collection[Present | bytes] = ()
    if missing_only:
        held = (
            restore_plan.held_by_account(elsewhere, repository)
            if elsewhere
            else restore_plan.held_by_newest(repository, snapshot.account)
        )
    run = _Restore(repository, snapshot.account, open_target, only, held, dry_run, state, observer, Stop(stop), ref.id)
    try:
        return run.run(chosen)
    finally:
        run.close()


class _Restore:
    """One restore, while it lasts."""

    def __init__(
        self,
        repository: Repository,
        account: str,
        open_target: Callable[[], Target],
        only: Mapping[bytes, Collection[int]] | None,
        held: Collection[Present | bytes],
        dry_run: bool,
        state: State,
        observer: Observer,
        stop: Stop,
        snapshot: str,
    ) -> None:
        self._repository, self._store, self._account = repository, MessageStore(repository), account
        self._open_target, self._only, self._held, self._dry_run = open_target, only, held, dry_run
        self._state, self._observer, self._stop, self._snapshot = state, observer, stop, snapshot
        self._problems: list[Problem] = []
        self._target = open_target()
        # The journal belongs to this snapshot in this target; its name reveals nothing of either.
        self._journal = hashlib.sha256(f"{snapshot} {self._target.description}".encode()).hexdigest()[:32]

    def run(self, chosen: list[MailboxRecord]) -> RestoreReport:
        self._observer(
            Plan(self._account, sum(each.messages for each in chosen), sum(each.octets for each in chosen))
        )
        tasks = [MailboxTask(record, self._target.name_of(record.mailbox)) for record in chosen]
        restored: list[RestoredMailbox] = []
        for some in gather(tasks, lambda each: each.record.messages, limit=lambda _: _FEW_MESSAGES, most=_MOST_AT_ONCE):
            if len(some) > 1 and not self._dry_run:
                self._at_once(some)
            restored += [self._mailbox(task) for task in some]
        if not self._dry_run:
            self._state.close_journal(self._journal)
        return RestoreReport(
            snapshot=self._snapshot,
            account=self._account,
            target=self._target.description,
            dry_run=self._dry_run,
            mailboxes=restored,
            problems=self._problems,
        )

    def close(self) -> None:
        self._target.close()

    def _at_once(self, tasks: list[MailboxTask]) -> None:
        """Write small mailboxes together, which a far target takes in a few round trips.

        Whatever goes wrong is left to `_mailbox`: it finds out why, and goes on after what is done by then.
        """
        target = self._target
        if not isinstance(target, FarTarget) or self._stop.is_set():
            return
        # Of two that go to the same place the second must see what the first has written.
        first = {task.target_name: task for task in reversed(tasks)}.values()
        try:
            looked = [(task, *self._look(task)) for task in first]
            ready = {each.raw_name for each in target.prepare_all([task.record.mailbox for task in first])}
            looked = [each for each in looked if each[0].record.mailbox.raw_name in ready]
            for task, needed, strangers in looked:
                task.needed = needed
                self._state.open_journal(self._journal, task.record.mailbox.raw_name, strangers)
            outgoing = self._read_ahead(pair for task, needed, _ in looked for pair in self._outgoing(task, needed))
            self._settle_all(target.write_all(outgoing), {task.record.mailbox.raw_name: task for task, *_ in looked})
        except (Damaged, ObjectMissing):
            return
        except ServerError as error:
            if isinstance(error, Transient):
                self._reopen(1, error)

    def _mailbox(self, task: MailboxTask) -> RestoredMailbox:
        failures = 0
        while not task.done:
            progress = len(task.settled)
            try:
                self._write(task)
                break
            except (Damaged, ObjectMissing):
                if not self._leave_out_unreadable(task):
                    raise
            except ServerError as error:
                if not isinstance(error, Transient):
                    # This mailbox cannot be made or opened; the others may.
                    self._problems.append(Problem(task.record.mailbox.name, None, str(error)))
                    return task.report(failed=True)
                failures = failures + 1 if len(task.settled) == progress else 0
                if failures >= len(PAUSES):
                    raise
                if failures > 1 and task.alone is not None:
                    # Sent alone, it ended the connection again: it is this message, and not the network.
                    task.refused += 1
                    self._lost(task, task.alone, error)
                    failures = 0
                task.careful = failures > 0
                self._reopen(failures, error)
        return task.report()

    def _leave_out_unreadable(self, task: MailboxTask) -> bool:
        """Go on without those stretches of a mailbox whose description is damaged; whether there are any."""
        kept: list[Segment] = []
        for segment in task.record.segments:
            try:
                for _ in segments.read(self._repository, segment):
                    pass
                kept.append(segment)
            except (Damaged, ObjectMissing) as error:
                which = f"{count(segment.messages, 'message')} (UIDs {segment.first} to {segment.last})"
                what = f"{which} cannot be restored: {error}"
                self._problems.append(Problem(task.record.mailbox.name, None, what))
        found = len(kept) < len(task.record.segments)
        task.unreadable += sum(each.messages for each in task.record.segments) - sum(each.messages for each in kept)
        task.record = msgspec.structs.replace(task.record, segments=kept)
        return found

    def _reopen(self, failures: int, error: ServerError) -> None:
        self._observer(Notice(self._account, "warning", f"{error}; trying again"))
        self._target.close()
        for pause in PAUSES[failures:]:
            if self._stop.wait(pause):
                raise self._interrupted()
            try:
                self._target = self._open_target()
            except ServerError as another:
                if not isinstance(another, Transient):
                    raise
            else:
                return
        raise error

    def _write(self, task: MailboxTask) -> None:
        """Write what the target lacks of a mailbox; called again after a lost connection."""
        mailbox, task.alone = task.record.mailbox, None
        if not mailbox.selectable and not task.record.messages:
            if not self._dry_run:
                self._target.prepare(mailbox)
            return
        needed, strangers = self._look(task)
        if self._dry_run:
            return
        self._target.prepare(mailbox)
        self._state.open_journal(self._journal, mailbox.raw_name, strangers)
        ordered = sorted(needed)
        first = ordered[:_CAREFULLY] if task.careful else []
        for uid in first:
            task.alone = uid
            self._write_some(task, {uid})
            task.alone = None
            if self._stop.is_set():
                break
        self._write_some(task, needed.difference(first))
        if self._stop.is_set():
            raise self._interrupted()

    def _write_some(self, task: MailboxTask, uids: set[int]) -> None:
        mailbox = task.record.mailbox
        if not uids or self._stop.is_set():
            return
        outgoing = (each for _, each in self._read_ahead(self._outgoing(task, uids)))
        outcomes = self._target.write(mailbox, outgoing)
        self._settle_all(((mailbox, outcome) for outcome in outcomes), {mailbox.raw_name: task})

    def _read_ahead(self, outgoing: Iterator[tuple[Mailbox, Outgoing]]) -> Iterator[tuple[Mailbox, Outgoing]]:
        for each in read_ahead(outgoing, lambda pair: pair[1].size, limit=_AHEAD_OCTETS):
            if self._stop.is_set():
                return  # what was read ahead need not be written
            yield each

    def _settle_all(self, outcomes: Iterator[tuple[Mailbox, Outcome]], tasks: Mapping[bytes, MailboxTask]) -> None:
        """Note what became of messages, those of one mailbox together."""
        for raw_name, some in itertools.groupby(outcomes, lambda pair: pair[0].raw_name):
            written: list[int] = []
            try:
                for _, outcome in some:
                    self._settle(tasks[raw_name], outcome)
                    if outcome.result not in ("refused", "unreadable"):
                        written.append(outcome.message.uid)
                    if len(written) >= _JOURNAL_EVERY:
                        self._state.journal_written(self._journal, raw_name, written)
                        written = []
            finally:
                self._state.journal_written(self._journal, raw_name, written)

    def _pairs(self, task: MailboxTask, uids: set[int]) -> Iterator[Pair]:
        """The messages of the segments that hold these UIDs."""
        if not uids:
            return
        first, last = min(uids), max(uids)
        for segment in task.record.segments:
            if segment.first <= last and first <= segment.last:
                yield from segments.read(self._repository, segment)

    def _look(self, task: MailboxTask) -> tuple[set[int], int]:
        """UIDs that are to be written, the rest being counted as present; and how many messages there are strangers."""
        lookup, erased = Lookup(self._target.present(task.record.mailbox), self._held), self._repository.erased.now
        missing: set[int] = set()
        recognised: set[int] = set()
        octets = 0
        only = self._only.get(task.record.mailbox.raw_name) if self._only is not None else None
        for row, _ in restore_plan.messages_of(self._repository, task.record):
            if only is not None and row.uid not in only:
                continue
            if row.message in erased:
                task.erased.add(row.uid)
                continue
            # Asked also for what this run has written: it uses up what the target has of it.
            there = lookup.is_there(row)
            if row.uid in task.settled:
                continue
            if there:
                recognised.add(row.uid)
                octets += row.size
            else:
                missing.add(row.uid)
        journal = self._state.journal(self._journal, task.record.mailbox.raw_name)
        missing -= restore_plan.rewritten_by_the_server(journal, recognised, lookup.strangers)
        task.present = task.record.messages - task.unreadable - len(missing) - len(task.settled) - len(task.erased)
        if not task.announced:
            self._observer(Advance(self._account, task.record.mailbox.name, task.present + len(task.erased), octets))
            task.announced = True
        return missing, lookup.strangers

    def _outgoing(self, task: MailboxTask, uids: set[int]) -> Iterator[tuple[Mailbox, Outgoing]]:
        for row, state in self._pairs(task, uids):
            if self._stop.is_set():
                return
            if row.uid not in uids:
                continue
            try:
                body = self._store.open(row.message, row.size)
            except (Damaged, StorageError) as error:
                if isinstance(error, Transient):
                    raise
                task.damaged += 1
                self._lost(task, row.uid, error)
                continue
            yield (
                task.record.mailbox,
                Outgoing(
                    key=row.message,
                    fingerprint=row.fingerprint,
                    uid=row.uid,
                    flags=state.flags,
                    internaldate=row.internaldate,
                    size=row.size,
                    body=body,
                ),
            )

    def _lost(self, task: MailboxTask, uid: int, error: BackupdError) -> None:
        task.settled.add(uid)
        self._problems.append(Problem(task.record.mailbox.name, uid, str(error)))

    def _settle(self, task: MailboxTask, outcome: Outcome) -> None:
        uid = outcome.message.uid
        task.settled.add(uid)
        if outcome.result == "refused":
            task.refused += 1
        elif outcome.result == "unreadable":
            task.damaged += 1
        else:
            task.written += 1
            task.altered += outcome.result == "altered"
        if outcome.result != "written":
            self._problems.append(Problem(task.record.mailbox.name, uid, outcome.what))
        self._observer(Advance(self._account, task.record.mailbox.name, 1, outcome.message.size))

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            "stopped", subject=self._account, remedy="what was written stays; the same command goes on from there"
        )
