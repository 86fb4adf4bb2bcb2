"""The signed record of one repository, as this machine knows it: what is in the storage, read once, and what was seen
before. The state remembers it; what is known already is not read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.state import State
from backupd.repository import names, record
from backupd.repository.record import Entry, Signed, Signer
from backupd.storage.base import Storage
from backupd.storage.parallel import in_order

_THREADS = 8
_FEW = 4
_LOOKS = 3


class Problem(NamedTuple):
    """An object of the record that is not what it should be."""

    object: str
    what: str


class Ledger:
    """See the module. Several may be about one record, in several threads and processes."""

    def __init__(self, storage: Storage, state: State, whose: Signer) -> None:
        self._storage, self._state, self._whose = storage, state, whose
        self.number = state.ledger(f"{whose.repository.hex()} {storage.url}")

    @property
    def begun(self) -> bool:
        """Whether any entry is known."""
        return self._state.record_known(self.number)

    def learn(self, *, deep: bool = False) -> list[Problem]:
        """Read what is new; deep: all of it. What cannot be believed.

        What others merge meanwhile is looked at anew, so that nothing is missed that is there."""
        problems, settled = self._look(deep=deep)
        for _ in range(_LOOKS - 1):
            if settled:
                break
            problems, settled = self._look(deep=True)
        return problems

    def _look(self, *, deep: bool) -> tuple[list[Problem], bool]:
        """What cannot be believed; and whether nothing suggests that another look would find more."""
        there = {info.name: info.size for info in self._storage.list(names.LOG) if names.log_time(info.name)}
        known = self._state.record_objects(self.number)
        problems: list[Problem] = []
        settled = True
        wanted = [name for name, size in there.items() if deep or known.get(name) != size]
        for name, data in self._read(wanted):
            if data is None:  # merged with others, since it was listed
                settled = False
                continue
            entries, what = self._entries(name, data)
            if what:
                problems.append(Problem(name, what))
            self._state.record_learn(self.number, name, there[name], ((each.id, each.entry) for each in entries))
        if gone := known.keys() - there.keys():
            self._state.record_gone(self.number, gone)
        settled = settled and not self._state.record_wanted(self.number) and not self._state.record_lost(self.number)
        return problems, settled

    def _read(self, wanted: list[str]) -> Iterator[tuple[str, bytes | None]]:
        if len(wanted) < _FEW:
            return ((name, self._get(name)) for name in wanted)
        return in_order(self._get, wanted, threads=_THREADS)

    def _get(self, name: str) -> bytes | None:
        try:
            return self._storage.get(name)
        except ObjectMissing:
            return None

    def _entries(self, name: str, data: bytes) -> tuple[list[Signed], str]:
        """Those that can be believed, and what is wrong with the rest."""
        found: list[Signed] = []
        try:
            for octets in record.cut(data, name):
                signed = record.read(octets, name)
                # What has this SHA-256 was proved when it was met first.
                if not self._state.record_has(self.number, signed.id):
                    signed = record.verify(octets, self._whose, name)
                found.append(signed)
        except Damaged as error:
            return found, error.what
        return found, ""

    def append(self, entry: Entry, signed: Signed, name: str, size: int) -> None:
        """This machine has stored an entry."""
        self._state.record_learn(self.number, name, size, [(signed.id, entry)])

    def unknown(self, wanted: Iterable[str]) -> list[str]:
        """Those of these names of which no entry tells."""
        return self._state.record_unknown(self.number, sorted(wanted))
