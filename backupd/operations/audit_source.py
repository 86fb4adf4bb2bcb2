"""A mail server compared with the newest snapshot of its account: what the server has now, message by message.

What came, went or was changed since the snapshot is counted, and alarms nobody. A message that should be in the
snapshot and is not, flags that were other already when it was taken, or other bytes under the same UID: these are told.
Of some messages the bytes are downloaded and compared, too. Nothing is changed on the server. """

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from backupd.errors import Damaged, Interrupted, ObjectMissing, ServerRefused
from backupd.mail import dates
from backupd.mail.uidset import UidSet
from backupd.model import Body, MessageState
from backupd.operations.audit_report import Finding, Level, Severity, SourceResult
from backupd.operations.counting import count
from backupd.operations.events import Advance, Observer, Plan
from backupd.operations.messages import MessageStore
from backupd.operations.selection import Selection, readable_path
from backupd.operations.session_pool import Once, SessionPool
from backupd.operations.stopping import Stop
from backupd.repository import segments
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot, SnapshotRef
from backupd.sources.base import Described, Discovered, Scan, Session, Source, Unreadable
from backupd.sources.pop3.base import Pop3Source, server_id

_MOST_DOUBTED = 200
"""Messages of a mailbox that are downloaded since their size or date is not what it was."""

_TOLD = 5
"""UIDs in a finding."""


@dataclass(frozen=True)
class Servers:
    """How the servers of accounts are reached; None for an account that is not of this kind."""

    imap: Callable[[str], Source | None]
    pop3: Callable[[str], Pop3Source | None]
    selection: Callable[[str], Selection]


