"""Which folders of a tree are Maildirs, and which mailbox each of them is.

Programs name the folders of a hierarchy in four ways:

    .Work.2009       Maildir++ (Dovecot, Courier, mbsync): beside cur and new of the INBOX; "..x" is below the INBOX
    Work/2009        nested (Dovecot's LAYOUT=fs, mbsync's Verbatim, OfflineIMAP with "/", our own restores)
    Work/.2009       mbsync's Legacy
    Work.2009        OfflineIMAP: folders beside each other, and "." between the levels

The last cannot be told from nested folders with dots in their names by one folder alone. It is taken for that only if
no Maildir lies within another, mbsync was not there, and OfflineIMAP was, or some folder has its parent beside it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from backupd.mail.names import decode_utf7
from backupd.model import Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalProblem
from backupd.sources.local.files import Folder, Parts, reason, shown
from backupd.sources.local.maildir_subscriptions import SUBSCRIPTIONS, Subscriptions, read_subscriptions
from backupd.sources.local.naming import mailbox

PARTS = ("new", "cur")
"""Where messages are, in the order they go through them; what is in tmp is not delivered yet."""

_OF_MAILDIR = {"cur", "new", "tmp"}
_NOT_MAILBOXES = {"..DOVECOT-TRASHED", "courierimapkeywords", "courierimaphieracl"}
_MBSYNC = (".mbsyncstate", ".uidvalidity", ".isyncuidmap.db")
_OFFLINEIMAP = ",FMD5="
_DEPTH_TO_RECOGNISE = 3
_FOLDERS_TO_RECOGNISE = 500
_NAMES_TO_RECOGNISE = 20


class Place(msgspec.Struct, frozen=True):
    """A mailbox and its folder, which may hold no messages where only a restore of ours described it."""

    parts: Parts
    mailbox: Mailbox

    def shown(self, root: Path) -> str:
        """The folder, for people."""
        return shown("/".join([str(root), *self.parts]))


class _Seen(msgspec.Struct):
    """A folder as it was found."""

    parts: Parts
    maildir: bool
    mbsync: bool = False
    offlineimap: bool = False
    noted: Mailbox | None = None


def is_maildir(folder: Folder) -> bool:
    """Whether messages may be in it. Archives leave empty folders out, so not all three of them need be there."""
    return folder.has_folder("cur") or (folder.has_folder("new") and folder.has_folder("tmp"))


def looks_like_maildirs(path: Path) -> bool:
    """Whether the folder or one not far below is a Maildir."""
    try:
        with Folder.root(path) as root:
            waiting: list[Parts] = [()]
            for number, parts in enumerate(waiting):
                if number >= _FOLDERS_TO_RECOGNISE:
                    return False
                with root.descend(parts) as folder:
                    if is_maildir(folder):
                        return True
                    if len(parts) < _DEPTH_TO_RECOGNISE:
                        some = itertools.islice(folder.entries(), _FOLDERS_TO_RECOGNISE)
                        waiting += [(*parts, each.name) for each in some if each.is_dir(follow_symlinks=False)]
    except OSError:
        return False
    return False


def places(path: Path) -> tuple[list[Place], list[LocalProblem]]:
    """All mailboxes in the tree, in order of their folders, and what could not be looked at. Reads no message."""
    found: list[_Seen] = []
    problems: list[LocalProblem] = []
    subscriptions: Subscriptions | None = None
    try:
        with Folder.root(path) as root:
            try:
                subscriptions = read_subscriptions(root)
            except OSError as error:
                problems.append(LocalProblem(None, f"{path}/{SUBSCRIPTIONS}", reason(error)))
            waiting: list[Parts] = [()]
            while waiting:
                parts = waiting.pop()
                try:
                    with root.descend(parts) as folder:
                        seen, below = _look(folder, parts, problems)
                except OSError as error:
                    problems.append(LocalProblem(None, shown("/".join([str(path), *parts])), reason(error)))
                    continue
                if seen.maildir or seen.noted:
                    found.append(seen)
                waiting += below
    except OSError as error:
        problems.append(LocalProblem(None, str(path), reason(error)))
    found.sort(key=lambda seen: seen.parts)
    naming = _Naming(found)
    made = []
    for seen in found:
        box = seen.noted
        if box is None:
            levels = naming.levels(seen.parts)
            known = subscriptions is None or subscriptions.has(levels)
            box = mailbox([_text(level) for level in levels], subscribed=known)
        made.append(Place(seen.parts, box))
    return made, problems


def _look(folder: Folder, parts: Parts, problems: list[LocalProblem]) -> tuple[_Seen, list[Parts]]:
    """What a folder is, and the folders in it that may be mailboxes."""
    maildir = is_maildir(folder)
    seen = _Seen(parts, maildir)
    below = []
    for entry in folder.entries():
        name = entry.name
        if name in _NOT_MAILBOXES or (maildir and name in _OF_MAILDIR):
            continue
        if entry.is_dir(follow_symlinks=False):
            below.append((*parts, name))
        elif entry.is_symlink() and _leads_to_a_folder(folder, name):
            what = "a symbolic link to a folder, which is not followed; import that folder by itself"
            problems.append(LocalProblem(None, shown(f"{folder.path}/{name}"), what))
        elif name in _MBSYNC:
            seen.mbsync = True
        elif name == ledger.MAILBOX:
            try:
                seen.noted = ledger.read_mailbox(folder)
            except (ValueError, OSError) as error:
                what = f"not a description of a mailbox, its folder's name is taken: {error}"
                problems.append(LocalProblem(None, shown(f"{folder.path}/{name}"), what))
    if maildir:
        seen.offlineimap = _some_name_has(folder, _OFFLINEIMAP)
    return seen, below


def _leads_to_a_folder(folder: Folder, name: str) -> bool:
    try:
        return os.path.isdir(f"{folder.path}/{name}")  # noqa: PTH112 only to tell people of it
    except ValueError:
        return False


def _some_name_has(folder: Folder, text: str) -> bool:
    for part in PARTS:
        try:
            with folder.child(part) as inner:
                if any(text in entry.name for entry in itertools.islice(inner.entries(), _NAMES_TO_RECOGNISE)):
                    return True
        except OSError:  # it is told of when the messages are read
            continue
    return False


class _Naming:
    """Tells how the folders of a tree are named, from all of them."""

    def __init__(self, found: Sequence[_Seen]) -> None:
        self._maildirs = {seen.parts for seen in found if seen.maildir}
        in_dots = any(_dots(parts) > 1 for parts in self._maildirs)
        top = {parts[0] for parts in self._maildirs if parts}
        beside_inbox = any(not name.startswith(".") and not self._is_inbox((name,)) for name in top)
        self._legacy = in_dots or (beside_inbox and () not in self._maildirs)
        self._flat = self._is_flat(found)

    def levels(self, parts: Parts) -> list[str]:
        """The levels of a mailbox's name as they stand in the names of its folders."""
        levels: list[str] = []
        for depth, part in enumerate(parts):
            parent = parts[:depth]
            if part.startswith(".") and (parent in self._maildirs or not parent or self._legacy):
                levels = self._below_dot(levels, parent, part[1:])
            elif self._flat:
                levels += part.split(".")
            else:
                levels.append(part)
        return levels or ["INBOX"]

    def _below_dot(self, levels: list[str], parent: Parts, name: str) -> list[str]:
        if self._legacy:
            whole = levels if parent or () not in self._maildirs else ["INBOX"]
            return [*whole, name]
        if not parent or self._is_inbox(parent):
            first, *others = name.split(".")
            return [first or "INBOX", *others]
        return [*levels, name]

    def _is_inbox(self, parts: Parts) -> bool:
        return len(parts) == 1 and parts[0].casefold() == "inbox"

    def _is_flat(self, found: Sequence[_Seen]) -> bool:
        if any(len(parts) != 1 for parts in self._maildirs) or any(seen.mbsync for seen in found):
            return False
        names = {parts[0] for parts in self._maildirs}
        return any(seen.offlineimap for seen in found) or any(_has_parent(name, names) for name in names)


def _dots(parts: Parts) -> int:
    return sum(part.startswith(".") for part in parts)


def _has_parent(name: str, names: Iterable[str]) -> bool:
    levels = name.split(".")
    return any(".".join(levels[:depth]) in names for depth in range(1, len(levels)))


def _text(level: str) -> str:
    """A level as people read it: modified UTF-7 where it is that, else UTF-8, else with what it has in bytes."""
    octets = os.fsencode(level)
    if octets.isascii():
        try:
            return decode_utf7(octets)
        except ValueError:
            return level
    return octets.decode("utf-8", "backslashreplace")
