"""Mailboxes that Apple Mail exports: a folder NAME.mbox with a file `mbox` in it; folders in folders are levels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from backupd.model import Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.files import Folder, Parts, reason, shown
from backupd.sources.local.folder_tree import Found, folders, holds
from backupd.sources.local.mbox import clean_nothing, clean_status, is_mbox, messages_of
from backupd.sources.local.naming import mailbox

_PACKAGE, _FILE = ".mbox", "mbox"


def _wanted(name: str) -> bool:
    return name == _FILE


class AppleMboxFormat:
    """A package NAME.mbox, or a folder of them."""

    name = "apple-mbox"

    def recognises(self, path: Path) -> bool:
        """Whether it is such a package, or there is one in it or below."""
        if not path.is_dir():
            return False
        return is_mbox(path / _FILE) if path.suffix == _PACKAGE else holds(path, _wanted)

    def open(self, path: Path, *, exact: bool) -> AppleMboxStore:
        """The store at this path."""
        return AppleMboxStore(path, exact=exact)


class AppleMboxStore:
    """Packages below a folder, or one of them."""

    kind = "Apple Mail export"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._root, self._exact = path, exact
        self._above = (path.resolve().name,) if path.suffix == _PACKAGE else ()

    @functools.cached_property
    def _found(self) -> tuple[list[Found], list[LocalProblem]]:
        return folders(self._root, _wanted)

    @property
    def octets(self) -> int:
        """What the files have."""
        return sum(found.octets for found in self._found[0])

    def _mailbox(self, parts: Parts) -> Mailbox:
        return mailbox([shown(part).removesuffix(_PACKAGE) for part in (*self._above, *parts)])

    def mailboxes(self) -> list[Mailbox]:
        """One for each package."""
        return [self._mailbox(found.parts) for found in self._found[0]]

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, package by package."""
        found, problems = self._found
        yield from problems
        for one in found:
            box = self._mailbox(one.parts)
            place = shown("/".join([str(self._root), *one.parts, _FILE]))
            try:
                with Folder.root(self._root) as root, root.descend(one.parts) as folder:
                    file = folder.open(_FILE)
            except OSError as error:
                yield LocalProblem(box, place, reason(error))
                continue
            if file.size:
                clean = clean_nothing if self._exact else clean_status
                yield from messages_of(file, box, place, exact=self._exact, clean=clean)


FORMAT = AppleMboxFormat()
