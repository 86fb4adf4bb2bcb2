"""A store of local mail in memory."""

from __future__ import annotations

from collections.abc import Iterator

from backupd.model import Flags, Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.naming import mailbox


class SimulatedStore:
    """Folders with messages, as a LocalStore."""

    kind = "simulated store"

    def __init__(self) -> None:
        self.folders: dict[str, list[LocalMessage]] = {}
        self.broken: list[LocalProblem] = []

    @property
    def octets(self) -> int:
        return sum(len(each.body) for some in self.folders.values() for each in some if isinstance(each.body, bytes))

    def put(self, folder: str, *messages: bytes, flags: Flags = (), date: bytes = b"") -> None:
        """File messages; "Work/2009" is a folder in a folder."""
        where = mailbox(folder.split("/"))
        some = self.folders.setdefault(folder, [])
        some += [LocalMessage((where,), raw, f"{folder}, message {len(some)}", flags, date) for raw in messages]

    def move(self, message: bytes, into: str) -> None:
        """What a person does who files mail."""
        found = next(each for some in self.folders.values() for each in some if each.body == message)
        for some in self.folders.values():
            some[:] = [each for each in some if each is not found]
        self.put(into, message, flags=found.flags, date=found.internaldate)

    def mailboxes(self) -> list[Mailbox]:
        return [mailbox(folder.split("/")) for folder in self.folders]

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        yield from self.broken
        for some in self.folders.values():
            yield from some
