"""The signed record of one repository, as this machine knows it: what is in the storage, read once, and what was seen
before. The state remembers it; what is known already is not read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.state import State
from backupd.repository import names, record
from backupd.repository.record import Entry, Signed, Signer
from backupd.storage.base import Storage
from backupd.storage.parallel import in_order

ACCEPTED: Final = "accepted"
"""The kind of an entry by which somebody says that what was found has been looked into."""

_THREADS = 8
_FEW = 4
_LOOKS = 3
_NO_SIZE = -1
"""Of an object that cannot be believed: no size is remembered that a listing might agree with, so it is read again."""


class Problem(NamedTuple):
    """An object of the record that is not what it should be. accepted: somebody has looked into that."""

    object: str
    what: str
    accepted: bool = False


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
        """Read what is new, and what could not be believed before; deep: all of it. What cannot be believed now.

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
            size = _NO_SIZE if what else there[name]
            self._state.record_learn(self.number, name, size, ((each.id, each.entry) for each in entries))
        if gone := known.keys() - there.keys():
            self._state.record_gone(self.number, gone)
        settled = settled and not self._state.record_wanted(self.number) and not self._state.record_lost(self.number)
        accepted = self._state.record_gone_by(self.number, ACCEPTED) if problems else set[str]()
        return [each._replace(accepted=each.object in accepted) for each in problems], settled

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

    def doubts(self, problems: Sequence[Problem]) -> list[str]:
        """Why this may not be all of the record, in words. problems: what was learned last. What was accepted is no
        reason."""
        lost, wanted = len(self._state.record_lost(self.number)), len(self._state.record_wanted(self.number))
        unread = sum(not each.accepted for each in problems)
        found = []
        if lost:
            found.append(f"{entries_of(lost)} that this machine knew {are(lost)} gone")
        if wanted:
            found.append(f"{entries_of(wanted)} {are(wanted)} missing, after which others were written")
        if unread:
            found.append(f"{unread:,} pieces of it cannot be read" if unread > 1 else "a piece of it cannot be read")
        return found

    def append(self, entry: Entry, signed: Signed, name: str, size: int) -> None:
        """This machine has stored an entry."""
        self._state.record_learn(self.number, name, size, [(signed.id, entry)])

    def unknown(self, wanted: Iterable[str]) -> list[str]:
        """Those of these names of which no entry tells."""
        return self._state.record_unknown(self.number, sorted(wanted))


def entries_of(count: int) -> str:
    """So many entries, in words."""
    return f"{count:,} entries of the record" if count > 1 else "an entry of the record"


def are(count: int) -> str:
    """The verb that fits."""
    return "are" if count > 1 else "is"
