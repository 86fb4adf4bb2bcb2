"""Before a backup: what is missing from the repository is found, and made up for as far as that can be done.

A lost index object is made anew from the packs. Messages that a lost pack held are taken out of the account's last
state, so that this run finds them new and stores them again, if the server still has them; those it no longer has are
lost from the snapshots before, and a note says how many are fetched again. Nothing is read as long as nothing is amiss.

Where requests are charged for, all packs are listed twice a day, and not with every run. Where they are not, a process
that backs up all the time lists them so often that it costs a fiftieth of its time: with 4,000 packs, listing them took
nine tenths of a run that brings one message.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.mail.uidset import UidSet
from backupd.model import MailboxStatus
from backupd.operations.messages import MessageStore
from backupd.operations.state import State
from backupd.repository import envelopes, mending, segments
from backupd.repository.mending import Health
from backupd.repository.repository import Repository
from backupd.repository.segments import Segment
from backupd.repository.snapshots import MailboxRecord, Snapshot

_SOUND_SECONDS = 12 * 3600.0
_QUICK_SECONDS = 0.02
"""A look that takes less is taken with every run."""
_RESTS = 50
"""So many times as long as a look took, another may wait."""
_UNDER_WAY_SECONDS = 1800.0
"""A run that stores packs indexes them with its next checkpoint, minutes later."""


class Mended(NamedTuple):
    """mailboxes: of the parent without what is lost; None when nothing is amiss. notes: what was found. token: to be
    given to State.mended when the run has completed, so that the next one need not look again."""

    mailboxes: list[MailboxRecord] | None
    notes: list[str]
    token: str


def mend(
    repository: Repository,
    account: str,
    parent: Snapshot | None,
    state: State,
    now: datetime,
    *,
    seconds_gone: Callable[[], float] = time.monotonic,
) -> Mended:
    """Look at the repository, make up for lost index objects, and judge the account's last state.

    seconds_gone: a clock that only goes forward.
    """
    store, url, seconds = MessageStore(repository), repository.storage.url, now.timestamp()
    notes = [f"{name} is damaged; what it told is made up for from the packs" for name in repository.damaged_indexes]
    charged = repository.storage.requests is not None
    spared = 0 <= seconds - (state.sound_since(url) or 0) < _SOUND_SECONDS if charged else (
        repository.sound_until > seconds_gone()
    )
    if spared and not notes:
        health = Health(frozenset(), ())
    else:
        began = seconds_gone()
        # On a disk whoever stores a pack is most likely a process of this machine, which has ended.
        before = seconds - _UNDER_WAY_SECONDS if charged else None
        health = mending.examine(repository, stored_before=before)
        if health.unindexed and mending.adopt(repository, health.unindexed, store.identify):
            health = mending.examine(repository, stored_before=before)
        sound = not (notes or health.lost or health.unindexed)
        state.found_sound(url, seconds if sound else None)
        took = seconds_gone() - began
        repository.sound_until = seconds_gone() + _RESTS * took if sound and took > _QUICK_SECONDS else 0.0
    lost = sorted(f"{pack.hex()} {offset}" for pack, offset in health.lost)
    token = hashlib.sha256("\n".join([*lost, *sorted(health.unindexed)]).encode()).hexdigest()
    amiss = bool(health.lost or health.unindexed)
    known = not amiss or state.is_mended(account, token)
    if parent is None or (known and all(_has_runs(repository, record) for record in parent.mailboxes)):
        return Mended(None, notes, token)
    # What others have erased is gone, and not lost.
    notes += [f"{name} cannot be read: what it erased may come back" for name in repository.erased.look().damaged]
    mailboxes = []
    for record in parent.mailboxes:
        kept = _without_lost(repository, store, record)
        mailboxes.append(kept)
        if kept.messages < record.messages:
            count = record.messages - kept.messages
            notes.append(
                f"{record.mailbox.name}: the repository has lost {count:,} of its messages; those that the server "
                "still has are stored again"
            )
    if mailboxes == parent.mailboxes:
        return Mended(None, notes, token)
    return Mended(mailboxes, notes, token)


def _has_runs(repository: Repository, record: MailboxRecord) -> bool:
    return all(repository.has(segment.membership) and repository.has(segment.state) for segment in record.segments)


def _without_lost(repository: Repository, store: MessageStore, record: MailboxRecord) -> MailboxRecord:
    """The record with what is there, and without the positions that would let this run skip the mailbox."""
    kept: list[Segment] = []
    for segment in record.segments:
        try:
            pairs = list(segments.read(repository, segment))
        except (Damaged, ObjectMissing):
            repository.distrust(segment.membership)
            repository.distrust(segment.state)
            continue
        lost = []
        for row, _ in pairs:
            if not envelopes.is_there(repository, row.envelopes) or not store.is_whole(row.message):
                repository.distrust(row.message)
                lost.append(row.uid)
        kept += segments.update(repository, [segment], vanished=UidSet.from_uids(lost)) if lost else [segment]
    if kept == record.segments:
        return record
    return msgspec.structs.replace(
        record,
        segments=kept,
        status=MailboxStatus(uidvalidity=record.status.uidvalidity, mailbox_id=record.status.mailbox_id),
        messages=sum(segment.messages for segment in kept),
        octets=sum(segment.octets for segment in kept),
    )
