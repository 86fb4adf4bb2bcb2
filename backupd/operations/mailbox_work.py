"""What a run knows and decides about one mailbox. Pure but for the runs it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from backupd.errors import ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MailboxStatus, MessageState, Problem
from backupd.operations.chunk import ChunkResult
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord
from backupd.sources.base import Discovered, Known, Scan

_VOLATILE = {b"\\marked", b"\\unmarked", b"\\haschildren", b"\\hasnochildren"}
"""LIST attributes that say something of the moment and not of the mailbox."""


def lasting(mailbox: Mailbox) -> Mailbox:
    """The mailbox without what LIST says of the moment, so that it alone is no change."""
    kept = tuple(attribute for attribute in mailbox.attributes if attribute.lower() not in _VOLATILE)
    return msgspec.structs.replace(mailbox, attributes=kept)


def unchanged(before: MailboxRecord | None, found: Discovered) -> bool:
    """Whether positions alone prove that nothing happened (RFC 7162, 3.1.1): the mailbox need not be opened."""
    if before is None or before.missing:
        return False
    return positions(before.status) == positions(found.status) and None not in positions(found.status)


def positions(status: MailboxStatus) -> tuple[int | None, ...]:
    """What moves whenever a mailbox changes, if the server has CONDSTORE."""
    return status.uidvalidity, status.uidnext, status.messages, status.highestmodseq


def known_of(repository: Repository, before: MailboxRecord | None, found: Discovered) -> Known | None:
    """What to compare the mailbox with. None when it was not known, or its UIDs cannot be trusted."""
    if before is None:
        return None
    # UIDNEXT never goes back (RFC 3501, 2.3.1.1): if it does, the server has begun anew and forgot to say so.
    went_back = (found.status.uidnext or 0) < (before.status.uidnext or 0) if found.status.uidnext else False
    if went_back:
        return None
    return Known(
        status=before.status,
        uids=stored_uids(repository, before.segments),
        states=lambda: segments.states_of(repository, before.segments),
    )


def stored_uids(repository: Repository, some: Iterable[Segment]) -> UidSet:
    """The UIDs of segments."""
    return UidSet.from_ranges(segments.uid_ranges(repository, some))


class MailboxWork:
    """One mailbox in one run: from its scan to its record in the snapshot."""

    def __init__(self, repository: Repository, found: Discovered, before: MailboxRecord | None, scan: Scan) -> None:
        self.mailbox, self.scan, self.before = lasting(found.mailbox), scan, before
        self._repository = repository
        self.base: list[Segment] = [] if scan.reset or before is None else list(before.segments)
        held = stored_uids(repository, self.base) if self.base else UidSet.EMPTY
        self.new = scan.uids - held
        self.vanished = held - scan.uids
        self.last = held.max if held else 0
        self.waiting = 0
        self.results: list[ChunkResult] = []
        self._refusals: list[Problem] = []

    @property
    def was_reset(self) -> bool:
        """Whether the mailbox was known and its UIDs no longer apply."""
        return self.before is not None and self.scan.reset

    def departed(self) -> Iterable[MessageRow]:
        """Messages that were known and are no longer where they were."""
        if self.was_reset and self.before:
            for segment in self.before.segments:
                yield from (row for row, _ in segments.read(self._repository, segment))
        elif self.vanished:
            yield from rows_of(self._repository, self.base, self.vanished)

    def chunks(self, size: Callable[[], int]) -> Iterable[tuple[UidSet, bool]]:
        """(new UIDs, whether they all come after those that are stored) in stretches of at most `size()` messages."""
        between = UidSet.from_uids(uid for uid in self.new if uid < self.last) if self._any_between() else UidSet.EMPTY
        for uids in between.cut(size):
            yield uids, False
        for uids in (self.new - between).cut(size):
            yield uids, True

    def _any_between(self) -> bool:
        return bool(self.new) and self.new.min < self.last

    def refused(self, error: ServerRefused) -> None:
        """The server refused to go on with this mailbox as a whole."""
        self._refusals.append(Problem(self.mailbox.name, None, str(error)))

    def partial(self) -> MailboxRecord:
        """The record for a checkpoint: what is stored so far, and no position that would let the next run skip it."""
        status = MailboxStatus(uidvalidity=self.scan.status.uidvalidity, mailbox_id=self.scan.status.mailbox_id)
        joined, pairs = self._joined(self.base), self._pairs()
        if pairs:  # what fills the gaps that a run before has left counts as well: else it would be read over and over
            joined = segments.update(self._repository, joined, added=pairs)
        return self._record(status, joined, [])

    def finish(self) -> MailboxRecord:
        """The record for the snapshot, with the proof of completeness: what the server listed is stored or missing."""
        changed: dict[int, MessageState] = {state.uid: state for state in self.scan.changed}
        base, pairs = self.base, self._pairs()
        if self.vanished or changed or pairs:
            base = segments.update(self._repository, base, vanished=self.vanished, changed=changed, added=pairs)
        joined = segments.merge_tail(self._repository, self._joined(base))
        if joined == self.base:
            missing = self.new
        else:
            missing = self.scan.uids - stored_uids(self._repository, joined)
        for result in self.results:
            missing -= result.gone
        return self._record(self.scan.status, joined, list(missing))

    def explain(self, missing: Sequence[int]) -> list[Problem]:
        """Why messages are missing."""
        reasons = {problem.uid: problem for result in self.results for problem in result.problems}
        if self._refusals:
            return self._refusals + [reasons[uid] for uid in missing if uid in reasons]
        unknown = "the server lists this message, and it is not in the snapshot"
        return [reasons.get(uid) or Problem(self.mailbox.name, uid, unknown) for uid in missing]

    def _pairs(self) -> list[tuple[MessageRow, MessageState]]:
        """Messages between those that are stored."""
        return sorted((pair for result in self.results for pair in result.pairs), key=lambda pair: pair[0].uid)

    def _joined(self, base: list[Segment]) -> list[Segment]:
        fresh = [segment for result in self.results for segment in result.segments]
        return base + sorted(fresh, key=lambda segment: segment.first)

    def _record(self, status: MailboxStatus, some: list[Segment], missing: list[int]) -> MailboxRecord:
        return MailboxRecord(
            mailbox=self.mailbox,
            status=status,
            segments=some,
            messages=sum(segment.messages for segment in some),
            octets=sum(segment.octets for segment in some),
            missing=missing,
        )


def rows_of(repository: Repository, some: Iterable[Segment], uids: UidSet) -> Iterable[MessageRow]:
    """The rows of these UIDs; only segments that hold some are read."""
    for segment in some:
        if uids & UidSet.from_ranges([(segment.first, segment.last)]):
            for row, _ in segments.read(repository, segment):
                if row.uid in uids:
                    yield row
