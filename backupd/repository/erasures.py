"""Erasures: messages that were removed from all snapshots for good, and why (docs/format.md, "Erasures").

Snapshots and runs are named by their content and never rewritten, so what was erased is said beside them: which
messages are gone from every snapshot, and in the place of which runs of envelopes others stand, without theirs. Whoever
reads goes by that; what only erased messages needed is needed by nobody any more, and goes as anything else does that
is superfluous. Nothing takes an erasure back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import block, names
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Secrets
from backupd.storage.base import Storage

FORMAT: Final = 1

MOST_MESSAGES: Final = 500_000
"""Of one erasure, at 32 octets each; an object must fit a block."""


class Erasure(msgspec.Struct, frozen=True, omit_defaults=True):
    """messages: ids of what is erased, 32 octets each. envelopes: pairs of ids, 64 octets each: a run of envelopes, and
    the one that stands in its place."""

    format: int
    created: str
    reason: str
    messages: bytes = b""
    envelopes: bytes = b""


class Gone(NamedTuple):
    """That a message was erased: by which erasure, when (RFC 3339), and why."""

    erasure: str
    created: str
    reason: str

    def __str__(self) -> str:
        return f"erased on {self.created[:10]}: {self.reason}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Erasure).decode


class Erasures:
    """All that is erased, at one time.

    messages: by id, that it was erased, and why. damaged: names of erasures that cannot be read. planned: runs that
    are not stored yet, and will be.
    """

    def __init__(
        self,
        records: Mapping[str, Erasure] | None = None,
        damaged: Iterable[str] = (),
        planned: Iterable[bytes] = (),
    ) -> None:
        """records: by id. Their order does not matter."""
        self._records = dict(sorted((records or {}).items()))
        self.damaged, self.planned = tuple(damaged), frozenset(planned)
        self.messages: dict[bytes, Gone] = {}
        self._next: dict[bytes, bytes] = {}
        self._given: dict[bytes, set[bytes]] = {}
        for identifier, record in self._records.items():
            gone = Gone(identifier, record.created, record.reason)
            for message in _cut(record.messages, 32):
                self.messages.setdefault(message, gone)
            for pair in _cut(record.envelopes, 64):
                old, new = pair[:32], pair[32:]
                self._next[old] = new
                self._given.setdefault(old, set()).add(new)

    def __len__(self) -> int:
        """How many erasures."""
        return len(self._records)

    def __contains__(self, message: bytes) -> bool:
        return message in self.messages

    def places(self, run: bytes) -> list[bytes]:
        """Ids of the runs in which the envelopes of this one may be found, the one that counts first."""
        found = [run]
        while (newer := self._next.get(found[-1])) is not None and newer not in found:
            found.append(newer)
        return found[::-1]

    def replaced(self) -> set[bytes]:
        """Ids of all runs in the place of which another one stands; of two that were given for one, only one does."""
        given = set().union(*self._given.values())
        return (given | self._next.keys()) - {self.places(run)[0] for run in self._next}

    def forks(self) -> list[tuple[bytes, set[bytes]]]:
        """What two erasures that were made at the same time gave for the same run, as it is by now: each still has what
        the other one erased. First the one that counts, then the others."""
        found = []
        for run, given in self._given.items():
            first = self.places(run)[0]
            if others := {self.places(each)[0] for each in given} - {first}:
                found.append((first, others))
        return found

    def with_planned(self, identifier: str, record: Erasure) -> Erasures:
        """As if this one was there too, and the runs that it gives."""
        new = [pair[32:] for pair in _cut(record.envelopes, 64)]
        return Erasures({**self._records, identifier: record}, self.damaged, new)


def make(created: str, reason: str, messages: Iterable[bytes], envelopes: Mapping[bytes, bytes]) -> Erasure:
    """An erasure of these messages; envelopes: by the id of a run, the id of what stands in its place."""
    pairs = b"".join(old + new for old, new in sorted(envelopes.items()))
    return Erasure(FORMAT, created, reason, b"".join(sorted(messages)), pairs)


def joined(record: Erasure, messages: Iterable[bytes], envelopes: Mapping[bytes, bytes]) -> Erasure:
    """An erasure with these too."""
    pairs = {pair[:32]: pair[32:] for pair in _cut(record.envelopes, 64)}
    every = {*_cut(record.messages, 32), *messages}
    return make(record.created, record.reason, every, {**envelopes, **pairs})


def seal(record: Erasure, secrets: Secrets, random: Random) -> tuple[str, bytearray]:
    """An erasure's id, and its object's bytes."""
    data = block.seal(block.Kind.ERASURE, _encode(record), secrets, random, level=3)
    return names.snapshot_id(datetime.fromisoformat(record.created), names.sha256([data])), data


def unseal(data: bytes, secrets: Secrets, name: str) -> Erasure:
    """Read an object. Raises Damaged."""
    remedy = "`backupd repair` looks for a good one; until then nothing is removed that anything may need"
    if not names.proves(name, [data]):
        raise Damaged("an erasure is not what its name says", subject=name, remedy=remedy)
    try:
        record = _decode(block.unseal(data, secrets, name, expect=block.Kind.ERASURE))
        if datetime.fromisoformat(record.created).tzinfo is None:
            raise ValueError("a time without its zone")
        if len(record.messages) % 32 or len(record.envelopes) % 64:
            raise ValueError("ids of another length")
    except Damaged as error:
        error.remedy = error.remedy or remedy
        raise
    except UNDECODABLE as error:
        raise Damaged(f"an erasure makes no sense: {error}", subject=name, remedy=remedy) from error
    if record.format > FORMAT:
        raise Damaged("this erasure is of a newer format", subject=name, remedy="update backupd")
    return record


class Register:
    """The erasures of one open repository, read when they are first asked for. Safe to use from several threads."""

    def __init__(self, storage: Storage, secrets: Secrets) -> None:
        self._storage, self._secrets = storage, secrets
        self._lock = threading.Lock()
        self._records: dict[str, Erasure] = {}
        self._now: Erasures | None = None

    @property
    def now(self) -> Erasures:
        """What was erased by the last look."""
        return self._now if self._now is not None else self.look()

    def look(self) -> Erasures:
        """Look for new ones: one listing, and each is read once. One that was removed is not there any more."""
        with self._lock:
            found: dict[str, Erasure] = {}
            damaged = []
            for info in self._storage.list(names.ERASURES):
                if names.erasure_time(info.name) is None:
                    continue
                identifier = info.name.removeprefix(names.ERASURES)
                try:
                    known = self._records.get(identifier)
                    found[identifier] = known or unseal(self._storage.get(info.name), self._secrets, info.name)
                except ObjectMissing:  # taken back by whoever stored it
                    continue
                except Damaged:
                    damaged.append(info.name)
            if self._now is None or found.keys() != self._records.keys() or damaged != list(self._now.damaged):
                self._records, self._now = found, Erasures(found, damaged)
            return self._now


def _cut(ids: bytes, width: int) -> Iterable[bytes]:
    return (ids[at : at + width] for at in range(0, len(ids), width))