class SourceAudit:
    """One account, compared.

    Args:
        bodies: how many messages are downloaded and compared.
        budget: the share of the messages whose sizes, dates and flags are asked for; None: all.
    """

    def __init__(
        self,
        repository: Repository,
        account: str,
        ref: SnapshotRef,
        snapshot: Snapshot,
        *,
        bodies: int,
        budget: float | None,
        chance: random.Random,
        observer: Observer,
        stop: Stop,
    ) -> None:
        self._repository, self._account, self._ref, self._snapshot = repository, account, ref, snapshot
        self._bodies, self._budget, self._chance = bodies, budget, chance
        self._observer, self._stop = observer, stop
        self._store = MessageStore(repository)
        self._counts: Counter[str] = Counter()
        self.findings: list[Finding] = []

    # IMAP

    def imap(self, source: Source, selection: Selection) -> SourceResult:
        """Compare with an IMAP server. Raises errors of the server, and Interrupted."""
        records = {each.mailbox.raw_name: each for each in self._snapshot.mailboxes if not each.local}
        self._observer(Plan(self._account, sum(each.messages for each in records.values())))
        pool = SessionPool(source, stop=self._stop)
        try:
            found = {each.mailbox.raw_name: each for each in pool.run(Once(lambda session: session.discover()))}
            for raw_name, record in records.items():
                if raw_name in found or not record.messages:
                    continue
                self._counts["gone"] += record.messages
                self._note(record, f"gone or renamed since the snapshot, with {count(record.messages, 'message')}")
            chosen = (each for each in found.values() if each.mailbox in selection and each.mailbox.selectable)
            wanted = {each.mailbox.raw_name: each for each in chosen}
            sample = self._sample([records[name] for name in wanted if name in records])
            for raw_name, each in wanted.items():
                self._go_on()
                known = records.get(raw_name)
                if known is None:
                    self._counts["new"] += each.status.messages or 0
                    continue
                try:
                    self._mailbox(pool, each, known, sample.get(raw_name, ()))
                except ServerRefused as error:
                    self._tell(Severity.UNKNOWN, known, f"the server does not let it be read: {error.what}")
        finally:
            pool.close()
        return self._result(len(wanted))

    def _mailbox(self, pool: SessionPool, found: Discovered, record: MailboxRecord, sample: Sequence[int]) -> None:
        scan = pool.run(Once(lambda session: session.scan(found.mailbox, None)))
        before, now = record.status.uidvalidity, scan.status.uidvalidity
        if before is not None and now is not None and before != now:
            self._counts["new"] += len(scan.uids)
            self._counts["gone"] += record.messages
            self._note(record, f"UIDVALIDITY has changed from {before} to {now} since the snapshot")
            return
        stored = UidSet.from_ranges(self._uid_ranges(record))
        self._counts["gone"] += len(stored - scan.uids)
        self._not_stored(record, scan, stored)
        doubted: set[int] = set()
        for segment in record.segments:
            self._go_on()
            if self._budget is None or self._chance.random() < self._budget:
                self._segment(pool, found, record, segment, scan, doubted)
        self._compare_bodies(pool, found, record, [*sorted(doubted)[:_MOST_DOUBTED], *sample], scan)
        self._counts["mailboxes"] += 1

    def _uid_ranges(self, record: MailboxRecord) -> list[tuple[int, int]]:
        """Of the segments that can be read; the level of metadata has told about others."""
        ranges: list[tuple[int, int]] = []
        for segment in record.segments:
            try:
                ranges += segments.uid_ranges(self._repository, [segment])
            except (Damaged, ObjectMissing):
                ranges.append((segment.first, segment.last))
        return ranges

    def _not_stored(self, record: MailboxRecord, scan: Scan, stored: UidSet) -> None:
        """Messages on the server that are not in the snapshot: new, known to be missing, or unexplained."""
        missing = UidSet.from_uids(record.missing) & scan.uids
        others = scan.uids - stored - missing
        uidnext = record.status.uidnext
        old = UidSet.from_ranges([(1, uidnext - 1)]) & others if uidnext is not None and uidnext > 1 else UidSet.EMPTY
        self._counts["new"] += len(others) - len(old)
        if old:
            self._counts["unexplained"] += len(old)
            what = f"there when the snapshot was taken, and not in it: {_some(old)}"
            self._tell(Severity.WARNING, record, what, "the next backup takes them in; if it does not, report it")
        if missing:
            what = f"could not be read when the snapshot was taken, and not in it: {_some(missing)}"
            self._tell(Severity.WARNING, record, what, "the snapshot's problems say why")

    def _segment(
        self,
        pool: SessionPool,
        found: Discovered,
        record: MailboxRecord,
        segment: Segment,
        scan: Scan,
        doubted: set[int],
    ) -> None:
        """Compare sizes, dates and flags of a stretch."""
        pairs = {row.uid: (row, state) for row, state in self._pairs(segment)}
        uids = UidSet.from_uids(pairs) & scan.uids
        if not uids:
            return

        def ask(session: Session) -> list[Described]:
            return list(session.describe(found.mailbox, uids))

        wrong: dict[str, list[int]] = {}
        for described in pool.run(Once(ask)):
            pair = pairs.get(described.facts.uid)
            if pair is None:
                continue
            difference = _difference(pair, described, record.status.highestmodseq)
            if difference in ("size", "date"):
                doubted.add(described.facts.uid)
            if difference in ("date", "flags"):
                wrong.setdefault(difference, []).append(described.facts.uid)
            self._counts["unexplained" if difference in ("date", "flags") else difference or "agreed"] += 1
        for which, some in wrong.items():
            what = f"the server has {_OTHER[which]} for {_some(UidSet.from_uids(some))}"
            self._tell(Severity.WARNING, record, what)
        self._observer(Advance(self._account, record.mailbox.name, len(uids), 0))

    def _pairs(self, segment: Segment) -> Iterator[tuple[MessageRow, MessageState]]:
        try:
            yield from segments.read(self._repository, segment)
        except (Damaged, ObjectMissing):  # the level of metadata has told about it
            return

    # Bodies

    def _sample(self, records: Sequence[MailboxRecord]) -> dict[bytes, list[int]]:
        """UIDs by raw name: of all messages of these mailboxes, so many at random."""
        total = sum(record.messages for record in records)
        numbers = sorted(self._chance.sample(range(total), min(self._bodies, total)))
        chosen: dict[bytes, list[int]] = {}
        before = 0
        for record in records:
            own = {number - before for number in numbers if before <= number < before + record.messages}
            before += record.messages
            if own:
                uids = UidSet.from_ranges(self._uid_ranges(record))
                chosen[record.mailbox.raw_name] = [uid for place, uid in enumerate(uids) if place in own]
        return chosen

    def _compare_bodies(
        self, pool: SessionPool, found: Discovered, record: MailboxRecord, sample: Sequence[int], scan: Scan
    ) -> None:
        wanted = UidSet.from_uids(sorted(set(sample))) & scan.uids
        if not wanted:
            return
        rows: dict[int, MessageRow] = {}
        for segment in record.segments:
            if any(segment.first <= uid <= segment.last for uid in wanted):
                rows.update((row.uid, row) for row, _ in self._pairs(segment) if row.uid in wanted)

        def fetch(session: Session) -> list[tuple[int, str, int]]:
            """UID, what is wrong, and octets of each message; bodies are compared as they come, and not kept."""
            compared = []
            for each in session.fetch(found.mailbox, wanted):
                uid = each.uid if isinstance(each, Unreadable) else each.facts.uid
                if uid not in rows:
                    continue
                if isinstance(each, Unreadable):
                    compared.append((uid, f"the server does not give it: {each.what}", 0))
                else:
                    size = len(each.body) if isinstance(each.body, bytes) else each.body.size
                    compared.append((uid, self._differs(rows[uid], each.body), size))
            return compared

        for uid, what, octets in pool.run(Once(fetch)):
            self._counts["bodies"] += 1
            self._counts["octets"] += octets
            if what:
                self._counts["unexplained"] += 1
                unread = what.startswith("the server does not give it")
                self._tell(Severity.WARNING if unread else Severity.CRITICAL, record, f"UID {uid}: {what}")

    def _differs(self, row: MessageRow, body: bytes | Body) -> str:
        """How the server's bytes differ from those in the archive; empty where they are the same. A writer's key
        compares ids, which are keyed hashes of the bytes; a reader's the bytes themselves."""
        if self._repository.secrets.role is not Role.READER or row.message in self._repository.erased.now:
            same = self._store.id_of(body) == row.message
        else:
            try:
                same = _equal(_chunks(self._store.open(row.message, row.size)), _chunks(body))
            except (Damaged, ObjectMissing) as error:
                return f"the archive cannot give it: {error.what}"
        return "" if same else "the server has other bytes than the archive"

    # POP3

    def pop3(self, source: Pop3Source) -> SourceResult:
        """Compare with what a POP3 server lists. Bodies are left alone: some servers mark as read, or hide, what is
        read.

        Raises errors of the server.
        """
        known: set[bytes] = set()
        there = 0
        for record in self._snapshot.mailboxes:
            for segment in record.segments:
                for row, state in self._pairs(segment):
                    if row.server_id and not state.gone:
                        known.add(row.server_id)
        session = source.open()
        try:
            listed = session.listing()
        finally:
            session.close()
        named = [server_id(each) for each in listed if each.uidl]
        there = sum(each in known for each in named)
        self._counts.update(agreed=there, new=len(named) - there, gone=len(known - set(named)), mailboxes=1)
        if unnamed := len(listed) - len(named):
            what = f"no UIDL for {count(unnamed, 'message')}, which cannot be compared without being read"
            self.findings.append(Finding(Severity.NOTE, Level.SOURCE, self._account, what, account=self._account))
        return self._result(1)

    # What is told

    def _result(self, mailboxes: int) -> SourceResult:
        counts = self._counts
        return SourceResult(
            snapshot=self._ref.id,
            mailboxes=mailboxes,
            agreed=counts["agreed"] + counts["size"],
            new=counts["new"],
            gone=counts["gone"],
            changed=counts["changed"],
            unexplained=counts["unexplained"],
            bodies=counts["bodies"],
            octets=counts["octets"],
        )

    def _note(self, record: MailboxRecord, what: str) -> None:
        self._tell(Severity.NOTE, record, what)

    def _tell(self, severity: Severity, record: MailboxRecord, what: str, remedy: str = "") -> None:
        subject = f"{self._account}: {readable_path(record.mailbox)}"
        self.findings.append(Finding(severity, Level.SOURCE, subject, what, remedy, self._account))

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._account, remedy="run it again")


