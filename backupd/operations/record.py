"""`backupd record`: the signed record of what was done to the repository. Whatever changes what is there appends to it.

`append` is what others call: after they have added something, before they remove something, and after they have. The
record lags behind what is added, if a machine dies in between; whoever comes next records what was found. It never lags
behind what is removed: what is gone without an entry, somebody has taken away. docs/audit.md says what that proves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from backupd.errors import Damaged, ObjectMissing, StorageDenied, UsageError
from backupd.operations.record_ledger import ACCEPTED, Ledger
from backupd.operations.state import State
from backupd.repository import holds, names, record
from backupd.repository.holds import Held
from backupd.repository.record import FORMAT, Entry
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef, timestamp
from backupd.storage.base import Storage

UNDER_WAY: Final = timedelta(hours=1)
"""How long whoever said what is to be removed may be about to do it. Who died before is not waited for any longer."""

FORGOTTEN: Final = "forgotten"
"""The kind of an entry that says what is gone, of what an earlier one said was to go."""

MOST_NAMES: Final = 5_000
"""In one entry; what is about more takes several."""

RIGHTS: Final = "`backupd s3-policy --role writer` prints the rights that it takes"

Added = tuple[str, bytes]
"""An object's name and the SHA-256 of its bytes; empty where they were not looked at."""


@contextmanager
def some_state(state: State | None) -> Iterator[State]:
    """The state; where there is none, one that knows nothing and is kept for the moment."""
    if state is not None:
        yield state
        return
    with tempfile.TemporaryDirectory(prefix="backupd-record-") as folder, closing(State(Path(folder))) as made:
        yield made


def append(
    repository: Repository,
    state: State | None,
    now: datetime,
    kind: str,
    *,
    adds: Sequence[Added] = (),
    going: Sequence[str] = (),
    gone: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    words: Mapping[str, str] | None = None,
    reasons: Mapping[str, str] | None = None,
    despite: Sequence[bytes] = (),
    lost: Sequence[bytes] = (),
) -> list[bytes]:
    """Append to the repository's record; the ids of the entries.

    Args:
        state: knows what comes before; None: all of the record is read for it.
        kind: what was done, in a word: "backup", "forget", "erase" ...
        adds: objects that are there by now, and must stay. Of those that were once removed, `despite` tells by which
            entries.
        going: names of objects that are about to be removed: this must be called before. gone: that were removed.
        counts, words: more about it, which everybody can read who has access to the storage.
        reasons: more about it, which only holders of a key can read.

    Raises StorageDenied where these credentials may not add to the record, and other errors of the storage.
    """
    with some_state(state) as known:
        ledger = begin(repository, known, now, {name for name, _ in adds})
        added, leaving, left = iter(adds), iter(going), iter(gone)
        written: list[bytes] = []
        while True:
            some = list(islice(added, MOST_NAMES))
            of_going, of_gone = list(islice(leaving, MOST_NAMES)), list(islice(left, MOST_NAMES))
            if written and not (some or of_going or of_gone):
                return written
            first = not written
            written.append(_append(
                repository, known, ledger, now, kind, some, of_going, of_gone, dict(counts or {}) if first else {},
                dict(words or {}), dict(reasons or {}) if first else {}, list(despite), list(lost) if first else [],
            ))  # fmt: skip


def _append(
    repository: Repository,
    state: State,
    ledger: Ledger,
    now: datetime,
    kind: str,
    adds: list[Added],
    going: list[str],
    gone: list[str],
    counts: dict[str, int],
    words: dict[str, str],
    reasons: dict[str, str],
    despite: list[bytes],
    lost: list[bytes],
) -> bytes:
    secrets = repository.secrets
    entry = Entry(
        format=FORMAT,
        repository=secrets.repository,
        key=secrets.record_public_key,
        time=timestamp(now),
        kind=kind,
        after=sorted(state.record_heads(ledger.number)),
        adds=adds,
        going=going,
        gone=gone,
        despite=despite,
        lost=lost,
        counts=counts,
        words=words,
        sealed=record.seal(reasons, secrets, repository.random),
    )
    signed = record.sign(entry, secrets)
    name, size = record.put(repository.storage, [signed.octets], now)
    ledger.append(entry, signed, name, size)
    return signed.id


