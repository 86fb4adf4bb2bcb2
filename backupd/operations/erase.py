"""`backupd erase`: a person's messages out of every snapshot, for good.

First all is found: the messages, every account and snapshot that lists them, the runs with their envelopes, and the
blocks they lie in. What a hold or a lock keeps is refused, before anything is stored. Then new runs of envelopes are
stored, then the erasure, and with that the messages are gone for whoever reads; last what shares blocks with them is
stored anew, so that those blocks may go. Prunes remove them. A crash in between leaves a valid repository, and the same
command, or `--finish`, goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from backupd.errors import (
    Damaged,
    Forbidden,
    Interrupted,
    ObjectMissing,
    Overtaken,
    StorageDenied,
    UsageError,
    WrongKey,
)
from backupd.mail.headers import readable
from backupd.mail.query import Query
from backupd.operations import record
from backupd.operations.erase_leftovers import Beside
from backupd.operations.erase_report import MOST_SHOWN, Doomed, EraseReport
from backupd.operations.erase_search import Match, Search, blanked
from backupd.operations.events import Observer, Plan, ignore
from backupd.operations.hold import LONGEST_REASON
from backupd.operations.look import Lines
from backupd.operations.state import State
from backupd.repository import condemning, erasures, holds, marks, names
from backupd.repository.condemning import Condemned
from backupd.repository.erasures import MOST_MESSAGES, Erasure
from backupd.repository.index_cache import cut
from backupd.repository.keys import Role
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope
from backupd.repository.snapshots import SnapshotRef, timestamp
from backupd.repository.survey import Survey
from backupd.repository.walking import walk

_MOST_TIMES = 3


def erase(
    repository: Repository,
    query: Query | None,
    accounts: Collection[str] = (),
    *,
    reason: str = "",
    state: State | None = None,
    now: datetime,
    what_is_allowed: bool = False,
    although_locked: bool = False,
    dry_run: bool = False,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> EraseReport:
    """Erase what a query means.

    Args:
        query: None erases nothing more, and finishes what was erased before.
        accounts: only what these have is looked for; none for all. What is found is erased wherever it is.
        state: knows the signed record; None: it is read.
        reason: for people; it is stored for ever, encrypted.
        what_is_allowed: leave out what a hold or a lock keeps, and erase the rest; else nothing is erased then.
        although_locked: erase now what a lock keeps; its octets go when the lock ends.

    Raises Forbidden where something is kept (a dry run tells it in its report), UsageError, WrongKey without the reader
    role, Damaged where a hold cannot be read, Interrupted, StorageDenied, Overtaken where others prune all the time.
    """
    if repository.secrets.role is not Role.READER:
        raise WrongKey("this key is a writer's: it cannot tell whose mail is whose", remedy="use a reader's key")
    if query is not None and not dry_run and (not reason.strip() or len(reason) > LONGEST_REASON):
        raise UsageError(
            "whoever misses these messages reads why they are gone",
            subject="--reason",
            remedy=f"write one, of at most {LONGEST_REASON:,} characters, without the person's name",
        )
    work = _Erase(repository, reason, now, observer, stop or threading.Event(), dry_run=dry_run)
    work.what_is_allowed, work.although_locked, work.state = what_is_allowed, although_locked, state
    for times in range(_MOST_TIMES):
        try:
            return work.run(query, accounts)
        except Overtaken:
            if times == _MOST_TIMES - 1:
                raise
    raise AssertionError


class _Prepared(NamedTuple):
    """erasure: what is to be said; None where that is nothing. condemned: what goes. goes, packs: see the report.
    forbidden: what is kept. unlisted: messages that no snapshot lists."""

    erasure: Erasure | None
    condemned: Condemned
    goes: int
    packs: int
    forbidden: dict[bytes, Match]
    unlisted: int


class _Erase:
    """What an erasure works with. `run` may be called again."""

    what_is_allowed = although_locked = False
    state: State | None = None

    def __init__(
        self,
        repository: Repository,
        reason: str,
        now: datetime,
        observer: Observer,
        stop: threading.Event,
        *,
        dry_run: bool,
    ) -> None:
        self._repository, self._reason, self._now = repository, reason, now
        self._observer, self._stop, self._dry_run = observer, stop, dry_run
        self._report: EraseReport | None = None
        self._refs: list[SnapshotRef] = []

    def run(self, query: Query | None, accounts: Collection[str]) -> EraseReport:
        """Do it once. Called again after it had been erased, it finishes that."""
        while True:
            before = len(self._repository.erased.look())
            try:
                report = self._once(None if self._report else query, accounts)
            except Damaged:
                if set(self._refs) <= set(self._repository.refs()):
                    raise
                continue  # what others have forgotten and pruned meanwhile is no damage
            if self._report is None or self._report.erasure == report.erasure:
                self._report = report
            if self._dry_run or len(self._repository.erased.look()) - before <= bool(report.erasure):
                return self._report
            # Others erased meanwhile, and did not know of this: what each wrote anew still has what the other erased.

    def _once(self, query: Query | None, accounts: Collection[str]) -> EraseReport:
        repository = self._repository
        repository.refresh()
        self._refs = refs = repository.refs()
        self._observer(Plan(repository.storage.url, len(refs), 0))
        search = Search(repository, self._go_on)
        search.look(refs)
        if query is not None:
            search.find(query, accounts)
            if len(search.matches) > MOST_MESSAGES:
                what = f"more than {MOST_MESSAGES:,} messages are meant"
                raise UsageError(what, subject=query.text, remedy="erase them in parts, by date")
        search.locate()
        held = holds.read(repository)
        search.mind_holds(held, self._now)
        # Whose mail that is which is in no list, nobody knows.
        anybody = not accounts and all(each.hold.snapshot for each in held.active(self._now))
        self._of_leftovers = query if anybody else None
        forbidden = {message: match for message, match in search.matches.items() if match.kept_by}
        while True:
            if forbidden and not self.what_is_allowed and not self._dry_run:
                raise _forbidden(forbidden)
            if out := forbidden.keys() & search.matches.keys():
                search.leave_out(out)
            with closing(Survey(repository, marks.objects(marks.read(repository.storage)))) as survey:
                prepared = self._prepare(search, survey, forbidden)
                locked = {} if self.although_locked else self._locked(search, survey, prepared.condemned)
                if locked:
                    forbidden |= locked
                    continue
                report = self._told(search, prepared)
                return report if self._dry_run else self._done(survey, prepared, report)

    def _go_on(self) -> None:
        if self._stop.is_set():
            remedy = "run it again: what is erased stays erased"
            raise Interrupted("stopped", subject=self._repository.storage.url, remedy=remedy)

    # What is to be done

    def _prepare(self, search: Search, survey: Survey, forbidden: dict[bytes, Match]) -> _Prepared:
        said = self._said(search)
        survey.look()
        survey.learn_parts()
        erased = self._repository.erased.now
        if said is not None:
            erased = erased.with_planned("planned", said)
        walked = walk(self._repository, survey, self._refs, self._stop, erased=erased)
        if not walked.is_whole:
            # What these need is not known, so whatever may be mail of somebody else stays.
            survey.need_kinds([BlobKind.PLAIN])
        left = Beside(self._repository, survey, erased, self._of_leftovers, search.shown, self._go_on).look()
        if left.messages or left.envelopes:
            said = erasures.joined(said or self._made((), {}), left.messages, left.envelopes)
            erased = self._repository.erased.now.with_planned("planned", said)
        condemned = condemning.condemn(survey, erased)
        there = [number for number in condemned.blobs if survey.pack_of(number).listed]
        octets = sum(survey.octets(number) for number in there)
        packs = len({survey.pack_of(each).number for each in there})
        return _Prepared(said, condemned, octets, packs, forbidden, len(left.messages))

    def _said(self, search: Search) -> Erasure | None:
        """What is to be said; None where all is said."""
        secrets, pairs = self._repository.secrets, dict[bytes, bytes]()
        for run, numbers in search.blank.items():
            self._go_on()
            pairs[run] = secrets.content_id(blanked(self._repository, run, numbers))
        for first, others in self._repository.erased.now.forks():
            new = pairs.get(first, first)
            pairs |= {each: new for each in others if each != new}
        self._blank = dict(search.blank)
        if not pairs and not search.matches:
            return None
        return self._made(search.matches, pairs)

    def _made(self, messages: Iterable[bytes], envelopes: Mapping[bytes, bytes]) -> Erasure:
        return erasures.make(timestamp(self._now), self._reason, messages, envelopes)

    def _locked(self, search: Search, survey: Survey, condemned: Condemned) -> dict[bytes, Match]:
        """What is meant and lies in objects that cannot be removed yet."""
        locks, known, found = self._repository.storage.locks, dict[str, datetime | None](), dict[bytes, Match]()
        for message, match in search.matches.items() if locks else ():
            self._go_on()
            blobs = [message, *self._repository.erased.now.places(match.row.envelopes)]
            blobs += [part for _, parts in survey.places(message) for part in cut(parts)]
            numbers = {number for blob in blobs for number, _ in survey.places(blob)} & condemned.blobs
            for name in sorted({survey.pack_of(number).object for number in numbers}):
                if name not in known:
                    known[name] = self._locked_until(name)
                until = known[name]
                if until and (match.until is None or until > match.until):
                    match.kept_by, match.until = f"{name} is locked until {until:%Y-%m-%d %H:%M} UTC", until
                    found[message] = match
        return found

    def _locked_until(self, name: str) -> datetime | None:
        try:
            until = self._repository.storage.locks.until(name) if self._repository.storage.locks else None
        except ObjectMissing:
            return None
        return until if until and until > self._now else None

    # Doing it

    def _done(self, survey: Survey, prepared: _Prepared, report: EraseReport) -> EraseReport:
        repository = self._repository
        with repository.running(None):
            if prepared.erasure is not None:
                for run, numbers in self._blank.items():
                    repository.put_run(BlobKind.ENVELOPES, blanked(repository, run, numbers))
                try:
                    identifier, digest = repository.put_erasure(prepared.erasure)
                except StorageDenied as error:
                    raise StorageDenied(
                        f"these credentials may not store erasures: {error.what}",
                        subject=error.subject,
                        remedy="erase needs rights that no writer has: `backupd s3-policy --role eraser` prints them",
                    ) from error
                report = msgspec.structs.replace(report, erasure=identifier)
                self._report = self._report or report  # it is erased, whatever comes now
                adds = [(names.erasure(identifier), digest)]
                reasons = {"reason": self._reason} if self._reason else {}
                record.append(repository, self.state, self._now, "erase", adds=adds, reasons=reasons)
            anew = condemning.store_anew(repository, survey, prepared.condemned, self._go_on)
        return msgspec.structs.replace(report, anew=anew)

    def _told(self, search: Search, prepared: _Prepared) -> EraseReport:
        matches = search.matches
        bits_of_all = 0
        for match in matches.values():
            bits_of_all |= match.snapshots
        lines = Lines(self._repository)
        every = sorted({**matches, **prepared.forbidden}.items(), key=lambda each: not each[1].kept_by)
        ends = [match.until for match in prepared.forbidden.values()]
        return EraseReport(
            repository=self._repository.storage.url,
            dry_run=self._dry_run,
            reason=self._reason,
            erasure="",
            messages=len(matches),
            octets=sum(match.row.size for match in matches.values()),
            snapshots=bits_of_all.bit_count(),
            accounts=sorted({account for match in matches.values() for account in match.accounts}),
            already=len(self._repository.erased.now.messages),
            unlisted=prepared.unlisted,
            goes=prepared.goes,
            packs=prepared.packs,
            anew=0,
            lists=len(self._blank),
            forbidden=len(prepared.forbidden),
            until=max((end for end in ends if end), default=None) if all(ends) else None,
            shown=[self._shown(message, match, lines) for message, match in every[:MOST_SHOWN]],
            unread=list(dict.fromkeys(search.unread)),
        )

    def _shown(self, message: bytes, match: Match, lines: Lines) -> Doomed:
        try:
            envelope = lines.envelope(match.row)
        except (Damaged, ObjectMissing):
            envelope = Envelope()
        return Doomed(
            id=message.hex(),
            account=match.place[0],
            mailbox=match.place[1],
            uid=match.row.uid,
            date=match.row.internaldate.decode("utf-8", "backslashreplace"),
            size=match.row.size,
            sender=readable(envelope.from_),
            subject=readable(envelope.subject),
            places=match.places,
            snapshots=match.snapshots.bit_count(),
            kept_by=match.kept_by,
            until=match.until,
        )


def _forbidden(kept: Mapping[bytes, Match]) -> Forbidden:
    """Why nothing was erased, by the one that is kept longest."""
    last = max(kept.values(), key=lambda match: (match.until is None, match.until or datetime.min.replace(tzinfo=UTC)))
    until = f"until {last.until:%Y-%m-%d %H:%M} UTC" if last.until else "until somebody ends that"
    messages = "1 message is" if len(kept) == 1 else f"{len(kept):,} messages are"
    others = len({match.kept_by for match in kept.values()}) - 1
    more = f", and others keep some of them, too ({others:,})" if others else ""
    remedy = "--dry-run shows which; --what-is-allowed erases the others"
    if "locked" in last.kept_by:
        remedy += "; --although-locked erases them now, and they go when the locks end"
    return Forbidden(f"nothing was erased, for {messages} kept, {until}{more}", subject=last.kept_by, remedy=remedy)
