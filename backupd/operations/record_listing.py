"""What the signed record says, for people: its entries, one by one; and its public key and last entries, to be kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from heapq import nlargest
from itertools import groupby

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.record import begin, some_state
from backupd.operations.record_export import Export
from backupd.operations.state import State
from backupd.repository import names, record
from backupd.repository.record import Entry, Signed
from backupd.repository.repository import Repository
from backupd.repository.snapshots import timestamp


class EntryLine(msgspec.Struct, frozen=True):
    """An entry. id: its SHA-256. accounts: whose snapshots it is about; of those that are not configured, their tags.
    signed: whether this repository's key has signed it. adds, going, gone: names of objects, as in docs/format.md.
    """

    id: str
    time: str
    kind: str
    accounts: list[str]
    adds: list[str]
    going: list[str]
    gone: list[str]
    counts: dict[str, int]
    words: dict[str, str]
    reasons: dict[str, str]
    after: list[str]
    signed: bool


def listed(repository: Repository, accounts: Mapping[str, object], latest: int | None = None) -> list[EntryLine]:
    """The entries by their times, the latest last. latest: only so many; None: all.

    What cannot be read is left out: `backupd audit` tells of it.
    """
    tags = {repository.secrets.account_tag(name): name for name in accounts}
    lines = (_line(repository, each, tags, signed=good) for each, good in _entries(repository))
    return _ordered(lines if latest is None else nlargest(latest, lines, key=lambda line: line.time))


def _ordered(lines: Iterable[EntryLine]) -> list[EntryLine]:
    """By time; what was written in the same millisecond, after what it names as before it."""
    found: list[EntryLine] = []
    for _, some in groupby(sorted(lines, key=lambda line: line.time), key=lambda line: line.time):
        waiting = list(some)
        while waiting:
            ids = {line.id for line in waiting}
            ready = [line for line in waiting if ids.isdisjoint(line.after)] or waiting
            found += ready
            waiting = [line for line in waiting if line not in ready]
    return found


def _entries(repository: Repository) -> Iterator[tuple[Signed, bool]]:
    """Each entry once, and whether it can be believed."""
    whose, met = record.signer(repository.secrets), set[bytes]()
    for info in repository.storage.list(names.LOG):
        try:
            for octets in record.cut(repository.storage.get(info.name), info.name):
                each = record.read(octets, info.name)
                if each.id not in met:
                    met.add(each.id)
                    yield each, _is_good(octets, whose, info.name)
        except (Damaged, ObjectMissing):
            continue


def _is_good(octets: bytes, whose: record.Signer, name: str) -> bool:
    try:
        record.verify(octets, whose, name)
    except Damaged:
        return False
    return True


def _line(repository: Repository, each: Signed, tags: Mapping[str, str], *, signed: bool) -> EntryLine:
    entry = each.entry
    return EntryLine(
        id=each.id.hex(),
        time=entry.time,
        kind=entry.kind,
        accounts=_accounts(entry, tags),
        adds=[name for name, _ in entry.adds],
        going=entry.going,
        gone=entry.gone,
        counts=entry.counts,
        words=entry.words,
        reasons=_reasons(repository, each) if signed else {},
        after=[before.hex() for before in entry.after],
        signed=signed,
    )


def _reasons(repository: Repository, each: Signed) -> dict[str, str]:
    try:
        return record.unseal(each.entry, repository.secrets, f"entry {each.id.hex()[:16]}")
    except Damaged:
        return {}


def _accounts(entry: Entry, tags: Mapping[str, str]) -> list[str]:
    found = (names.parse_snapshot(name) for name in (*(name for name, _ in entry.adds), *entry.going, *entry.gone))
    return sorted({tags.get(place[0], place[0]) for place in found if place})


def exported(repository: Repository, state: State | None, now: datetime) -> Export:
    """The public key, and the last entries, after all that is there by now was read.

    Raises Damaged while the record is not whole: whatever is compared with an export of now would agree with the loss.
    """
    with some_state(state) as known:
        ledger = begin(repository, known, now)
        if doubts := ledger.doubts(ledger.learn()):
            raise Damaged(
                f"nothing was exported, for an export of now would hide a loss: {'; '.join(doubts)}",
                subject=names.LOG,
                remedy="`backupd audit` tells more, and `backupd repair` may bring it back; once you know why,"
                " `backupd record accept` says so",
            )
        whose = record.signer(repository.secrets)
        heads = sorted(head.hex() for head in known.record_heads(ledger.number))
        return Export(1, whose.repository.hex(), whose.key.hex(), heads, timestamp(now))
