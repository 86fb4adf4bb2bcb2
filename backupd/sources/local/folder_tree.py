"""Folders below a store's root, for stores in which any folder may hold messages.

Folders are gone through once to learn which of them are mailboxes, and no symbolic link is followed on the way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from backupd.model import Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalProblem
from backupd.sources.local.files import Folder, Parts, oddity, reason, shown
from backupd.sources.local.scratch import Listing

_ENTRIES_TO_RECOGNISE = 5000
_DEPTH_TO_RECOGNISE = 8


class Found(msgspec.Struct, frozen=True):
    """A folder with messages, or one that a restore of ours described. octets: of the messages in it."""

    parts: Parts
    messages: int
    octets: int
    noted: Mailbox | None


def holds(
    path: Path, wanted: Callable[[str], bool], is_one: Callable[[Folder, str], bool] = lambda folder, name: True
) -> bool:
    """Whether there is a file of such a name in the folder or below; looks at some thousand names at most.

    is_one: looks into a file of such a name.
    """
    left = _ENTRIES_TO_RECOGNISE
    try:
        with Folder.root(path) as root:
            waiting: list[Parts] = [()]
            while waiting:
                parts = waiting.pop(0)
                with root.descend(parts) as folder:
                    for entry in folder.entries():
                        left -= 1
                        if left < 0:
                            return False
                        if entry.is_dir(follow_symlinks=False):
                            if len(parts) < _DEPTH_TO_RECOGNISE:
                                waiting.append((*parts, entry.name))
                        elif wanted(entry.name) and entry.is_file(follow_symlinks=False) and is_one(folder, entry.name):
                            return True
    except OSError:
        return False
    return False


def folders(
    path: Path, wanted: Callable[[str], bool], *, any_folder: bool = False
) -> tuple[list[Found], list[LocalProblem]]:
    """The folders with messages in order of their names, and what could not be looked at.

    Args:
        path: the root.
        wanted: whether a file of this name is a message.
        any_folder: look into folders of such a name, too; else they are taken for odd messages.
    """
    found: list[Found] = []
    problems: list[LocalProblem] = []

    def tell(place: str, what: str) -> None:
        problems.append(LocalProblem(None, shown(place), what))

    try:
        with Folder.root(path) as root:
            waiting: list[Parts] = [()]
            while waiting:
                parts = waiting.pop()
                try:
                    with root.descend(parts) as folder:
                        one, below = _look(folder, parts, wanted, tell, any_folder)
                except OSError as error:
                    tell("/".join([str(path), *parts]), reason(error))
                    continue
                if one.messages or one.noted:
                    found.append(one)
                waiting += below
    except OSError as error:
        tell(str(path), reason(error))
    return sorted(found, key=lambda one: one.parts), problems


def _look(
    folder: Folder, parts: Parts, wanted: Callable[[str], bool], tell: Callable[[str, str], None], any_folder: bool
) -> tuple[Found, list[Parts]]:
    below: list[Parts] = []
    messages = octets = 0
    noted = None
    for entry in folder.entries():
        if entry.is_dir(follow_symlinks=False) and (any_folder or not wanted(entry.name)):
            below.append((*parts, entry.name))
        elif wanted(entry.name):
            messages += 1
            try:
                octets += entry.stat(follow_symlinks=False).st_size
            except OSError:  # gone: it is told of when it is read
                continue
        elif entry.is_symlink() and os.path.isdir(f"{folder.path}/{entry.name}"):  # noqa: PTH112 only to tell of it
            what = "a symbolic link to a folder, which is not followed; import that folder by itself"
            tell(f"{folder.path}/{entry.name}", what)
        elif entry.name == ledger.MAILBOX:
            try:
                noted = ledger.read_mailbox(folder)
            except (ValueError, OSError) as error:
                what = f"not a description of a mailbox, its folder's name is taken: {error}"
                tell(f"{folder.path}/{entry.name}", what)
    return Found(parts, messages, octets, noted), below


def listing(folder: Folder, wanted: Callable[[str], bool], problems: list[tuple[str, str]]) -> Listing:
    """The messages in a folder in order of the numbers in their names; what is no file comes as (name, what it is).

    Raises OSError.
    """

    def names() -> Iterator[tuple[str, str]]:
        for entry in folder.entries():
            if wanted(entry.name):
                if what := oddity(entry):
                    problems.append((entry.name, what))
                else:
                    yield "", entry.name

    return Listing(names())
