"""The zip files that our own restores write: a tree of `.eml` files with notes, read as it lies in the file.

Other zip files are to be unpacked first. The directory of a zip file is held in memory, about half a kilobyte for each
message, as every program does that reads one; the messages are not.
"""

from __future__ import annotations

import functools
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from backupd.errors import Damaged
from backupd.model import Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.eml import is_eml
from backupd.sources.local.files import CHUNK_OCTETS
from backupd.sources.local.naming import mailbox
from backupd.sources.local.scratch import natural

_NOTES = re.compile(r"messages-\d+\.jsonl")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
_LARGEST_DESCRIPTION = 1 << 20


class EmlZipFormat:
    """A zip file of ours."""

    name = "zip"

    def recognises(self, path: Path) -> bool:
        """Whether it is a zip file with a description of a mailbox in it."""
        try:
            if not path.is_file():
                return False
            with zipfile.ZipFile(path) as archive:
                return any(PurePosixPath(name).name == ledger.MAILBOX for name in archive.namelist())
        except _UNREADABLE:
            return False

    def open(self, path: Path, *, exact: bool) -> EmlZipStore:
        """The store at this path."""
        return EmlZipStore(path, exact=exact)


class _Folder:
    """What the zip file has of one mailbox."""

    def __init__(self) -> None:
        self.messages: list[zipfile.ZipInfo] = []
        self.notes: list[zipfile.ZipInfo] = []
        self.described: zipfile.ZipInfo | None = None
        self.mailbox: Mailbox | None = None


class EmlZipStore:
    """A zip file of ours."""

    kind = "zip file of .eml files"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._path, self._exact = path, exact

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        """The open file, closed with this object. Raises Damaged."""
        try:
            return zipfile.ZipFile(self._path)
        except _UNREADABLE as error:
            raise Damaged(f"not a zip file that can be read: {error}", subject=str(self._path)) from error

    @functools.cached_property
    def _found(self) -> tuple[dict[str, _Folder], list[LocalProblem]]:
        folders: dict[str, _Folder] = {}
        problems: list[LocalProblem] = []
        for info in self._archive.infolist():
            above, _, name = info.filename.rpartition("/")
            folder = folders.setdefault(above, _Folder())
            if is_eml(name):
                folder.messages.append(info)
            elif _NOTES.fullmatch(name):
                folder.notes.append(info)
            elif name == ledger.MAILBOX:
                folder.described = info
        kept = {name: folder for name, folder in sorted(folders.items()) if folder.messages or folder.described}
        for name, folder in kept.items():
            if folder.described is not None:
                try:
                    with self._archive.open(folder.described) as file:
                        folder.mailbox = ledger.mailbox_of(file.read(_LARGEST_DESCRIPTION))
                except (ValueError, *_UNREADABLE) as error:
                    what = f"not a description of a mailbox, its folder's name is taken: {error}"
                    problems.append(LocalProblem(None, self._place(folder.described), what))
            if folder.mailbox is None:
                folder.mailbox = mailbox(name.encode("utf-8", "backslashreplace").decode().split("/"))
        return kept, problems

    @property
    def octets(self) -> int:
        """What the messages have when they are unpacked."""
        return sum(info.file_size for folder in self._found[0].values() for info in folder.messages)

    def mailboxes(self) -> list[Mailbox]:
        """One for each folder with messages or a description."""
        boxes = [folder.mailbox for folder in self._found[0].values() if folder.mailbox is not None]
        return list({box.raw_name: box for box in boxes}.values())

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, folder by folder, in order of the numbers in their names. Raises Damaged if it is no zip."""
        folders, problems = self._found
        yield from problems
        for folder in folders.values():
            if folder.mailbox is None or not folder.messages:
                continue
            unread: list[LocalProblem] = []
            with closing(ledger.Notes(self._lines(folder, unread))) as notes:
                yield from unread
                if notes.bad:
                    what = f"{notes.bad} lines that tell nothing of a message"
                    yield LocalProblem(folder.mailbox, self._place(folder.notes[0]), what)
                for info in sorted(folder.messages, key=lambda each: natural(each.filename.encode("utf-8", "replace"))):
                    yield self._message(info, folder.mailbox, notes)

    def _lines(self, folder: _Folder, unread: list[LocalProblem]) -> Iterator[bytes]:
        for info in sorted(folder.notes, key=lambda each: natural(each.filename.encode())):
            try:
                yield from ledger.lines_of(self._chunks(info))
            except Damaged as error:
                unread.append(LocalProblem(folder.mailbox, self._place(info), error.what))

    def _message(self, info: zipfile.ZipInfo, box: Mailbox, notes: ledger.Notes) -> LocalMessage | LocalProblem:
        note = notes.get(info.filename.rpartition("/")[2])
        exact = self._exact or (note is not None and note.size == info.file_size)
        try:
            return LocalMessage(
                mailboxes=(box,),
                body=body_of(lambda: self._chunks(info), exact=exact),
                place=self._place(info),
                flags=note.flags if note else (),
                internaldate=note.internaldate if note else b"",
            )
        except Damaged as error:
            return LocalProblem(box, self._place(info), error.what)

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The octets of a file in it, whose checksum is compared at the end. Raises Damaged."""
        try:
            with self._archive.open(info) as file:
                while chunk := file.read(CHUNK_OCTETS):
                    yield chunk
        except _UNREADABLE as error:
            raise Damaged(f"damaged in the zip file: {error}", subject=info.filename) from error

    def _place(self, info: zipfile.ZipInfo) -> str:
        return f"{self._path}:{info.filename}"


FORMAT = EmlZipFormat()
