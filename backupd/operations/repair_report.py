"""What a repair did, would do, and could not do: values."""

from __future__ import annotations

from typing import Literal

import msgspec

from backupd.operations.audit_report import Affected

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


class RepairReport(msgspec.Struct, frozen=True):
    """What a repair did, or would do.

    objects, octets: that were read and compared with their names. mended: what was put back. lost: what was not.
    parity: objects that had none, or bad, and have parity now. indexed: packs that no index object told of, and one
    does now. damaged: messages that could not be restored when all objects had been put back that can be; None where no
    key told. fetched: what came of them from servers. affected: what stays lost, by account, mailbox and UID;
    affected_more: further messages, for the list is bounded. notes: what could not be looked for, and why.
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
    notes: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether nothing stays lost, as far as the key that is here can tell."""
        return self.opened is not False and not (self.lost or self.affected or self.affected_more)
