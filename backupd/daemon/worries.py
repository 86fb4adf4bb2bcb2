"""What will go wrong if nobody does anything: logins that end, locks that run out. Looked at now and then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backupd.operations.auth import accounts_with_login, expiring
from backupd.operations.locks import RENEWED_WITHIN
from backupd.operations.notices.events import Event, Expiring, LocksEnding, LocksRenewed, Renewed
from backupd.operations.opening import open_copies, open_repository_storage
from backupd.operations.state import State

if TYPE_CHECKING:
    from backupd.config import Config


def worries(config: Config, state: State, now: datetime) -> list[Event]:
    """What there is to tell, and what there is no more. Raises ConfigError, StorageError.

    Of a lock only the time of the last renewal is known here; those that somebody else renews count as running out.
    """
    return [*_logins(config, now), *_locks(config, state, now)]


def _logins(config: Config, now: datetime) -> list[Event]:
    ending = {each.account: each for each in expiring(config, now)}
    told: list[Event] = [Expiring(name, each.when or now, each.what) for name, each in ending.items()]
    return told + [Renewed(name) for name in accounts_with_login(config) if name not in ending]


def _locks(config: Config, state: State, now: datetime) -> list[Event]:
    told: list[Event] = []
    buckets = [config.repository.s3, *(each.s3 for each in config.copies)]
    if not any(bucket and bucket.object_lock for bucket in buckets):
        return told
    for storage in (open_repository_storage(config), *open_copies(config)):
        last = state.locks_renewed(storage.url)
        if storage.locks is None or last is None:
            continue
        renewed, seconds = datetime.fromtimestamp(last[0], UTC), last[1]
        if now - renewed > timedelta(seconds=seconds * RENEWED_WITHIN):
            told.append(LocksEnding(storage.url, renewed + timedelta(seconds=seconds), "they were not renewed in time"))
        else:
            told.append(LocksRenewed(storage.url))
    return told
