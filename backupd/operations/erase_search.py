"""Which messages an erasure is about, where they are listed, and who keeps them.

All lists of all snapshots are read, of every account: a message is the same wherever it is, and what is erased is
erased everywhere. A list may still name messages that are gone by every snapshot that there is; they count, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backupd.errors import Damaged, ObjectMissing
from backupd.mail.query import Candidate, Query
from backupd.operations import protection
from backupd.operations.counting import count
from backupd.operations.erase_leftovers import Key, key
from backupd.operations.look import Lines
from backupd.operations.messages import MessageStore
from backupd.operations.selection import readable_path
from backupd.repository import envelopes, runs
from backupd.repository.holds import Holds
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope, MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import SnapshotRef

Place = tuple[str, str]
"""Account, and readable path of a mailbox."""

_EMPTY = Envelope()


@dataclass
class Listing:
    """A membership run. places: the mailboxes it is of. states: by the id of a state run that goes with it (empty where
    all of its messages are there), in which snapshots, as bits."""

    places: dict[Place, None] = field(default_factory=dict)
    states: dict[bytes, int] = field(default_factory=dict)


@dataclass
class Match:
    """A message that is meant. snapshots: that list it, as bits. row: one of its rows; place: where that is. places:
    how many lists have it; accounts: whose these are. kept_by, until: see erase_report.py."""

    row: MessageRow
    place: Place
    places: int = 0
    accounts: set[str] = field(default_factory=set)
    snapshots: int = 0
    kept_by: str = ""
    until: datetime | None = None


class Search:
    """One look at all lists.

    refs, accounts: of the snapshots that could be read, in the order of bits. matches: by message id. blank: by the id
    of a run of envelopes, as it is by now, the numbers of those in it that are to go; shown: what these are known by.
    unread: what could not be looked at.
    """

    def __init__(self, repository: Repository, go_on: Callable[[], None]) -> None:
        self._repository, self._go_on = repository, go_on
        self._listings: dict[bytes, Listing] = {}
        self.refs: list[SnapshotRef] = []
        self.accounts: list[str] = []
        self.matches: dict[bytes, Match] = {}
        self.blank: dict[bytes, set[int]] = {}
        self.unread: list[str] = []
        self.shown: set[Key] = set()
        self._orphans: dict[bytes, set[int]] = {}
        self._read: dict[bytes, list[Envelope]] = {}

    def look(self, refs: Iterable[SnapshotRef]) -> None:
        """Read all snapshots."""
        for ref in refs:
            self._go_on()
            try:
                snapshot = self._repository.snapshot(ref)
            except ObjectMissing:  # forgotten since it was listed
                continue
            except Damaged as error:
                self.unread.append(f"snapshot {ref.id}: {error.what}")
                continue
            bit = 1 << len(self.refs)
            self.refs.append(ref)
            self.accounts.append(snapshot.account)
            for record in snapshot.mailboxes:
                place = (snapshot.account, readable_path(record.mailbox))
                for segment in record.segments:
                    self._note(place, segment, bit)

    def _note(self, place: Place, segment: Segment, bit: int) -> None:
        listing = self._listings.setdefault(segment.membership, Listing())
        listing.places[place] = None
        state = b"" if segment.rows == segment.messages else segment.state
        listing.states[state] = listing.states.get(state, 0) | bit

    def find(self, query: Query, accounts: Collection[str]) -> None:
        """Find what is meant. accounts: only where these have it; empty for all."""
        lines, store = Lines(self._repository), MessageStore(self._repository)
        erased, lost = self._repository.erased.now, set[bytes]()
        referenced: dict[bytes, int] = {}
        for membership, listing in self._listings.items():
            places = [place for place in listing.places if not accounts or place[0] in accounts]
            for row in self._rows(membership) if places else ():
                referenced[row.envelopes] = referenced.get(row.envelopes, 0) | 1 << row.envelope
                if row.message in erased or row.message in self.matches:
                    continue
                self._go_on()
                for place in places:
                    try:
                        if query.matches(_candidate(row, place, lines, store)):
                            self.matches[row.message] = Match(row, place)
                    except (Damaged, ObjectMissing):
                        lost.add(row.message)
        if query.only_envelopes and not accounts:
            self._find_orphans(query, referenced)
        if lost := lost - self.matches.keys():
            self.unread.append(f"{count(len(lost), 'message')} of which what the query asks for cannot be read")

    def _find_orphans(self, query: Query, referenced: Mapping[bytes, int]) -> None:
        """Envelopes in runs that lists refer to, of messages that these have no more."""
        by_now: dict[bytes, int] = {}
        for run, numbers in referenced.items():
            self._go_on()
            current = self._current(run)
            if current is not None:
                by_now[current] = by_now.get(current, 0) | numbers
        for run, numbers in by_now.items():
            self._go_on()
            try:
                every = envelopes.read(self._repository, run)
            except (Damaged, ObjectMissing):  # told by whoever needs one of them
                continue
            left = ((at, each) for at, each in enumerate(every) if not numbers >> at & 1 and each != _EMPTY)
            if found := {at for at, each in left if query.shows(each)}:
                self._orphans[run] = found

    def _current(self, run: bytes) -> bytes | None:
        """The run that has these envelopes by now; None where it is lost."""
        return next(filter(self._repository.has, self._repository.erased.now.places(run)), None)

    def locate(self) -> None:
        """Find all places of what is meant; and all envelopes that are to go, of what was erased before, too."""
        erased = self._repository.erased.now
        self.blank = {run: set(numbers) for run, numbers in self._orphans.items()}
        for membership, listing in self._listings.items():
            rows = [row for row in self._rows(membership) if row.message in self.matches or row.message in erased]
            if not rows:
                continue
            there = [(bits, self._alive(state)) for state, bits in listing.states.items()]
            for row in rows:
                self._mind_envelope(row)
                if match := self.matches.get(row.message):
                    match.places += 1
                    match.accounts.update(account for account, _ in listing.places)
                    for bits, alive in there:
                        match.snapshots |= bits if alive is None or _within(row.uid, alive) else 0
        self._read.clear()

    def _rows(self, membership: bytes) -> list[MessageRow]:
        self._go_on()
        try:
            data = self._repository.get_run(membership, BlobKind.MEMBERSHIP)
            return runs.decode_membership(data, membership.hex())
        except (Damaged, ObjectMissing) as error:
            what = f"list {membership.hex()[:16]}: {error.what if isinstance(error, Damaged) else 'it is missing'}"
            if what not in self.unread:
                self.unread.append(what)
            return []

    def _alive(self, state: bytes) -> Sequence[tuple[int, int]] | None:
        """UIDs that a state run names; None for all, also where it cannot be read."""
        if not state:
            return None
        try:
            return runs.state_uid_ranges(self._repository.get_run(state, BlobKind.STATE), state.hex())
        except (Damaged, ObjectMissing):
            return None

    def _mind_envelope(self, row: MessageRow) -> None:
        run = self._current(row.envelopes)
        if run is None:
            return  # nothing of it is there
        if run not in self._read:
            while len(self._read) >= 16:
                del self._read[next(iter(self._read))]
            try:
                self._read[run] = envelopes.read(self._repository, run)
            except (Damaged, ObjectMissing) as error:
                self._read[run] = []
                self.unread.append(f"what lists show, {run.hex()[:16]}: {error.what}")
        known = self._read[run]
        if row.envelope < len(known) and known[row.envelope] != _EMPTY:
            self.blank.setdefault(run, set()).add(row.envelope)
            self.shown.add(key(known[row.envelope]))

    def mind_holds(self, holds: Holds, now: datetime) -> None:
        """Note of what is meant which hold keeps it, the one that lasts longest."""
        for held in holds.active(now):
            until = datetime.fromisoformat(held.hold.until) if held.hold.until else None
            bits = sum(
                1 << number
                for number, ref in enumerate(self.refs)
                if held.hold.snapshot == ref.id
                or (held.hold.snapshot is None and self.accounts[number] == held.hold.account)
            )
            for match in self.matches.values():
                if match.snapshots & bits and (not match.kept_by or _later(until, match.until)):
                    match.kept_by, match.until = protection.told(held), until

    def leave_out(self, messages: Collection[bytes]) -> None:
        """These are not erased after all."""
        for message in messages:
            del self.matches[message]
        self.shown.clear()
        for match in self.matches.values():
            match.places = 0
        self.locate()


def blanked(repository: Repository, run: bytes, numbers: Collection[int]) -> bytes:
    """A run of envelopes without those of these numbers. Raises Damaged."""
    every = envelopes.read(repository, run)
    return runs.encode_envelopes([_EMPTY if number in numbers else each for number, each in enumerate(every)])


def _candidate(row: MessageRow, place: Place, lines: Lines, store: MessageStore) -> Candidate:
    def octets() -> Iterable[bytes]:
        body = store.open(row.message, row.size)
        return [body] if isinstance(body, bytes) else body.chunks()

    return Candidate(row.message, place[1], row.internaldate, row.size, lambda: lines.envelope(row), octets)


def _within(uid: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= uid <= last for first, last in ranges)


def _later(one: datetime | None, other: datetime | None) -> bool:
    """Whether one end is later than the other; None never comes."""
    return other is not None and (one is None or one > other)
