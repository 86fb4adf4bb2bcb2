"""What a repair did, would do, and could not do: values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from backupd.operations.audit_report import Affected
from backupd.repository import names

Why = Literal["damaged", "missing", "removed"]

PARITY = "parity"
PACKS = "the packs"
SERVER = "the mail server"
"""Where something good was found, beside copies and versions."""


class Mended(msgspec.Struct, frozen=True):
    """An object that was put back, or made up for.

    source: the copy's address, or the repository's own for a version of it there; PARITY; PACKS for an index object
    that tells nothing which others do not tell by now, and for a pack whose good blocks were moved; SERVER for a pack
    of which messages had to be fetched again.
    """

    object: str
    why: Why
    source: str


class Lost(msgspec.Struct, frozen=True):
    """An object for which nothing good was found. account: whose snapshot it is, where it is one and a key tells."""

    object: str
    why: Why
    account: str = ""


class Fetched(msgspec.Struct, frozen=True):
    """Messages that were fetched from the mail server of an account once more, or in a dry run that are there."""

    account: str
    messages: int
    octets: int


class Concerned(msgspec.Struct, frozen=True):
    """What of an account stays lost for certain. mailboxes: that lack messages. messages: that are lost. snapshots: ids
    of those that list them, or cannot be read, the oldest first; when these are forgotten, and no other one has come to
    lack anything, nothing of the account is amiss any more. unlisted: messages that are whole, and of which lists tell
    no sender and subject. account: as it is configured; empty for one that is not."""

    account: str
    mailboxes: list[str]
    messages: int
    snapshots: list[str]
    unlisted: int = 0


class RepairReport(msgspec.Struct, frozen=True):
    """What a repair did, or would do.

    objects, octets: that were read and compared with their names. mended: what was put back. lost: what was not.
    parity: objects that had none, or bad, and have parity now. indexed: packs that no index object told of, and one
    does now. damaged: messages that could not be restored when all objects had been put back that can be; None where no
    key told. fetched: what came of them from servers. affected: what stays lost, by account, mailbox and UID;
    affected_more: further messages, for the list is bounded. concerned: the same, and lost snapshots, summed up by
    account. notes: what could not be looked for, and why.
    """

    repository: str
    dry_run: bool
    objects: int
    octets: int
    mended: list[Mended]
    lost: list[Lost]
    parity: int
    indexed: int
    damaged: int | None
    opened: bool | None
    fetched: list[Fetched]
    affected: list[Affected]
    affected_more: int
    concerned: list[Concerned]
    notes: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether nothing stays lost, as far as the key that is here can tell."""
        return self.opened is not False and not (self.lost or self.affected or self.affected_more)


def concerned(lost: Iterable[Lost], affected: Iterable[Affected]) -> list[Concerned]:
    """What stays lost, summed up by account. What only a reader's key could tell is left out."""
    snapshots: dict[str, set[str]] = {}
    mailboxes: dict[str, dict[str, None]] = {}
    messages: dict[str, int] = {}
    unlisted: dict[str, int] = {}
    for one in lost:
        if one.object.startswith(names.SNAPSHOTS):
            snapshots.setdefault(one.account, set()).add(one.object.rpartition("/")[2])
    for each in affected:
        if each.certain and each.restorable:
            unlisted[each.account] = unlisted.get(each.account, 0) + each.messages
        elif each.certain:
            snapshots.setdefault(each.account, set()).update(each.snapshots)
            mailboxes.setdefault(each.account, {})[each.mailbox] = None
            messages[each.account] = messages.get(each.account, 0) + each.messages
    return [
        Concerned(
            account,
            list(mailboxes.get(account, ())),
            messages.get(account, 0),
            sorted(snapshots.get(account, ())),
            unlisted.get(account, 0),
        )
        for account in sorted(snapshots.keys() | unlisted.keys())
    ]
