"""What targets with one file a message share: batches made durable together, and a lock against a second restore.

A message is written under a temporary name, made durable with the rest of its batch, described in messages.jsonl, and
only then given its name. So at any moment a file that has its final name is whole, and its flags and date are known; a
killed run leaves nothing but temporary files, which the next one removes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backupd.mail import dates
from backupd.model import Mailbox
from backupd.targets import ledger
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from backupd.targets.content import UNREADABLE, batches, chunks_of, outcome, read_header, refused
from backupd.targets.folders import Folder, naming_errors, write_all
from backupd.targets.paths import Component, Parts, Places
from backupd.targets.tree import Tree

_SYNCING = 4
"""Threads that make files durable."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A message under a temporary name. remark: what of it the files cannot hold; empty for nothing."""

    message: Outgoing
    descriptor: int
    name: str
    remark: str


class Delivery(ABC):
    """How messages get into one folder, for the time of one `write`. temporary: where they are until they are whole."""

    temporary: Folder

    def __init__(self) -> None:
        self.syncing = ThreadPoolExecutor(_SYNCING)

    @abstractmethod
    def name(self, message: Outgoing) -> tuple[str, str]:
        """The temporary name of a message, and what of it the layout cannot hold."""

    @abstractmethod
    def publish(self, batch: list[Staged]) -> None:
        """Describe the messages, and give them their final names, durably."""

    def close(self) -> None:
        """Let go of what was opened."""
        self.syncing.shutdown()


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
            folder.replace(ledger.MAILBOX, ledger.mailbox_json(mailbox))
        self._announce(self._tree.begin(), mailbox)

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Write messages, some hundred at a time. Raises StorageError when the place can take no more."""
        with self._tree.make(self._parts(mailbox)) as folder:
            self._lay_out(folder)
            with contextlib.closing(self._delivery(folder)) as delivery:
                for batch in batches(messages):
                    yield from _deliver(delivery, batch)

    def close(self) -> None:
        """Let others write to the folder."""
        self._tree.end()

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


def _deliver(delivery: Delivery, batch: Iterator[Outgoing]) -> Iterator[Outcome]:
    staged: list[Staged] = []
    outcomes: list[Outcome] = []
    try:
        for message in batch:
            try:
                staged.append(_stage(delivery, message))
            except UNREADABLE as error:
                outcomes.append(refused(message, error))
        with naming_errors(delivery.temporary.path):
            # Together, the file system's journal commits once for many of them: a third faster than one by one.
            descriptors = [each.descriptor for each in staged]
            shares = [descriptors[start::_SYNCING] for start in range(_SYNCING)]
            for _ in delivery.syncing.map(_sync, shares):
                pass
    finally:
        for each in staged:
            os.close(each.descriptor)
    delivery.publish(staged)
    yield from outcomes
    for each in staged:
        yield outcome(each.message, each.remark)


def _sync(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def _stage(delivery: Delivery, message: Outgoing) -> Staged:
    name, remark = delivery.name(message)
    temporary = delivery.temporary
    descriptor = temporary.create(name)
    path = f"{temporary.path}/{name}"
    try:
        for chunk in chunks_of(message):
            with naming_errors(path):
                write_all(descriptor, chunk)
        with naming_errors(path):
            seconds = arrival(message)
            os.utime(descriptor, (seconds, seconds))
    except BaseException:
        os.close(descriptor)
        temporary.remove(name)
        raise
    return Staged(message, descriptor, name, remark)


def arrival(message: Outgoing) -> int:
    """Seconds since 1970 of INTERNALDATE; the nearest moment a file and a server can bear where it is absurd."""
    return _seconds(message.internaldate)


@functools.lru_cache(maxsize=1024)
def _seconds(internaldate: bytes) -> int:
    usable, _ = dates.for_append(internaldate)
    return int(dates.timestamp(usable) or 0)