_OTHER = {"date": "another date of arrival", "flags": "other flags, which were not changed since the snapshot,"}


def _difference(pair: tuple[MessageRow, MessageState], now: Described, highestmodseq: int | None) -> str:
    """What differs: "size", "date", "flags" that the snapshot should have, flags that were "changed" since; or nothing.

    highestmodseq: of the mailbox when the snapshot was taken; what was changed later has a higher MODSEQ (RFC 7162).
    """
    row, state = pair
    if now.facts.size != row.size:
        return "size"  # some servers estimate it: the bytes tell
    if not _same_date(row.internaldate, now.facts.internaldate):
        return "date"
    if _flags(state) == _flags(now.state):
        return ""
    known = highestmodseq is not None and now.state.modseq is not None
    return "flags" if known and now.state.modseq <= highestmodseq else "changed"  # type: ignore[operator]


def _flags(state: MessageState) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """Flags are the same in any case (RFC 3501, 2.3.2)."""
    return frozenset(flag.lower() for flag in state.flags), tuple(sorted(state.labels))


def _same_date(before: bytes, now: bytes) -> bool:
    """Servers may write the same moment in another zone."""
    if before == now:
        return True
    moment = dates.timestamp(before)
    return moment is not None and moment == dates.timestamp(now)


def _chunks(body: bytes | Body) -> Iterator[bytes]:
    return iter([body]) if isinstance(body, bytes) else body.chunks()


def _equal(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Whether two streams have the same bytes, however they are cut."""
    left, right = b"", b""
    while True:
        left, right = left or next(one, b""), right or next(other, b"")
        size = min(len(left), len(right))
        if left[:size] != right[:size]:
            return False
        if not size:
            return not left and not right
        left, right = left[size:], right[size:]


def _some(uids: UidSet) -> str:
    """UIDs for people, the first few."""
    shown = [uid for _, uid in zip(range(_TOLD), uids, strict=False)]
    more = f" and {len(uids) - len(shown):,} more" if len(uids) > len(shown) else ""
    return f"UID{'s' if len(uids) > 1 else ''} {', '.join(map(str, shown))}{more}"
