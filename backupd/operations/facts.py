"""What retention must know of each snapshot. Snapshots never change, so it is read once, and remembered in the state.

An account of a thousand snapshots, looked at every hour in a bucket, would be a million requests a month otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.retention import Candidate
from backupd.operations.state import State
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Loss, Snapshot, SnapshotRef
from backupd.storage.parallel import in_order

_THREADS = 8


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one snapshot; see Snapshot."""

    account: str
    complete: bool
    checkpoint: bool
    messages: int
    octets: int
    losses: list[Loss] = []


class Known(NamedTuple):
    """A snapshot that is there. facts: None when it cannot be read."""

    ref: SnapshotRef
    facts: Facts | None

    @property
    def candidate(self) -> Candidate:
        """What the rules look at."""
        if self.facts is None:
            return Candidate(self.ref.id, self.ref.time, complete=False, checkpoint=False, readable=False)
        return Candidate(self.ref.id, self.ref.time, self.facts.complete, self.facts.checkpoint)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Facts).decode


def facts_of(snapshot: Snapshot) -> Facts:
    """What is to be known of a snapshot."""
    return Facts(
        snapshot.account,
        snapshot.complete,
        snapshot.checkpoint,
        snapshot.messages,
        snapshot.octets,
        snapshot.losses,
    )


def known(repository: Repository, refs: Iterable[SnapshotRef], state: State | None = None) -> list[Known]:
    """What is known of these snapshots, in their order; those that are gone meanwhile are left out.

    state: where it is remembered; without it, all are read.
    """
    every = list(refs)
    if not every:
        return []
    place, names = repository.secrets.repository.hex(), [ref.name for ref in every]
    remembered = state.facts(place, min(names), max(names)) if state else {}
    missing = [ref for ref in every if ref.name not in remembered]
    fresh: dict[str, Facts | None] = {}
    gone: set[str] = set()
    for ref, found in in_order(lambda ref: _read(repository, ref), missing, threads=_THREADS):
        if isinstance(found, ObjectMissing):
            gone.add(ref.name)
        else:
            fresh[ref.name] = found
    if state:
        state.remember_facts(place, {name: _encode(facts) for name, facts in fresh.items() if facts})
    old = {ref.name: _decode(remembered[ref.name]) for ref in every if ref.name in remembered}
    return [Known(ref, {**old, **fresh}[ref.name]) for ref in every if ref.name not in gone]


def _read(repository: Repository, ref: SnapshotRef) -> Facts | ObjectMissing | None:
    try:
        return facts_of(repository.snapshot(ref))
    except ObjectMissing as error:
        return error
    except Damaged:
        return None
