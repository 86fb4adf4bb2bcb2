"""Needs: what a writer says of a mark that names something it relies on, so that it is not removed.

A mark is made on what the snapshots need at that time. Somebody who writes may have found in the index what no snapshot
needed, and be about to store a snapshot that does. It sees the mark while nothing is removed yet, and stores a need
beside it, which takes no right to delete. Whoever removes what is marked leaves out what is needed (docs/format.md,
"Marks").
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from backupd.errors import ObjectMissing
from backupd.repository import names
from backupd.repository.decoding import UNDECODABLE
from backupd.storage.base import Storage


class Need(msgspec.Struct, frozen=True):
    """objects: names of those that are needed of what the mark (its object's name) names."""

    format: int
    mark: str
    objects: list[str]


class Needed(msgspec.Struct, frozen=True):
    """A need that is stored. name: of its object. time: when it was made. stored: seconds since 1970, if known."""

    name: str
    time: datetime
    stored: float | None
    need: Need


def put(storage: Storage, mark: str, objects: Iterable[str], now: datetime) -> str:
    """Store a need; its object's name. It is a success if it is there already."""
    data = msgspec.json.format(msgspec.json.encode(Need(1, mark, sorted(objects)))) + b"\n"
    name = f"{names.NEEDS}{names.snapshot_id(now, names.sha256([data]))}"
    storage.put(name, [data])
    return name


def read(storage: Storage) -> list[Needed]:
    """All needs, the oldest first. One that makes no sense is none."""
    found = []
    for info in storage.list(names.NEEDS):
        time = names.need_time(info.name)
        if time is None:
            continue
        try:
            data = storage.get(info.name)
            need = msgspec.json.decode(data, type=Need)
        except (*UNDECODABLE, ObjectMissing):  # or whoever has dealt with the mark has just removed it
            continue
        if need.format == 1 and names.proves(info.name, [data]):
            found.append(Needed(info.name, time, info.modified, need))
    return found


def of(found: Iterable[Needed], mark: str) -> frozenset[str]:
    """Names of what is needed of a mark."""
    return frozenset(name for each in found if each.need.mark == mark for name in each.need.objects)
