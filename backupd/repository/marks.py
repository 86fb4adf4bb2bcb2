"""Marks: names of objects that are superfluous, and are to be removed when everybody has had time to learn so.

A mark is a promise of nothing: what it names is looked at again before it is removed (sweeping.py). So it needs no key
and no secret, and a forged one does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from backupd.errors import ObjectMissing
from backupd.repository import names
from backupd.repository.decoding import UNDECODABLE
from backupd.storage.base import Storage


class Mark(msgspec.Struct, frozen=True):
    """objects: names of packs and index objects. why: for people."""

    format: int
    why: str
    objects: list[str]


class Marked(msgspec.Struct, frozen=True):
    """A mark that is stored. name: of its object. time: when it was made."""

    name: str
    time: datetime
    mark: Mark


def put(storage: Storage, objects: list[str], why: str, now: datetime) -> str:
    """Store a mark; its object's name."""
    data = msgspec.json.format(msgspec.json.encode(Mark(1, why, objects))) + b"\n"
    name = f"{names.MARKS}{names.snapshot_id(now, names.sha256([data]))}"
    storage.put(name, [data])
    return name


def read(storage: Storage) -> list[Marked]:
    """All marks, the oldest first. One that makes no sense marks nothing."""
    return [Marked(name, time, mark) for name, time, mark in _readable(storage)]


def objects(marks: list[Marked]) -> frozenset[str]:
    """Names of all that is marked."""
    return frozenset(name for each in marks for name in each.mark.objects)


def _readable(storage: Storage) -> Iterator[tuple[str, datetime, Mark]]:
    for info in storage.list(names.MARKS):
        time = names.mark_time(info.name)
        if time is None:
            continue
        try:
            data = storage.get(info.name)
            mark = msgspec.json.decode(data, type=Mark)
        except (*UNDECODABLE, ObjectMissing):  # or another prune has just removed it
            continue
        if mark.format == 1 and names.proves(info.name, [data]):
            yield info.name, time, mark
