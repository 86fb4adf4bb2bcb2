"""The tripwire: has so much mail vanished at once that somebody should look before history is forgotten?

Nothing is refused because of it: the snapshot is taken, the loss is recorded in it and announced, and the last snapshot
that still had the mail is pinned against retention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backupd.repository.snapshots import Loss, Snapshot

SHARE = 3
"""A loss is sudden when more than one part in so many has gone since the last snapshot."""

FEWEST = 10
"""Mailboxes with fewer messages than this empty themselves in daily use."""


class Departure(NamedTuple):
    """A mailbox that lost messages which are in no other mailbox now."""

    raw_name: bytes
    name: str
    before: int
    gone: int


def is_sudden(before: int, gone: int) -> bool:
    """Whether `gone` of `before` messages is more than daily use explains."""
    return before >= FEWEST and gone * SHARE > before


def losses(departures: Iterable[Departure], *, account_before: int, pinned: str) -> list[Loss]:
    """Losses of mailboxes, and of the account as a whole when its mailboxes together lost as much."""
    every = list(departures)
    found = [
        Loss(mailbox=each.raw_name, name=each.name, before=each.before, gone=each.gone, pinned=pinned)
        for each in every
        if is_sudden(each.before, each.gone)
    ]
    together = sum(each.gone for each in every)
    if len(every) > 1 and is_sudden(account_before, together):
        found.append(Loss(mailbox=None, name="", before=account_before, gone=together, pinned=pinned))
    return found


def since_checkpoint(baseline: Snapshot, now: Sequence[tuple[bytes, int]]) -> list[Departure]:
    """Departures by counts alone, for a run that goes on from a checkpoint, which may have seen part of a loss.

    Not of local mailboxes: what leaves them has come to the server's.
    """
    counts = dict(now)
    return [
        Departure(record.mailbox.raw_name, record.mailbox.name, record.messages, record.messages - left)
        for record in baseline.mailboxes
        if not record.local and (left := counts.get(record.mailbox.raw_name, 0)) < record.messages
    ]
