"""What a repository costs to keep: how much is stored, and what its bucket is asked for per day.

A service charges for what is stored and for each request, so both are told by `backupd status`. Requests are counted
where they are made (backupd/storage/s3_connection.py), and kept by day in the state; only this machine's are known.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec

from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository
from backupd.storage.base import Requests, Storage


class Daily(msgspec.Struct, frozen=True):
    """Requests of this machine. today: since midnight in UTC. average: per day from the first day that is known, at
    most a month ago, to yesterday; None when nothing is known of a day before today. days: how many these are."""

    today: dict[str, int]
    average: dict[str, float] | None
    days: int


class Costs(msgspec.Struct, frozen=True):
    """objects, octets: what is stored; only_packs: other objects, which are few, were not counted. requests: None where
    they are not charged for."""

    url: str
    objects: int
    octets: int
    requests: Daily | None
    only_packs: bool = False


class Meter:
    """Hands what a storage was asked for to the state."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._told = storage, Requests()

    def news(self) -> Requests:
        """What was asked for since this was last called."""
        so_far = self._storage.requests or Requests()
        news, self._told = so_far.since(self._told), so_far
        return news

    @property
    def url(self) -> str:
        """The storage's address."""
        return self._storage.url


def costs(repository: Repository, state: State, now: datetime) -> Costs:
    """What is stored, and what was asked for. Packs in a bucket are counted in the index, and not listed."""
    storage = repository.storage
    today = now.astimezone(UTC).date()
    if storage.requests is None:
        sizes = [info.size for info in storage.list()]
        return Costs(storage.url, len(sizes), sum(sizes), None)
    sizes = list(repository.index.packs().values())
    for kind in (names.DESCRIPTION, names.KEYS, names.INDEX, names.SNAPSHOTS, names.HOLDS, names.LOG):
        sizes += [info.size for info in storage.list(kind)]
    return Costs(storage.url, len(sizes), sum(sizes), daily(state.requests(storage.url), today))


def known_costs(repository: Repository, state: State, now: datetime) -> Costs:
    """Packs alone, from the index, without asking the storage. For who asks often."""
    storage = repository.storage
    packs, octets = repository.index.stored()
    requests = None if storage.requests is None else daily(state.requests(storage.url), now.astimezone(UTC).date())
    return Costs(storage.url, packs, octets, requests, only_packs=True)


def daily(known: dict[date, Requests], today: date) -> Daily:
    """Today's requests, and the average of the days before. A day without any counts too: nothing was asked for."""
    before = {day: requests for day, requests in known.items() if day < today}
    days = (today - min(before)).days if before else 0
    totals = {kind: sum(getattr(requests, kind) for requests in before.values()) for kind in Requests._fields}
    average = {kind: total / days for kind, total in totals.items()} if days else None
    return Daily(known.get(today, Requests())._asdict(), average, days)
