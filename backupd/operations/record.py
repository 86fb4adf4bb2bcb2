"""`backupd record`: the signed record of what was done to the repository. Whatever changes what is there appends to it.

`append` is what others call: after they have added something, before they remove something, and after they have. The
record lags behind what is added, if a machine dies in between; whoever comes next records what was found. It never lags
behind what is removed: what is gone without an entry, somebody has taken away. docs/audit.md says what that proves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from backupd.errors import Damaged, ObjectMissing, StorageDenied, UsageError
from backupd.operations.record_ledger import ACCEPTED, Ledger
from backupd.operations.state import State
from backupd.repository import names, record
from backupd.repository.record import FORMAT, Entry
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef, timestamp
from backupd.storage.base import Storage

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
) -> None:
    """Append to the repository's record.

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
        first = True
        while True:
            some = list(islice(added, MOST_NAMES))
            of_going, of_gone = list(islice(leaving, MOST_NAMES)), list(islice(left, MOST_NAMES))
            if not (first or some or of_going or of_gone):
                return
            _append(
                repository, known, ledger, now, kind, some, of_going, of_gone, dict(counts or {}) if first else {},
                dict(words or {}), dict(reasons or {}) if first else {}, list(despite), list(lost) if first else [],
            )  # fmt: skip
            first = False


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
) -> None:
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


def ended(repository: Repository, state: State | None, now: datetime, gone: Sequence[str]) -> None:
    """Record that these are gone, and whatever else was about to be removed and is not there any more."""
    with some_state(state) as known:
        ledger = Ledger(repository.storage, known, record.signer(repository.secrets))
        ledger.learn()
        waiting = {name for name, done in known.record_removed(ledger.number).items() if not done}
        if waiting - set(gone):
            waiting -= set(recorded_names(repository.storage))
        append(repository, known, now, "forgotten", gone=sorted(waiting | set(gone)))


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
        removed = known.record_removed(ledger.number)
        found = Accepted(
            sorted(known.record_missing(ledger.number, there)),
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
