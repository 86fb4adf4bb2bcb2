"""Keeping the locks of a repository's objects from running out (S3 Object Lock).

An object is locked when it is stored, for as long as the configuration says, and is needed for as long as a snapshot
refers to it: deduplication makes that years. So what is there is locked anew once in each quarter of that time, and as
long as backups run, no lock has less than half of its time left, but for the pause between two backups. No key is
needed.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import msgspec

from backupd.errors import Interrupted, ObjectMissing
from backupd.operations.state import State
from backupd.repository import marks, names
from backupd.storage.base import Locks, Storage
from backupd.storage.parallel import in_order

_THREADS = 8
_PARTS = 4
"""Of the time of a lock: after the first of them it is renewed."""
RENEWED_WITHIN = 0.5
"""Share of a lock's time after which something must be wrong if it was not renewed."""


class LockReport(msgspec.Struct, frozen=True):
    """renewed: objects whose locks were made longer. until: when the first of all locks ends, unless it is renewed."""

    renewed: int
    until: datetime


def renew_locks(
    storage: Storage, state: State, now: datetime, *, stop: threading.Event | None = None
) -> LockReport | None:
    """Lock all that was stored a quarter of a lock's time ago, or before; None where there are no locks, or none is
    due. Where nothing is known of a repository's locks, all is locked.

    Raises Interrupted; the next call begins anew. Raises StorageDenied where these credentials may not do it.
    """
    locks, seconds = storage.locks, now.timestamp()
    if locks is None:
        return None
    part = locks.seconds / _PARTS
    last = state.locks_renewed(storage.url)
    if last and last[1] == locks.seconds and 0 <= seconds - last[0] < part:
        return None
    # Without a last time, or with another length, nothing is known of the locks there are.
    before = seconds - part if last and last[1] == locks.seconds else seconds
    until = now + timedelta(seconds=locks.seconds)
    renewed = _extend(storage, locks, before, until, stop or threading.Event())
    state.renewed_locks(storage.url, seconds, locks.seconds)
    return LockReport(renewed, now + timedelta(seconds=locks.seconds - part if before < seconds else locks.seconds))


def _extend(storage: Storage, locks: Locks, before: float, until: datetime, stop: threading.Event) -> int:
    superfluous = marks.objects(marks.read(storage))
    old = (
        info.name
        for info in storage.list()
        if info.name.startswith(names.ALL)
        and (info.modified is None or info.modified <= before)
        and info.name not in superfluous
    )
    renewed = 0
    for _, there in in_order(lambda name: _lock(locks, name, until), old, threads=_THREADS):
        if stop.is_set():
            raise Interrupted("stopped", subject=storage.url, remedy="the next backup renews the locks")
        renewed += there
    return renewed


def _lock(locks: Locks, name: str, until: datetime) -> bool:
    try:
        locks.extend(name, until)
    except ObjectMissing:  # removed meanwhile
        return False
    return True