def begin(repository: Repository, state: State, now: datetime, apart: Collection[str] = ()) -> Ledger:
    """The record as this machine knows it; where there is none yet, it begins with all that is there, apart from
    these."""
    ledger = Ledger(repository.storage, state, record.signer(repository.secrets))
    if ledger.begun:
        return ledger
    unreadable = len(ledger.learn())
    if not ledger.begun:
        # What is there and cannot be read may have been the record: the new one tells that, and audits tell of each.
        counts = {"unreadable": unreadable} if unreadable else {}
        there = [name for name in recorded_names(repository.storage) if name not in apart]
        for at in range(0, len(there), MOST_NAMES):
            adds = [(name, b"") for name in there[at : at + MOST_NAMES]]
            _append(repository, state, ledger, now, "begin", adds, [], [], counts, {}, {}, [], [])
    return ledger


def recorded_names(storage: Storage) -> Iterator[str]:
    """Names of what is there and of which the record tells: snapshots, holds and erasures. Packs and indexes are missed
    when they are needed, without it."""
    for info in storage.list(names.SNAPSHOTS):
        if names.parse_snapshot(info.name):
            yield info.name
    for info in storage.list(names.HOLDS):
        if names.hold_time(info.name):
            yield info.name
    for info in storage.list(names.ERASURES):
        if names.erasure_time(info.name):
            yield info.name


def ended(
    repository: Repository,
    state: State | None,
    now: datetime,
    gone: Sequence[str],
    announced: Collection[bytes] = (),
) -> None:
    """Record that these are gone, and what came of whatever else was to be removed: what is not there is gone, too; and
    what is there stays, so that it is missed if somebody removes it.

    announced: by which entries the caller said what was to go. What others said is theirs for as long as they may be
    about to do it.
    """
    with some_state(state) as known:
        ledger = Ledger(repository.storage, known, record.signer(repository.secrets))
        ledger.learn()
        waiting = known.record_waiting(ledger.number)
        there = set(recorded_names(repository.storage)) if waiting.keys() - set(gone) else set[str]()
        if left := sorted((waiting.keys() - there) | set(gone)):
            append(repository, known, now, FORGOTTEN, gone=left)
        over = {
            name: [entry for entry, time in said.items() if entry in announced or not _is_under_way(time, now)]
            for name, said in waiting.items() if name in there
        }  # fmt: skip
        if stay := sorted(name for name, said in over.items() if said):
            despite = sorted({entry for name in stay for entry in over[name]})
            append(repository, known, now, "kept", adds=[(name, b"") for name in stay], despite=despite)


def _is_under_way(time: str, now: datetime) -> bool:
    """Whether whoever said at this time what goes may be about to remove it. Their clock may be another."""
    return abs(now - datetime.fromisoformat(time)) <= UNDER_WAY


def abandoned(known: State, ledger: Ledger, now: datetime, there: Collection[str]) -> list[str]:
    """Names of what was to be removed and is there, and of nobody who would still be about to remove it."""
    waiting = known.record_waiting(ledger.number).items()
    return sorted(
        name for name, said in waiting if name in there and not any(_is_under_way(time, now) for time in said.values())
    )


def held(
    repository: Repository, state: State | None, now: datetime, kind: str, hold: Added, names_of: Collection[str]
) -> None:
    """Record a hold. names_of: snapshots that are there, which it is about: those that an earlier forget said were to
    go, and left, stay from now on, so that they are missed if somebody removes them."""
    with some_state(state) as known:
        ledger = begin(repository, known, now, {hold[0]})
        ledger.learn()
        stay = sorted(known.record_waiting(ledger.number).keys() & set(names_of))
        despite = known.record_removals_of(ledger.number, stay)
        append(repository, known, now, kind, adds=[hold, *((name, b"") for name in stay)], despite=despite)


def held_and_gone(
    repository: Repository, known: State, ledger: Ledger, now: datetime, there: Collection[str]
) -> dict[str, Held]:
    """Snapshots that are held, by name, and are not there, whatever else the record tells, unless somebody has accepted
    that."""
    try:
        active = holds.read(repository).active(now)
    except Damaged:  # an audit tells of it
        return {}
    accepted = known.record_gone_by(ledger.number, ACCEPTED)
    named = ((repository.secrets.account_tag(each.hold.account), each) for each in active)
    wanted = {names.snapshot(tag, each.hold.snapshot): each for tag, each in named if each.hold.snapshot}
    # One that is newer than the listing may be held by now.
    return {
        name: each for name, each in wanted.items()
        if name not in there and name not in accepted and not _digest(repository, name)
    }  # fmt: skip


