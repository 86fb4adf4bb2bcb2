"""Bringing in a stretch of new messages of one mailbox: recognise, fetch, store, and write their runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from backupd.errors import ConnectionLost, ProtocolError, ServerRefused, Throttled
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MessageState, Problem
from backupd.operations.events import Advance, Observer
from backupd.operations.messages import MessageStore
from backupd.operations.recognition import Recogniser
from backupd.operations.session_pool import Work
from backupd.operations.stopping import Stop
from backupd.operations.taking import Taking
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment
from backupd.sources.base import Fetched, Session, Unreadable
from backupd.turns import TURN
from backupd.wire.throttling import PATIENCE

STRIKES = 3
"""How often the connection may die at one message before that message is given up for this run."""
STALLS = 2
"""Messages in a row that are given up because nothing came for minutes, before it is the server and not the message."""

_REPORT_OCTETS = 1 << 20
_REPORT_MESSAGES = 100


class ChunkResult(NamedTuple):
    """What came of a chunk. pairs: its messages, when they were to be returned instead of written as segments.
    unread: UIDs that were not reached because the run was stopped. gone: UIDs that vanished meanwhile."""

    segments: list[Segment]
    pairs: list[tuple[MessageRow, MessageState]]
    problems: list[Problem]
    notes: list[str]
    gone: UidSet
    unread: UidSet
    new: int
    recognised: int
    octets: int


class Chunk(Work[ChunkResult]):
    """One stretch of new UIDs. Called again after a lost connection, it goes on with what is left."""

    def __init__(
        self,
        account: str,
        mailbox: Mailbox,
        uids: UidSet,
        *,
        write: bool,
        repository: Repository,
        store: MessageStore,
        recogniser: Recogniser,
        arrived: Callable[[list[MessageRow]], None],
        observer: Observer,
        stop: Stop,
    ) -> None:
        """write: make segments; else the messages are returned. arrived: told of all messages taken in."""
        self._account, self._mailbox, self._left, self._write = account, mailbox, uids, write
        self._repository, self._store, self._recogniser = repository, store, recogniser
        self._arrived, self._observer, self._stop = arrived, observer, stop
        self._looked = not recogniser.useful
        self._known: dict[int, tuple[MessageRow, MessageState]] = {}
        self._taken = Taking(repository)
        self._problems: dict[int, Problem] = {}
        self._notes: list[str] = []
        self._strikes: dict[int, int] = {}
        self._stalls = self._standing_still = 0
        self._octets = 0
        self._unreported = [0, 0]

    @property
    def messages(self) -> int:
        """How many are still to come."""
        return len(self._left)

    @property
    def expected(self) -> tuple[Mailbox, UidSet] | None:
        """What will be fetched; None as long as that is not known."""
        return (self._mailbox, self._next()) if self._looked else None

    @property
    def progress(self) -> int:
        return len(self._taken) + len(self._known) + len(self._problems) - self._standing_still

    def __call__(self, session: Session) -> ChunkResult:
        with TURN:
            try:
                gone = self._bring_in(session)
            except Throttled as error:
                if error.pause <= PATIENCE:
                    raise
                self._stop.set(error)  # what has been read by now is kept, here and by all other sessions
                gone = UidSet.EMPTY
            return self._finish(gone)

    def so_far(self) -> ChunkResult:
        """What came of it before an error ended it; it is not called again."""
        return self._finish(UidSet.EMPTY)

    def _bring_in(self, session: Session) -> UidSet:
        """Take in what is left; returns those that have vanished."""
        if not self._looked:
            for row, state in self._recogniser.recognise(session, self._mailbox, self._left):
                self._known[row.uid] = (row, state)
                self._report(1, 0)
            self._left -= UidSet.from_uids(self._known)
            self._looked = True
        gone = UidSet.EMPTY
        while self._left and not self._stop.is_set():
            gone |= self._fetch(session, self._next())
        return gone

    def _next(self) -> UidSet:
        """What to ask for: everything left, or alone the message at which the connection died twice."""
        twice = (uid for uid, count in self._strikes.items() if count == STRIKES - 1 and uid in self._left)
        suspect = next(twice, None)
        return self._left if suspect is None else UidSet.from_uids([suspect])

    def _fetch(self, session: Session, uids: UidSet) -> UidSet:
        """Take in these messages; returns those of them that have vanished. What was done is no longer in `_left`."""
        done: list[int] = []
        try:
            for item in session.fetch(self._mailbox, uids):
                done.append(item.uid if isinstance(item, Unreadable) else item.facts.uid)
                if isinstance(item, Unreadable):
                    self._give_up(item.uid, item.what)
                else:
                    self._take(item)
                if self._stop.is_set():
                    return UidSet.EMPTY
        except (ConnectionLost, ProtocolError) as error:
            self._strike(uids - UidSet.from_uids(done), error)
            raise
        except ServerRefused as error:
            refused = uids - UidSet.from_uids(done)
            done += refused
            for uid in refused:
                self._give_up(uid, str(error))
            return UidSet.EMPTY
        finally:
            self._left -= UidSet.from_uids(done)
        return self._left_out(session, uids & self._left)

    def _strike(self, unanswered: UidSet, error: ConnectionLost | ProtocolError) -> None:
        """Blame the message that was next: servers send them in order."""
        blamed = next(iter(unanswered), None)
        if blamed is None:
            return
        self._strikes[blamed] = self._strikes.get(blamed, 0) + 1
        if self._strikes[blamed] >= STRIKES:
            self._give_up(blamed, f"the connection failed {STRIKES} times at this message: {error.what}")
            self._left -= UidSet.from_uids([blamed])
            if isinstance(error, ConnectionLost) and error.waited:
                self._stalls += 1
                self._standing_still += self._stalls > STALLS

    def _left_out(self, session: Session, uids: UidSet) -> UidSet:
        """The server gave neither a message nor a reason. Those it no longer lists are gone; the others are problems.
        """
        if not uids:
            return UidSet.EMPTY
        there = UidSet.from_uids(described.facts.uid for described in session.describe(self._mailbox, uids))
        for uid in there & uids:
            self._give_up(uid, "the server lists this message and does not deliver it")
        self._left -= uids
        return uids - there

    def _give_up(self, uid: int, what: str) -> None:
        self._problems[uid] = Problem(self._mailbox.name, uid, what)

    def _take(self, item: Fetched) -> None:
        facts = item.facts
        stored = self._store.store(item.body)
        if item.note:
            self._notes.append(f"{self._mailbox.name} UID {facts.uid}: {item.note}")
        self._taken.take(facts, item.state, stored)
        self._stalls = 0
        self._octets += stored.size
        self._report(1, stored.size)

    def _report(self, messages: int, octets: int) -> None:
        unreported = self._unreported
        unreported[0] += messages
        unreported[1] += octets
        if unreported[0] >= _REPORT_MESSAGES or unreported[1] >= _REPORT_OCTETS:
            self._tell()

    def _tell(self) -> None:
        messages, octets = self._unreported
        self._unreported = [0, 0]
        if messages:
            self._observer(Advance(self._account, self._mailbox.name, messages, octets))

    def _finish(self, gone: UidSet) -> ChunkResult:
        self._tell()
        new = len(self._taken)
        pairs = [*self._known.values(), *self._taken.rows()]
        pairs.sort(key=lambda pair: pair[0].uid)
        self._arrived([row for row, _ in pairs])
        written = []
        if self._write and pairs:
            written = segments.write(self._repository, [row for row, _ in pairs], [state for _, state in pairs])
        return ChunkResult(
            segments=written,
            pairs=[] if self._write else pairs,
            problems=list(self._problems.values()),
            notes=self._notes,
            gone=gone,
            unread=self._left,
            new=new,
            recognised=len(self._known),
            octets=self._octets,
        )
