"""Holds: snapshots that must not be forgotten, and what people said of sudden losses (docs/format.md, "Holds").

What is here binds every machine that works on the repository, so it is kept in the repository. Nothing is taken back by
removing an object: a hold is released by another object that says so. So copies learn of it, locks of a bucket are in
nobody's way, and who held and released what, and why, stays to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import block, names
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Secrets
from backupd.repository.repository import Repository

FORMAT = 1


class Hold(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="hold"):
    """Keeps a snapshot, or with None all of the account, those to come too. until: RFC 3339; None: until released.
    by: who said so, as in all three of these; empty where nobody noted it."""

    format: int
    created: str
    account: str
    reason: str
    snapshot: str | None = None
    until: str | None = None
    by: str = ""


class Release(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="release"):
    """Ends a hold, which is named by its id."""

    format: int
    created: str
    hold: str
    reason: str = ""
    by: str = ""


class Acceptance(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="acceptance"):
    """Somebody has looked: the sudden losses that these snapshots tell of are meant, and pin nothing any more."""

    format: int
    created: str
    account: str
    snapshots: list[str]
    reason: str = ""
    by: str = ""


Record = Hold | Release | Acceptance

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class Held(NamedTuple):
    """A hold that is there. id: its time and digest. released: whether somebody has ended it; release: who, and why."""

    id: str
    hold: Hold
    released: bool
    release: Release | None = None

    def is_active(self, now: datetime) -> bool:
        """Whether it keeps anything at this time."""
        return not self.released and (self.hold.until is None or datetime.fromisoformat(self.hold.until) > now)


class Holds(NamedTuple):
    """All that is said. accepted: ids of snapshots whose losses are accepted; acceptances: by whom, the oldest first,
    with their ids."""

    held: tuple[Held, ...]
    accepted: frozenset[str]
    acceptances: tuple[tuple[str, Acceptance], ...] = ()

    def active(self, now: datetime) -> list[Held]:
        """Holds that keep something at this time, the oldest first."""
        return [each for each in self.held if each.is_active(now)]


def put(repository: Repository, record: Record) -> tuple[str, bytes]:
    """Store a record; its id, and the SHA-256 of its object."""
    data = seal(record, repository.secrets, repository.random)
    digest = names.sha256([data])
    identifier = names.snapshot_id(datetime.fromisoformat(record.created), digest)
    repository.storage.put(names.hold(identifier), [data])
    return identifier, bytes.fromhex(digest)


def seal(record: Record, secrets: Secrets, random: Random) -> bytearray:
    """A record's object."""
    return block.seal(block.Kind.HOLD, _encode(record), secrets, random, level=9)


def read(repository: Repository) -> Holds:
    """All that is there. Raises Damaged when one cannot be read: what it holds is not known then."""
    found: dict[str, Record] = {}
    for info in repository.storage.list(names.HOLDS):
        if names.hold_time(info.name) is None:
            continue
        try:
            data = repository.storage.get(info.name)
        except ObjectMissing:  # removed meanwhile
            continue
        found[info.name.removeprefix(names.HOLDS)] = unseal(data, repository.secrets, info.name)
    return resolve(found.items())


def unseal(data: bytes, secrets: Secrets, name: str) -> Record:
    """Read an object. Raises Damaged."""
    remedy = "`backupd repair` looks for a good one; until then nothing is forgotten"
    if not names.proves(name, [data]):
        raise Damaged("a hold is not what its name says", subject=name, remedy=remedy)
    try:
        record = _decoder.decode(block.unseal(data, secrets, name, expect=block.Kind.HOLD))
        for time in (record.created, record.until if isinstance(record, Hold) else None):
            if time is not None and datetime.fromisoformat(time).tzinfo is None:
                raise ValueError("a time without its zone")
    except Damaged as error:
        error.remedy = error.remedy or remedy
        raise
    except UNDECODABLE as error:
        raise Damaged(f"a hold makes no sense: {error}", subject=name, remedy=remedy) from error
    if record.format > FORMAT:
        raise Damaged("this hold is of a newer format", subject=name, remedy="update backupd")
    return record


def resolve(records: Iterable[tuple[str, Record]]) -> Holds:
    """What the records say together; their order does not matter."""
    every = sorted(records, key=lambda each: each[0])
    # Of several releases of one hold the first has ended it.
    released = {record.hold: record for _, record in reversed(every) if isinstance(record, Release)}
    accepted = tuple((key, record) for key, record in every if isinstance(record, Acceptance))
    return Holds(
        tuple(
            Held(key, record, key in released, released.get(key)) for key, record in every if isinstance(record, Hold)
        ),
        frozenset(snapshot for _, record in accepted for snapshot in record.snapshots),
        accepted,
    )
