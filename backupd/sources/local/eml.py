"""Trees of `.eml` files, as many programs write them: a folder is a mailbox, a file is a message.

Files in the root itself are the INBOX, and one file alone is a store as well. Octets are taken as they are, also the
fields that a mail program added. Our own restores left notes (see `ledger`), and with them flags, dates and
names come back exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from backupd.mail.names import path_component_decode
from backupd.model import Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.files import Folder, Parts, moment, reason, shown
from backupd.sources.local.folder_tree import Found, folders, holds, listing
from backupd.sources.local.naming import mailbox

_SUFFIX = ".eml"


def is_eml(name: str) -> bool:
    """Whether a file of this name is a message: not what macOS keeps beside files, nor what is not whole yet."""
    return name.lower().endswith(_SUFFIX) and not name.startswith(".")


class EmlFormat:
    """A tree of .eml files, or one of them."""

    name = "eml"

    def recognises(self, path: Path) -> bool:
        """Whether it is such a file, or there is one in it or below."""
        try:
            return (is_eml(path.name) and path.is_file()) or holds(path, is_eml)
        except OSError:
            return False

    def open(self, path: Path, *, exact: bool) -> EmlStore:
        """The store at this path."""
        return EmlStore(path, exact=exact)


class EmlStore:
    """A tree of .eml files.

    Args:
        path: its root, or one file.
        exact: see `Format.open`.
        kind: what it is, for people.
        without: folders at the top whose names are no part of a mailbox's name.
    """

    def __init__(self, path: Path, *, exact: bool, kind: str = "tree of .eml files", without: Parts = ()) -> None:
        self._one = path.name if path.is_file() else None
        self._root = path.parent if self._one else path
        self._exact, self._kind, self._without = exact, kind, without

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return self._kind

    @functools.cached_property
    def _found(self) -> tuple[list[Found], list[LocalProblem]]:
        if self._one is not None:
            size = self._root.joinpath(self._one).stat().st_size
            return [Found((), 1, size, None)], []
        return folders(self._root, is_eml)

    @property
    def octets(self) -> int:
        """What the files of the messages have."""
        return sum(found.octets for found in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """One for each folder that has messages, or that our own restores described."""
        boxes = [self._mailbox(found) for found in self._found[0]]
        return list({box.raw_name: box for box in boxes}.values())

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, folder by folder, in order of the numbers in their names."""
        found, problems = self._found
        yield from problems
        for one in found:
            box = self._mailbox(one)
            try:
                with Folder.root(self._root) as root, root.descend(one.parts) as folder:
                    yield from self._of_folder(folder, box)
            except OSError as error:
                yield LocalProblem(box, shown("/".join([str(self._root), *one.parts])), reason(error))

    def _mailbox(self, found: Found) -> Mailbox:
        if found.noted is not None:
            return found.noted
        parts = found.parts
        if parts[: len(self._without)] == self._without:
            parts = parts[len(self._without) :]
        return mailbox([_text(part) for part in parts])

    def _of_folder(self, folder: Folder, box: Mailbox) -> Iterator[LocalMessage | LocalProblem]:
        if self._one is not None:
            yield self._message(folder, self._one, box, None)
            return
        odd: list[tuple[str, str]] = []
        with closing(listing(folder, is_eml, odd)) as names:
            for name, what in odd:
                yield LocalProblem(box, shown(f"{folder.path}/{name}"), what)
            notes, what = _notes(folder)
            if what:
                yield LocalProblem(box, shown(f"{folder.path}/{ledger.MESSAGES}"), what)
            try:
                for _, name in names:
                    yield self._message(folder, name, box, notes)
            finally:
                if notes is not None:
                    notes.close()

    def _message(
        self, folder: Folder, name: str, box: Mailbox, notes: ledger.Notes | None
    ) -> LocalMessage | LocalProblem:
        place = shown(f"{folder.path}/{name}")
        try:
            file = folder.open(name)
            note = notes.get(name) if notes else None
            exact = self._exact or (note is not None and note.size == file.size)
            return LocalMessage(
                mailboxes=(box,),
                body=body_of(file.chunks, exact=exact, size=file.size),
                place=place,
                flags=note.flags if note else (),
                internaldate=note.internaldate if note else b"",
                stored=moment(file.modified),
            )
        except OSError as error:
            return LocalProblem(box, place, reason(error))


def _notes(folder: Folder) -> tuple[ledger.Notes | None, str]:
    """The notes in a folder if there are any, and what is wrong with them; empty for nothing."""
    try:
        notes = ledger.read_notes(folder)
    except OSError as error:
        return None, reason(error)
    return notes, f"{notes.bad} lines that tell nothing of a message" if notes is not None and notes.bad else ""


def _text(part: str) -> str:
    """A folder's name as the name it stands for."""
    try:
        return path_component_decode(part)
    except ValueError:
        return shown(part)


FORMAT = EmlFormat()
