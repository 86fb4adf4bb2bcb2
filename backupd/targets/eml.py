"""A tree of `.eml` files: one folder a mailbox, one file a message, byte for byte, for any program that reads mail.

    INBOX/mailbox.json          raw name, delimiter, attributes, special use, subscription
    INBOX/messages.jsonl        for each file: UID, flags, keywords, INTERNALDATE as the server wrote it
    INBOX/17-0a1b2c3d.eml       UID and the first digits of the message's id; its time is INTERNALDATE
    INBOX/Projects/...          a mailbox below INBOX

Levels of names are escaped by percent signs (`%2F`), so that every system can hold them; `%~` and digits behind one
keep apart what would be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from backupd.targets import ledger
from backupd.targets.base import Outgoing
from backupd.targets.folders import PARTIAL, Folder
from backupd.targets.message_files import Delivery, MessageFiles, Staged
from backupd.targets.paths import Component, component_beside

SUFFIX = ".eml"


def reserved(name: str) -> bool:
    """Whether a folder of this name could be taken for a file of the layout."""
    return name.endswith((SUFFIX, PARTIAL)) or name in (ledger.MAILBOX, ledger.MESSAGES)


def file_name(message: Outgoing, number: int = 1) -> str:
    """The name of a message's file; number: beyond 1 where the name is taken."""
    again = f"-{number}" if number > 1 else ""
    return f"{message.uid}-{message.key.hex()[:8]}{again}{SUFFIX}"


class EmlTarget(MessageFiles):
    """Restores into a tree of `.eml` files; see the module for its layout."""

    kind = "eml"

    def _component(self) -> Component:
        return component_beside(reserved)

    def _lay_out(self, folder: Folder) -> None:
        for name in folder.names():
            if name.startswith(".") and name.endswith(PARTIAL):
                folder.remove(name)

    def _messages(self, folder: Folder) -> Iterator[BinaryIO]:
        for name in folder.names():
            if name.lower().endswith(SUFFIX) and not name.startswith("."):
                file = folder.open(name)
                if file is not None:
                    yield file

    def _delivery(self, folder: Folder) -> Delivery:
        return _EmlDelivery(folder)


class _EmlDelivery(Delivery):
    """Messages are given their names where they are."""

    def __init__(self, folder: Folder) -> None:
        self.temporary = self.final = folder
        self._count = 0
        self._promised: set[str] = set()

    def names(self, message: Outgoing) -> tuple[str, str, str]:
        self._count += 1
        number = 1
        while (final := file_name(message, number)) in self._promised or self.final.has(final):
            number += 1
        self._promised.add(final)
        return f".{self._count}-{message.uid}{PARTIAL}", final, ""

    def describe(self, batch: list[Staged]) -> list[int]:
        notes = b"".join([ledger.message_line(each.message, file=each.final) for each in batch])
        return [self.final.append(ledger.MESSAGES, notes)]

    def publish(self, batch: list[Staged]) -> None:
        super().publish(batch)
        self._promised.difference_update(each.final for each in batch)
