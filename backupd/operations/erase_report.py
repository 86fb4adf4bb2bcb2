"""What an erasure did, would do, or was not allowed to do."""

from __future__ import annotations

from datetime import datetime

import msgspec

MOST_SHOWN = 1000
"""Messages that are told one by one."""


class Doomed(msgspec.Struct, frozen=True):
    """A message that is meant. id: in the archive, hexadecimal. account, mailbox, uid: one of its places; places: how
    many it has, in mailboxes that change or not. snapshots: that list it. kept_by: what forbids that it is erased;
    until: when that ends, None for nobody knows."""

    id: str
    account: str
    mailbox: str
    uid: int
    date: str
    size: int
    sender: str
    subject: str
    places: int
    snapshots: int
    kept_by: str = ""
    until: datetime | None = None


class EraseReport(msgspec.Struct, frozen=True):
    """What was done, or in a dry run would be.

    erasure: its id; empty where nothing was erased. messages, octets: that are erased, and their octets. snapshots:
    that list some of them. accounts: whose they are, those that were not asked for, too, if they have the same
    messages. already: messages that had been erased before, of all there are. unlisted: what is meant and was forgotten
    before, and is erased with the others.

    goes: octets, before compression, that are in the repository for these alone, those erased before included, and go
    with the next prunes. packs: that hold them. anew: octets that were stored once more, as they shared blocks with
    what goes. lists: runs of envelopes that were written anew, without theirs.

    forbidden: how many a hold or a lock keeps; until: when the last of these ends, None where that is not known.
    shown: messages one by one, those that are kept first; of many the first thousand. unread: what could not be looked
    at, and why. copies: addresses of copies that have it all until they are brought up to date and pruned, too.
    """

    repository: str
    dry_run: bool
    reason: str
    erasure: str
    messages: int
    octets: int
    snapshots: int
    accounts: list[str]
    already: int
    unlisted: int
    goes: int
    packs: int
    anew: int
    lists: int
    forbidden: int
    until: datetime | None
    shown: list[Doomed]
    unread: list[str]
    copies: list[str] = []
