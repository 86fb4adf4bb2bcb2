"""What targets with one file a message share: batches made durable together, and a lock against a second restore.

A message is written under a temporary name, described in messages.jsonl, made durable with the rest of its batch, and
only then given its name. So at any moment, even after a power failure, a file that has its final name is whole, and its
flags and date are known; a killed run leaves nothing but temporary files, which the next one removes. The names are
durable when the target is closed.

While one batch is made durable, the next one is written.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from backupd.mail import dates
from backupd.model import Mailbox
from backupd.targets import ledger
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from backupd.targets.content import UNREADABLE, batches, chunks_of, outcome, read_header, unreadable
from backupd.targets.durable import Durability
from backupd.targets.folders import Folder, naming_errors, write_all
from backupd.targets.paths import Component, Parts, Places
from backupd.targets.tree import Tree


@dataclass(frozen=True, slots=True)
class Staged:
    """A message under a temporary name. final: the name it is to get. remark: what of it the files cannot hold; empty
    for nothing."""

    message: Outgoing
    name: str
    final: str
    remark: str


class Delivery(ABC):
    """How messages get into one folder, for the time of one `write`. temporary: where they are until they are whole;
    final: where they are then. Both on one file system."""

    temporary: Folder
    final: Folder

    @abstractmethod
    def names(self, message: Outgoing) -> tuple[str, str, str]:
        """The temporary name of a message, its final name, and what of it the layout cannot hold."""

    @abstractmethod
    def describe(self, batch: list[Staged]) -> list[int]:
        """Write down what the messages' files do not hold: descriptors of what was written."""

    def publish(self, batch: list[Staged]) -> None:
        """Give the messages their final names."""
        for each in batch:
            self.temporary.publish(each.name, self.final, each.final)

    def close(self) -> None:  # noqa: B027 most open nothing
        """Let go of what was opened."""


class MessageFiles(ABC):
    """A tree of folders with a file for each message; see `eml` and `maildir` for the two layouts.

    Args:
        root: the folder; made when the first mailbox is.
        fingerprint: how messages that are there are recognised.
        into: names of folders, separated by "/", below which all mailboxes go.
    """

    kind = ""
    fold = True

    def __init__(self, root: Path, fingerprint: Fingerprint, *, into: str = "") -> None:
        self._tree = Tree(root)
        self._fingerprint = fingerprint
        self._places = Places(into, self._component(), self._tree.names, fold=self.fold)
        self._durability = Durability(root)

    @property
    def description(self) -> str:
        """The target as the user would write it."""
        return f"{self.kind}:{self._tree.path}"

    def name_of(self, mailbox: Mailbox) -> str:
        """The folder of a mailbox."""
        return str(self._tree.path.joinpath(*self._parts(mailbox)))

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        """The messages in the folder, whoever put them there. Changes nothing."""
        found: Counter[Present] = Counter()
        with self._tree.find(self._parts(mailbox)) as folder:
            if folder is not None:
                for file in self._messages(folder):
                    with file, naming_errors(folder.path):
                        header = read_header(file)
                        found[Present(self._fingerprint(header), os.fstat(file.fileno()).st_size)] += 1
        return found

    def prepare(self, mailbox: Mailbox) -> None:
        """Make the folder, and remove what a killed run left unfinished in it. Raises StorageError and Busy."""
        with self._tree.make(self._parts(mailbox)) as folder:
            if mailbox.selectable:
                self._lay_out(folder)
            self._durability.replace(folder, ledger.MAILBOX, ledger.mailbox_json(mailbox))
        self._announce(self._tree.begin(), mailbox)

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Write messages, some hundred at a time. Raises StorageError when the place can take no more."""
        with self._tree.make(self._parts(mailbox)) as folder:
            self._lay_out(folder)
            with contextlib.closing(self._delivery(folder)) as delivery:
                yield from self._deliver(delivery, messages)

    def close(self) -> None:
        """Make the names of all files durable, and let others write to the folder. Raises StorageError."""
        try:
            self._durability.finish()
        finally:
            self._durability.close()
            self._tree.end()

    def _deliver(self, delivery: Delivery, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        under_way: deque[_Batch] = deque()
        try:
            for some in batches(messages, self._durability.most(delivery.final)):
                under_way.append(_Batch(delivery, self._durability))
                under_way[-1].write(some)
                if len(under_way) > 1:
                    yield from under_way[0].publish()
                    under_way.popleft().close()
            for batch in under_way:
                yield from batch.publish()
        finally:
            for batch in under_way:
                batch.close()

    # -- what the layouts decide ---------------------------------------------------------------------------------------

    @abstractmethod
    def _component(self) -> Component:
        """How a level of a name becomes the name of a folder."""

    @abstractmethod
    def _lay_out(self, folder: Folder) -> None:
        """Make what a mailbox's folder needs, and remove temporary files of a killed run."""

    @abstractmethod
    def _messages(self, folder: Folder) -> Iterator[BinaryIO]:
        """The messages in a mailbox's folder, opened; the caller closes each."""

    @abstractmethod
    def _delivery(self, folder: Folder) -> Delivery:
        """How messages get into a mailbox's folder."""

    def _parts(self, mailbox: Mailbox) -> Parts:
        return self._places.parts(mailbox)

    def _announce(self, root: Folder, mailbox: Mailbox) -> None:  # noqa: B027 most have nobody to tell
        """Tell the whole target of a mailbox."""


class _Batch:
    """Messages on their way together: written, then durable, then named."""

    def __init__(self, delivery: Delivery, durability: Durability) -> None:
        self._delivery, self._durability = delivery, durability
        self._files = durability.begin(delivery.final)
        self._staged: list[Staged] = []
        self._unreadable: list[Outcome] = []

    def write(self, messages: Iterable[Outgoing]) -> None:
        """Write all under temporary names, and begin to make them durable."""
        for message in messages:
            try:
                self._stage(message)
            except UNREADABLE as error:
                self._unreadable.append(unreadable(message, error))
        for descriptor in self._delivery.describe(self._staged):
            self._files.take(descriptor)
        self._files.start()

    def publish(self) -> Iterator[Outcome]:
        """Wait until they are durable, give them their names, and tell of each."""
        with naming_errors(self._delivery.temporary.path):
            self._files.wait()
        self._delivery.publish(self._staged)
        self._durability.named(self._delivery.final)
        yield from self._unreadable
        for each in self._staged:
            yield outcome(each.message, each.remark)

    def close(self) -> None:
        self._files.close()

    def _stage(self, message: Outgoing) -> None:
        name, final, remark = self._delivery.names(message)
        temporary = self._delivery.temporary
        descriptor = temporary.create(name)
        errors = naming_errors(f"{temporary.path}/{name}")
        try:
            for chunk in chunks_of(message):
                with errors:
                    write_all(descriptor, chunk)
            with errors:
                seconds = arrival(message)
                os.utime(descriptor, (seconds, seconds))
        except BaseException:
            os.close(descriptor)
            temporary.remove(name)
            raise
        with errors:
            self._files.take(descriptor)
        # Its bytes are not needed any more, and a batch of them can be many.
        self._staged.append(Staged(structs.replace(message, body=b""), name, final, remark))


def arrival(message: Outgoing) -> int:
    """Seconds since 1970 of INTERNALDATE; the nearest moment a file and a server can bear where it is absurd."""
    return int(dates.nearest(message.internaldate).timestamp())
