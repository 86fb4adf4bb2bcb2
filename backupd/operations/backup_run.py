"""One run of a backup, from the list of mailboxes to the snapshot (see backup.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from backupd.errors import BackupdError, Interrupted, ServerError, ServerRefused
from backupd.model import Problem
from backupd.operations.backup_report import COUNTS, BackupReport, conclude
from backupd.operations.batch import Batch, as_they_end, gather
from backupd.operations.chunk import Chunk, ChunkResult
from backupd.operations.counting import count
from backupd.operations.events import Observer, Plan
from backupd.operations.history import History
from backupd.operations.local_records import LocalRecords
from backupd.operations.mailbox_work import MailboxWork, known_of, lasting, unchanged
from backupd.operations.mend import mend
from backupd.operations.messages import MessageStore
from backupd.operations.recognition import GoneMessages, Recogniser
from backupd.operations.selection import Selection
from backupd.operations.session_pool import Once, SessionPool, Work
from backupd.operations.state import State
from backupd.operations.stopping import Stop
from backupd.repository import envelopes
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import ROWS, read
from backupd.repository.snapshots import Loss, MailboxRecord
from backupd.sources.base import Discovered, Identity, Known, Scan, Session, Source

CHECKPOINT_SECONDS = 120.0
_FEWEST_IN_CHUNK = 64
_WORTH_A_SESSION = 256
"""Messages."""
_SCANS_IN_BATCH = 64
"""Fewer scans than this are quicker behind each other in one session than another session is opened."""
_MOST_IN_BATCH = 128
"""Chunks of mailboxes with little news in each; a checkpoint comes after them at the earliest."""

_Batches = dict[Future[None], tuple[list[MailboxWork], Batch[ChunkResult]]]
"""Works of mailboxes, and the chunks that are brought in for them together, in the same order."""


class BackupRun:
    """One run, while it lasts."""

    def __init__(
        self,
        repository: Repository,
        source: Source,
        account: str,
        history: History,
        state: State,
        selection: Selection,
        observer: Observer,
        stop: Stop,
        checkpoint_seconds: float,
    ) -> None:
        self._repository, self._account, self._history = repository, account, history
        self._state, self._selection, self._observer, self._stop = state, selection, observer, stop
        self._checkpoint_seconds = checkpoint_seconds
        self._sessions = SessionPool(source, stop=stop)
        self._identity: Identity | None = None
        self._order: list[bytes] = []
        self._records: dict[bytes, MailboxRecord] = {}  # mailboxes that are done, by raw name
        self._works: dict[bytes, MailboxWork] = {}  # mailboxes that are under way
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._gone = GoneMessages()
        self._local = LocalRecords(repository, [], ())
        self._ids_arrived: set[bytes] | None = None
        self._counts = dict.fromkeys(COUNTS, 0)

    def run(self) -> BackupReport:
        """Do it all. Raises what backup() raises."""
        stored_before = self._repository.bytes_stored
        pool = ThreadPoolExecutor(self._sessions.connections, thread_name_prefix="backup")
        try:
            discovery = pool.submit(self._sessions.run, Once(self._discover))
            token = self._mend()
            self._scan(pool, discovery.result())
            self._bring_in(pool)
            pool.submit(self._sessions.close)  # which takes a round trip
            report = self._conclude(stored_before)
            self._state.mended(self._account, token)
            return report
        except BaseException as error:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
            self._keep_what_there_is(error)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._sessions.close()
            self._gone.close()
            self._local.close()

    def _mend(self) -> str:
        """Make up for what is missing from the repository; see mend.py for the token."""
        found = mend(self._repository, self._account, self._history.parent, self._state, self._history.started)
        if found.mailboxes is not None:
            self._history.mended(found.mailboxes)
        for note in [*self._history.notes, *found.notes]:
            self._note(note)
        return found.token

    @property
    def _server(self) -> Identity:
        """Known from discovery on."""
        if self._identity is None:
            raise RuntimeError("there is no snapshot before discovery")
        return self._identity

    def _discover(self, session: Session) -> list[Discovered]:
        self._identity = session.identity
        return session.discover()

    # Scanning

    def _scan(self, pool: ThreadPoolExecutor, found: list[Discovered]) -> None:
        selected = [each for each in found if each.mailbox in self._selection]
        before = {name: record for name, record in self._history.before().items() if not record.local}
        self._local = LocalRecords(
            self._repository,
            [record for record in self._history.before().values() if record.local],
            {each.mailbox.raw_name for each in found},
        )
        self._order = [each.mailbox.raw_name for each in selected]
        scans: list[_Scanning] = []
        for each in selected:
            raw_name = each.mailbox.raw_name
            record = before.get(raw_name)
            if not each.mailbox.selectable:
                self._records[raw_name] = MailboxRecord(lasting(each.mailbox), each.status)
            elif record and unchanged(record, each):
                self._records[raw_name] = msgspec.structs.replace(record, mailbox=lasting(each.mailbox))
            else:
                scans.append(_Scanning(self._repository, each, record))
        self._departed_mailboxes(before, found)
        most = max(_SCANS_IN_BATCH, -(-len(scans) // self._sessions.connections))
        batches: dict[Future[None], tuple[list[_Scanning], Batch[Scan]]] = {}
        for some in gather(scans, lambda _: 0, limit=lambda _: 0, most=most):
            batch = Batch(some, _expect_scans(some), self._stop)
            batches[pool.submit(self._sessions.run, batch)] = some, batch
        self._open_more(pool, scans)
        for future in as_they_end(batches, self._stop):
            future.result()
            some, batch = batches[future]
            for scanning, scan in zip(some, batch.outcomes, strict=False):
                if isinstance(scan, ServerRefused):
                    self._unreadable(scanning.found, scanning.before, scan)
                else:
                    self._scanned(scanning.found, scanning.before, scan)
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._account, remedy="nothing had been read yet")

    def _open_more(self, pool: ThreadPoolExecutor, scans: Sequence[_Scanning]) -> None:
        """Open the sessions that much new mail will need while the mailboxes are scanned in another."""
        new = sum(
            max(0, (each.found.status.messages or 0) - (each.before.messages if each.before else 0)) for each in scans
        )
        for _ in range(min(self._sessions.connections, -(-new // _WORTH_A_SESSION)) - 1):
            pool.submit(self._sessions.open_another)

    def _scanned(self, found: Discovered, record: MailboxRecord | None, scan: Scan) -> None:
        work = MailboxWork(self._repository, found, record, scan)
        self._works[found.mailbox.raw_name] = work
        self._counts["vanished"] += len(work.vanished)
        self._counts["changed"] += len(scan.changed)
        self._gone.add(found.mailbox.raw_name, work.departed())
        if work.was_reset and record:
            old, new = record.status.uidvalidity, scan.status.uidvalidity
            self._note(f"{found.mailbox.name}: UIDVALIDITY changed from {old} to {new}; its UIDs are new")

    def _unreadable(self, found: Discovered, record: MailboxRecord | None, error: ServerRefused) -> None:
        """The mailbox is there and cannot be opened: what was known of it is carried on, and the rest goes on."""
        self._problems.append(Problem(found.mailbox.name, None, str(error)))
        if record:
            self._records[found.mailbox.raw_name] = record
        else:
            self._order.remove(found.mailbox.raw_name)

    def _departed_mailboxes(self, before: Mapping[bytes, MailboxRecord], found: Iterable[Discovered]) -> None:
        there = {each.mailbox.raw_name for each in found}
        for raw_name, record in before.items():
            if raw_name in there or record.mailbox not in self._selection or not record.mailbox.selectable:
                continue
            self._note(f"{record.mailbox.name}: this mailbox of {count(record.messages, 'message')} is gone or renamed")
            self._counts["vanished"] += record.messages
            for segment in record.segments:
                self._gone.add(raw_name, (row for row, _ in read(self._repository, segment)))

    # Bringing in what is new

    def _bring_in(self, pool: ThreadPoolExecutor) -> None:
        batches = self._begin(pool)
        for raw_name in [raw_name for raw_name, work in self._works.items() if not work.waiting]:
            self._finish(raw_name)
        self._collect(batches)

    def _begin(self, pool: ThreadPoolExecutor) -> _Batches:
        if self._gone:
            self._ids_arrived = set()
        if any(work.new for work in self._works.values()):
            for rows in self._local.rows():
                self._gone.add(b"", rows, dated=False)
        server_ids = bool({"OBJECTID", "X-GM-EXT-1"} & set(self._server.capabilities))
        recogniser = Recogniser(
            self._gone,
            self._state,
            self._account,
            self._repository.secrets,
            relies=self._relies,
            server_ids=server_ids,
        )
        store = MessageStore(self._repository)
        ahead = sum(len(work.new) for work in self._works.values())
        self._observer(Plan(self._account, ahead))
        chunks: list[tuple[Chunk, MailboxWork]] = []
        left = ahead
        for work in self._works.values():
            for uids, append in work.chunks(lambda: self._portion(left)):  # noqa: B023 - as much as is left by then
                left -= len(uids)
                chunk = Chunk(
                    self._account,
                    work.mailbox,
                    uids,
                    write=append,
                    repository=self._repository,
                    store=store,
                    recogniser=recogniser,
                    arrived=self._arrived,
                    observer=self._observer,
                    stop=self._stop,
                )
                work.waiting += 1
                chunks.append((chunk, work))
        batches: _Batches = {}
        for some in gather(chunks, lambda each: each[0].messages, limit=self._portion, most=_MOST_IN_BATCH):
            together = [chunk for chunk, _ in some]
            batch = Batch(together, _expect_fetches(together), self._stop)
            batches[pool.submit(self._sessions.run, batch)] = [work for _, work in some], batch
        return batches

    def _relies(self, row: MessageRow) -> bool:
        """Whether a message need not be downloaded: it is stored and stays there, or it is erased and stays gone."""
        repository = self._repository
        stored = repository.erasure_of(row.message) is not None or repository.relies(row.message)
        return stored and envelopes.relies(repository, row.envelopes)

    def _portion(self, left: int) -> int:
        """How many of the messages that are left one session reads next: ever fewer, so that all end at the same time.

        Sizes are not known, and what a connection gets of a long line may be a tenth of what another gets.
        """
        return min(ROWS, max(_FEWEST_IN_CHUNK, left // (self._sessions.connections * 4) + 1))

    def _arrived(self, rows: list[MessageRow]) -> None:
        """Called from the threads of chunks."""
        if self._ids_arrived is not None:
            self._ids_arrived.update(row.message for row in rows)
        if any(row.server_id for row in rows):
            self._state.learn(self._account, rows)

    def _collect(self, batches: _Batches) -> None:
        last = time.monotonic()
        failure: BackupdError | None = None
        for future in as_they_end(batches, self._stop):
            ended: BackupdError | None = None
            try:
                future.result()
            except BackupdError as error:
                ended = error
                if not isinstance(error, Interrupted):  # which is said below, for all
                    # The others stop where they are, and what they have is kept.
                    self._stop.set()
                    failure = failure or error
            works, batch = batches.pop(future)
            for work, result in zip(works, batch.outcomes, strict=False):
                if isinstance(result, ServerRefused):
                    work.refused(result)
                    self._taken(work)
                else:
                    self._take(work, result)
            chunk = batch.under_way
            if isinstance(ended, Interrupted | ServerError) and isinstance(chunk, Chunk):
                self._take(works[len(batch.outcomes)], chunk.so_far())
            if time.monotonic() - last > self._checkpoint_seconds and not self._stop.is_set():
                self._write_checkpoint()
                last = time.monotonic()
        if failure:
            raise failure
        if self._stop.is_set():
            raise self._stop.reason or Interrupted(
                "stopped", subject=self._account, remedy="what was read is kept; the next run goes on"
            )

    def _take(self, work: MailboxWork, result: ChunkResult) -> None:
        work.results.append(result)
        self._counts["new"] += result.new
        self._counts["recognised"] += result.recognised
        self._counts["downloaded"] += result.octets
        self._notes += result.notes
        if not result.unread:
            self._taken(work)

    def _taken(self, work: MailboxWork) -> None:
        work.waiting -= 1
        if not work.waiting:
            self._finish(work.mailbox.raw_name)

    def _finish(self, raw_name: bytes) -> None:
        work = self._works.pop(raw_name)
        record = work.finish()
        self._records[raw_name] = record
        self._local.arrived(record, work.new)
        self._problems += work.explain(record.missing)

    # The snapshot

    def _note(self, text: str) -> None:
        self._notes.append(text)

    def _write_checkpoint(self) -> None:
        """Everything that is stored by now, so that the next run need not read it again."""
        before = {name: record for name, record in self._history.before().items() if not record.local}
        mailboxes = []
        for raw_name in [*self._order, *(raw_name for raw_name in before if raw_name not in self._order)]:
            if record := self._records.get(raw_name):
                mailboxes.append(record)
            elif work := self._works.get(raw_name):
                mailboxes.append(work.partial())
            elif raw_name in before:
                # Not looked at yet, or gone: kept, so that the next run compares with it.
                mailboxes.append(before[raw_name])
        self._history.checkpoint(self._server, [*mailboxes, *self._local.records], self._notes)

    def _keep_what_there_is(self, error: BaseException) -> None:
        if not any(self._counts[each] for each in ("new", "recognised")):
            return
        try:
            self._write_checkpoint()
        except BackupdError as second:
            error.add_note(f"and what was read so far could not be kept: {second}")

    def _conclude(self, stored_before: int) -> BackupReport:
        mailboxes = [*(self._records[raw_name] for raw_name in self._order), *self._local.finish()]
        losses = self._losses(mailboxes)
        problems = sorted(self._problems, key=lambda problem: (problem.mailbox, problem.uid or 0, problem.what))
        return conclude(
            self._history,
            self._server,
            mailboxes,
            problems,
            losses,
            self._notes,
            stored_before=stored_before,
            counts=self._counts,
        )

    def _losses(self, mailboxes: list[MailboxRecord]) -> list[Loss]:
        arrived = self._ids_arrived or set()
        departed = {raw_name: set(self._gone.messages(raw_name)) - arrived for raw_name in self._gone.origins()}
        return self._history.losses(departed, mailboxes)


class _Scanning(Work[Scan]):
    """The scan of one mailbox."""

    progress = 0

    def __init__(self, repository: Repository, found: Discovered, before: MailboxRecord | None) -> None:
        self._repository, self.found, self.before = repository, found, before
        self._known: tuple[Known | None] | None = None

    @property
    def known(self) -> Known | None:
        """What to compare the mailbox with; read when it is needed, on the thread that needs it."""
        # No functools.cached_property: in Python 3.11 all objects share its lock, and all others would wait.
        if self._known is None:
            self._known = (known_of(self._repository, self.before, self.found),)
        return self._known[0]

    def __call__(self, session: Session) -> Scan:
        return session.scan(self.found.mailbox, self.known)


def _expect_scans(some: Sequence[_Scanning]) -> Callable[[Session], None]:
    return lambda session: session.expect_scans([(each.found.mailbox, each.known) for each in some])


def _expect_fetches(some: Sequence[Chunk]) -> Callable[[Session], None]:
    return lambda session: session.expect_fetches([each.expected for each in some if each.expected])