def brought_back(repository: Repository, state: State | None, now: datetime, kind: str, back: Sequence[str]) -> None:
    """Record that these are there again and are to stay, where the record says otherwise or nothing of them."""
    with some_state(state) as known:
        ledger = begin(repository, known, now)
        ledger.learn()
        news = {*ledger.unknown(back), *known.record_removed(ledger.number).keys() & set(back)}
        if adds := [(name, digest) for name in back if name in news and (digest := _digest(repository, name))]:
            despite = known.record_removals_of(ledger.number, news)
            append(repository, known, now, kind, adds=adds, despite=despite)


def _digest(repository: Repository, name: str) -> bytes:
    """SHA-256 of an object; empty when it is not there."""
    try:
        return bytes.fromhex(names.sha256([repository.storage.get(name)]))
    except ObjectMissing:
        return b""


def accept(repository: Repository, state: State | None, now: datetime, reason: str) -> Accepted:
    """Somebody has looked into what the record and the repository disagree about: what is gone is meant to be gone, and
    what is there to be there. The record tells that, and the reason. Raises UsageError where they agree."""
    with some_state(state) as known:
        ledger = begin(repository, known, now)
        problems = ledger.learn()
        there = set(recorded_names(repository.storage))
        missing = {*known.record_missing(ledger.number, there)}
        removed = known.record_removed(ledger.number)
        found = Accepted(
            sorted(missing.union(held_and_gone(repository, known, ledger, now, there))),
            sorted({name for name, done in removed.items() if done and name in there} | {*ledger.unknown(there)}),
            len(lost := [*known.record_wanted(ledger.number), *(each[0] for each in known.record_lost(ledger.number))]),
            sorted(each.object for each in problems if not each.accepted),
        )
        if not any(found):
            raise UsageError(
                "the record and the repository agree", subject=repository.storage.url, remedy="nothing is to be done"
            )
        append(
            repository, known, now, ACCEPTED,
            adds=[(name, digest) for name in found.there if (digest := _digest(repository, name))],
            gone=found.gone + found.pieces,
            despite=known.record_removals_of(ledger.number, found.there),
            lost=lost,
            reasons={"reason": reason},
        )  # fmt: skip
        return found


class Accepted(NamedTuple):
    """gone: names of what is not there, and was expected; there: of what is, and was not. entries: of the record, that
    are lost; pieces: objects of it that cannot be believed."""

    gone: list[str]
    there: list[str]
    entries: int
    pieces: list[str]


class Recorder:
    """What the runs of an account append. denied: why an entry could not be: the run goes on, for mail comes first."""

    def __init__(self, repository: Repository, state: State, clock: Callable[[], datetime]) -> None:
        self._repository, self._state, self._clock = repository, state, clock
        self.denied: list[str] = []

    def settle(self, refs: Iterable[SnapshotRef]) -> None:
        """Record those of which no entry tells: a machine died before it could. Nothing is asked of the storage where
        there are none."""
        wanted = [ref.name for ref in refs]
        ledger = Ledger(self._repository.storage, self._state, record.signer(self._repository.secrets))
        if ledger.begun and not ledger.unknown(wanted):
            return
        ledger.learn()
        if not ledger.begun and wanted:
            self._try(lambda: begin(self._repository, self._state, self._clock()))
            return
        found = [each for name in ledger.unknown(wanted) if (each := self._found(name))]
        if found:
            self._append("found", found, [])

    def _found(self, name: str) -> Added | None:
        parsed = names.parse_snapshot(name)
        if parsed is None:
            return None
        tag, identifier = parsed
        try:
            self._repository.snapshot(SnapshotRef(identifier, tag))
            return name, bytes.fromhex(names.sha256([self._repository.storage.get(name)]))
        except (Damaged, ObjectMissing):  # what is no snapshot of ours an audit tells
            return None

    def stored(self, kind: str, ref: SnapshotRef, digest: bytes, replaced: SnapshotRef | None) -> None:
        """A snapshot is there, and another one is about to be removed, since all of it is in this one."""
        self._append(kind, [(ref.name, digest)], [replaced.name] if replaced else [])

    def _append(self, kind: str, adds: list[Added], going: list[str]) -> None:
        self._try(
            lambda: append(self._repository, self._state, self._clock(), kind, adds=adds, going=going)
        )

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except StorageDenied as error:
            note = f"the signed record could not be added to: {error.what}; {RIGHTS}"
            if note not in self.denied:
                self.denied.append(note)
