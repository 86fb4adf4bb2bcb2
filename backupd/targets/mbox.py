"""One mbox file a mailbox, which any mail program opens, and from which every octet can be had back (see mbox_format).

    Archive/2024.mbox                   the messages
    Archive/2024.mailbox.json           raw name, delimiter, attributes, special use, subscription
    Archive/2024.messages.jsonl         by place in the file: UID, flags, keywords, INTERNALDATE as the server wrote it
    Archive/2024.mbox.partial           while messages are being added: where from and up to where

Nothing is added to a message, so its flags are in messages.jsonl only. After a kill the next run takes off what was
added halfway.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from backupd.errors import Busy, Damaged
from backupd.model import Mailbox
from backupd.targets import ledger, mbox_format
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from backupd.targets.content import UNREADABLE, batches, chunks_of, outcome, unreadable
from backupd.targets.durable import Durability
from backupd.targets.folders import PARTIAL, Folder, naming_errors, write_all
from backupd.targets.paths import Parts, Places, component_beside
from backupd.targets.tree import Tree

SUFFIX = ".mbox"
_BATCH = 4096
"""Messages that are made durable at once."""


class _Adding(msgspec.Struct, frozen=True):
    """The contents of the .partial file: octets of the mbox file before and after what is being added."""

    start: int
    end: int


def _reserved(name: str) -> bool:
    return name.endswith((SUFFIX, SUFFIX + PARTIAL, f".{ledger.MAILBOX}", f".{ledger.MESSAGES}"))


class MboxTarget:
    """Restores into mbox files; see the module for the layout.

    Args:
        root: the folder; made when the first mailbox is.
        fingerprint: how messages that are there are recognised.
        into: names of folders, separated by "/", below which all mailboxes go.
    """

    def __init__(self, root: Path, fingerprint: Fingerprint, *, into: str = "") -> None:
        self._tree = Tree(root)
        self._fingerprint = fingerprint
        self._places = Places(into, component_beside(_reserved), self._siblings)
        self._durability = Durability(root)

    @property
    def description(self) -> str:
        """The target as the user would write it."""
        return f"mbox:{self._tree.path}"

    def name_of(self, mailbox: Mailbox) -> str:
        """The file of a mailbox."""
        *folders, name = self._places.parts(mailbox)
        return str(self._tree.path.joinpath(*folders, name + SUFFIX))

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        """The messages in the file, whoever put them there, but not what a killed run left halfway. Changes nothing."""
        found: Counter[Present] = Counter()
        *parents, name = self._places.parts(mailbox)
        with self._tree.find(tuple(parents)) as folder:
            file = folder.open(name + SUFFIX) if folder else None
            if folder is None or file is None:
                return found
            whole = _whole(folder, name)
            with file, naming_errors(f"{folder.path}/{name}{SUFFIX}"):
                for region in mbox_format.regions(file):
                    if whole is None or region.start < whole:
                        found[Present(self._fingerprint(region.header), region.size)] += 1
        return found

    def prepare(self, mailbox: Mailbox) -> None:
        """Make the file, and take off what a killed run left halfway in it. Raises StorageError and Busy."""
        *parents, name = self._places.parts(mailbox)
        with self._tree.make(tuple(parents)) as folder:
            if mailbox.selectable:
                with _opened(folder, name) as descriptor:
                    _mend(folder, name, descriptor)
            self._durability.replace(folder, f"{name}.{ledger.MAILBOX}", ledger.mailbox_json(mailbox))

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Append messages, some hundred at a time. Raises StorageError when the place can take no more."""
        *parents, name = self._places.parts(mailbox)
        with self._tree.make(tuple(parents)) as folder:
            with _opened(folder, name) as descriptor:
                for batch in batches(messages, _BATCH):
                    yield from _append(folder, name, descriptor, batch)
            self._durability.named(folder)

    def close(self) -> None:
        """Make the names of all files durable, and let others write to the folder. Raises StorageError."""
        try:
            self._durability.finish()
        finally:
            self._durability.close()
            self._tree.end()

    def _siblings(self, parent: Parts) -> set[str]:
        names = self._tree.names(parent)
        files = {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)}
        return files | {name for name in names if not _reserved(name.casefold())}


@contextlib.contextmanager
def _opened(folder: Folder, name: str) -> Iterator[int]:
    """The mbox file, locked as mail programs lock it. Raises Busy."""
    path = f"{folder.path}/{name}{SUFFIX}"
    descriptor = folder.create(name + SUFFIX, os.O_RDWR)
    try:
        with naming_errors(path):
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise Busy("a mail program holds this file", subject=path, remedy="close it and try again") from None
        yield descriptor
    finally:
        os.close(descriptor)


