"""Marks: names of objects that are superfluous, and are to be removed when everybody has had time to learn so.

A mark is a promise of nothing: what it names is looked at again before it is removed (sweeping.py). So it needs no key
and no secret, and a forged one does no harm. Whoever needs what a mark names says so beside it (needs.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from backupd.errors import ObjectMissing
from backupd.repository import names, needs
from backupd.repository.decoding import UNDECODABLE
from backupd.storage.base import ObjectInfo, Storage


class Mark(msgspec.Struct, frozen=True):
    """objects: names of packs and index objects; or of snapshots, or pieces of the record, that a lock keeps for now.
    why: for people."""

    format: int
    why: str
    objects: list[str]


class Marked(msgspec.Struct, frozen=True):
    """A mark that is stored. name: of its object. time: when it was made, by the clock of whoever made it. stored: by
    the storage's, in seconds since 1970, if known."""

    name: str
    time: datetime
    mark: Mark
    stored: float | None = None


def put(storage: Storage, objects: list[str], why: str, now: datetime) -> str:
    """Store a mark; its object's name."""
    data = msgspec.json.format(msgspec.json.encode(Mark(1, why, objects))) + b"\n"
    name = f"{names.MARKS}{names.snapshot_id(now, names.sha256([data]))}"
    storage.put(name, [data])
    return name


def read(storage: Storage, known: Collection[str] = ()) -> list[Marked]:
    """All marks, the oldest first, but for those that are known. One that makes no sense marks nothing."""
    return list(_readable(storage, (info for info in storage.list(names.MARKS) if info.name not in known)))


def objects(marks: Iterable[Marked]) -> frozenset[str]:
    """Names of all that is marked."""
    return frozenset(name for each in marks for name in each.mark.objects)


def for_locks(marked: Marked) -> bool:
    """Whether the mark is there for the locks of snapshots, or of pieces of the record: `forget` removes what it names,
    or operations/record_merge.py."""
    return any(name.startswith((names.SNAPSHOTS, names.LOG)) for name in marked.mark.objects)


class Dated(Protocol):
    """What is stored below marks/ or needs/."""

    @property
    def time(self) -> datetime: ...
    @property
    def stored(self) -> float | None: ...


D = TypeVar("D", bound=Dated)


class Since(NamedTuple):
    """What has become of marks. names: of all objects below marks/. still: those that were known and are there. fresh:
    those that have come."""

    names: frozenset[str]
    still: list[Marked]
    fresh: list[Marked]


def since(storage: Storage, known: Iterable[Marked]) -> Since:
    """Look again at marks."""
    before = {each.name: each for each in known}
    infos = {info.name: info for info in storage.list(names.MARKS)}
    still = [each for name, each in before.items() if name in infos]
    fresh = [info for name, info in infos.items() if name not in before]
    return Since(frozenset(infos), still, list(_readable(storage, fresh)))


def older(storage: Storage, things: Iterable[D], seconds: float, now: datetime, *, ask: bool = True) -> list[D]:
    """Those that are so many seconds old: by this machine's clock, and by the storage's where it has one. A machine
    whose clock is wrong thus believes nothing to be older than it is. ask: else the storage's clock is left out, for
    asking it takes storing something.
    """
    found = [each for each in things if (now - each.time).total_seconds() >= seconds]
    if not ask or not any(each.stored is not None for each in found):
        return found
    return _stored_before(storage, found, seconds, now)


def settled(storage: Storage, said: list[needs.Needed], seconds: float, now: datetime) -> list[needs.Needed]:
    """Those needs that have been there for so many seconds, by the storage's clock where it has one: who has said them,
    by a clock that may be wrong, does not matter, for nothing goes because of a need."""
    timed = [each for each in said if each.stored is not None]
    found = [each for each in said if each.stored is None and (now - each.time).total_seconds() >= seconds]
    return found + (_stored_before(storage, timed, seconds, now) if timed else [])


def _stored_before(storage: Storage, things: Iterable[D], seconds: float, now: datetime) -> list[D]:
    # What time it is there, something tells that is stored now.
    probe = needs.put(storage, "", [], now)
    times = [info.modified for info in storage.list(names.NEEDS) if info.name == probe]
    there = next((each for each in times if each is not None), None)
    return [each for each in things if each.stored is None or (there is not None and there - each.stored >= seconds)]


def _readable(storage: Storage, infos: Iterable[ObjectInfo]) -> Iterator[Marked]:
    for info in infos:
        time = names.mark_time(info.name)
        if time is None:
            continue
        try:
            data = storage.get(info.name)
            mark = msgspec.json.decode(data, type=Mark)
        except (*UNDECODABLE, ObjectMissing):  # or another prune has just removed it
            continue
        if mark.format == 1 and names.proves(info.name, [data]):
            yield Marked(info.name, time, mark, info.modified)
