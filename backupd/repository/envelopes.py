"""Runs of envelopes, as they are by now: in the place of one that had those of erased messages stands another."""

from __future__ import annotations

from backupd.errors import Damaged, ObjectMissing
from backupd.repository import runs
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope


def read(repository: Repository, run: bytes) -> list[Envelope]:
    """The envelopes that rows find in this run. Raises WrongKey without the reader role, Damaged."""
    try:
        return _read(repository, repository.erased.now.places(run))
    except (Damaged, ObjectMissing):
        known = repository.erased.now.places(run)
        places = repository.erased.look().places(run)
        if places == known:
            raise
        return _read(repository, places)  # somebody has erased and pruned meanwhile


def _read(repository: Repository, places: list[bytes]) -> list[Envelope]:
    for each in places[:-1]:
        try:
            return runs.decode_envelopes(repository.get_run(each, BlobKind.ENVELOPES), each.hex())
        except (Damaged, ObjectMissing):  # an older one may still be there
            continue
    return runs.decode_envelopes(repository.get_run(places[-1], BlobKind.ENVELOPES), places[-1].hex())


def is_there(repository: Repository, run: bytes) -> bool:
    """Whether they can be found. It may be about to be removed."""
    return any(map(repository.has, repository.erased.now.places(run)))


def relies(repository: Repository, run: bytes) -> bool:
    """Whether they are there, and stay; from then on they do. Raises Overtaken."""
    return any(map(repository.relies, repository.erased.now.places(run)))