def _whole(folder: Folder, name: str) -> int | None:
    """How many octets of the file are whole messages, when a killed run left some that are not; None for all."""
    content = folder.read(name + SUFFIX + PARTIAL)
    if not content:
        return None
    try:
        adding = msgspec.json.decode(content, type=_Adding)
    except msgspec.DecodeError as error:
        raise Damaged(
            "cannot be read",
            subject=f"{folder.path}/{name}{SUFFIX}{PARTIAL}",
            remedy="look at the end of the mbox file, and remove this one",
        ) from error
    file = folder.open(name + SUFFIX)
    if file is None:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
    # Shorter than before, or whole and longer than was meant: another program has written it anew.
    return adding.start if adding.start <= size < adding.end else None


def _mend(folder: Folder, name: str, descriptor: int) -> None:
    whole = _whole(folder, name)
    if whole is not None:
        _truncate(folder, name, descriptor, whole)
    folder.remove(name + SUFFIX + PARTIAL)


def _truncate(folder: Folder, name: str, descriptor: int, size: int) -> None:
    with naming_errors(f"{folder.path}/{name}{SUFFIX}"):
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)


def _append(folder: Folder, name: str, descriptor: int, batch: Iterator[Outgoing]) -> Iterator[Outcome]:
    """Append a batch: the plan first, then the messages, then the plan goes."""
    path = f"{folder.path}/{name}{SUFFIX}"
    with naming_errors(path):
        start = os.fstat(descriptor).st_size
        between = _separator(descriptor, start)
    outcomes: list[Outcome] = []
    planned: list[_Planned] = []
    notes: list[bytes] = []
    end = start + len(between)
    for message in batch:
        try:
            plan = _plan(message)
        except UNREADABLE as error:
            outcomes.append(unreadable(message, error))
            continue
        notes.append(ledger.message_line(message, offset=end))
        planned.append(plan)
        end += plan.octets
    folder.replace(name + SUFFIX + PARTIAL, msgspec.json.encode(_Adding(start, end)))
    note = folder.append(f"{name}.{ledger.MESSAGES}", b"".join(notes))
    try:
        with naming_errors(f"{folder.path}/{name}.{ledger.MESSAGES}"):
            os.fsync(note)
    finally:
        os.close(note)
    try:
        with naming_errors(path):
            os.lseek(descriptor, start, os.SEEK_SET)
            write_all(descriptor, between)
        buffered = bytearray()
        for plan in planned:
            for piece in plan.pieces:
                buffered += piece
                if len(buffered) >= 1 << 20:
                    with naming_errors(path):
                        write_all(descriptor, buffered)
                    buffered.clear()
        with naming_errors(path):
            write_all(descriptor, buffered)
            os.fsync(descriptor)
    except BaseException:
        _truncate(folder, name, descriptor, start)
        folder.remove(name + SUFFIX + PARTIAL)
        raise
    folder.remove(name + SUFFIX + PARTIAL)
    yield from outcomes
    for plan in planned:
        yield outcome(plan.message)


def _separator(descriptor: int, size: int) -> bytes:
    """What another program's file lacks at its end, so that a message can follow."""
    if not size:
        return b""
    last = os.pread(descriptor, 2, max(0, size - 2))
    return b"" if last == b"\n\n" else b"\n" if last.endswith(b"\n") else b"\n\n"


def _plan(message: Outgoing) -> _Planned:
    """Raises Damaged."""
    octets, last = 0, b""
    held: list[bytes] = []
    small = isinstance(message.body, bytes)
    for piece in mbox_format.quoted(chunks_of(message)):
        octets += len(piece)
        last = piece or last
        if small:
            held.append(piece)
    line, closing = mbox_format.around(message.internaldate, final_newline=last.endswith(b"\n"))
    octets += len(line) + len(closing)
    if small:
        return _Planned(structs.replace(message, body=b""), octets, [line, *held, closing])
    return _Planned(message, octets, _Read(message, line, closing))


@dataclass(frozen=True, slots=True)
class _Planned:
    """A message, and how it stands in the file."""

    message: Outgoing
    octets: int
    pieces: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class _Read:
    """The pieces of a message that is too large to be held: it is read again. Raises Damaged."""

    message: Outgoing
    line: bytes
    closing: bytes

    def __iter__(self) -> Iterator[bytes]:
        yield self.line
        yield from mbox_format.quoted(chunks_of(self.message))
        yield self.closing
