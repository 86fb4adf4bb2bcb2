"""Backups of the tool imap-backup: NAME.mbox with NAME.imap beside it, which has UIDs, flags and places as JSON.

The mbox files are mboxrd with LF. Levels of names are folders; what it does not like in a file's name stands there as
"%", hexadecimal digits and ";".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from backupd.mail.flags import normalise
from backupd.model import Flags, Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.files import Folder, Parts, reason, shown
from backupd.sources.local.folder_tree import folders, holds
from backupd.sources.local.mbox import Cleaned, messages_of
from backupd.sources.local.naming import mailbox

_INDEX, _MAIL = ".imap", ".mbox"
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{1,6});")
_SYSTEM = {"seen", "answered", "flagged", "deleted", "draft", "recent"}


class _Message(msgspec.Struct):
    offset: int
    flags: list[str] = []


class _Metadata(msgspec.Struct):
    messages: list[_Message]


def _is_index(name: str) -> bool:
    return name.endswith(_INDEX) and not name.startswith(".")


def _name(part: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if int(found[1], 16) < 0x110000 else found[0], part)


def _flag(name: str) -> bytes:
    """The tool writes system flags without their backslash."""
    return (f"\\{name}" if name.lower() in _SYSTEM else name).encode("utf-8", "surrogateescape")


def _as_it_is(header: bytes) -> Cleaned:
    return Cleaned(header)


class ImapBackupFormat:
    """A folder that imap-backup wrote for an account."""

    name = "imap-backup"

    def recognises(self, path: Path) -> bool:
        """Whether there is an index with its mbox file in it or below."""
        return path.is_dir() and holds(path, _is_index)

    def open(self, path: Path, *, exact: bool) -> ImapBackupStore:
        """The store at this path."""
        return ImapBackupStore(path, exact=exact)


class ImapBackupStore:
    """What imap-backup wrote for an account."""

    kind = "imap-backup"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._root, self._exact = path, exact

    @functools.cached_property
    def _found(self) -> tuple[list[tuple[Parts, str, int]], list[LocalProblem]]:
        """(folders, name without suffix, octets of mail) of each mailbox."""
        found, problems = folders(self._root, _is_index, any_folder=True)
        boxes: list[tuple[Parts, str, int]] = []
        for one in found:
            place = self._root.joinpath(*one.parts)
            for index in sorted(place.iterdir()):
                if not _is_index(index.name):
                    continue
                mail = index.with_suffix(_MAIL)
                if mail.is_file():
                    boxes.append((one.parts, index.name.removesuffix(_INDEX), mail.stat().st_size))
                else:
                    problems.append(LocalProblem(None, shown(str(index)), f"{mail.name} is missing beside it"))
        return boxes, problems

    @property
    def octets(self) -> int:
        """What the mbox files have."""
        return sum(octets for _, _, octets in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """One for each pair of files."""
        return [self._mailbox(parts, name) for parts, name, _ in self._found[0]]

    def _mailbox(self, parts: Parts, name: str) -> Mailbox:
        return mailbox([_name(shown(part)) for part in (*parts, name)])

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, mailbox by mailbox."""
        yield from self._found[1]
        for parts, name, octets in self._found[0]:
            box = self._mailbox(parts, name)
            place = shown("/".join([str(self._root), *parts, name]))
            try:
                with Folder.root(self._root) as root, root.descend(parts) as folder:
                    flags = self._flags(folder, name)
                    file = folder.open(name + _MAIL)
            except OSError as error:
                yield LocalProblem(box, place, reason(error))
                continue
            except (msgspec.DecodeError, ValueError) as error:
                what = f"not what imap-backup writes, so the flags are unknown: {error}"
                yield LocalProblem(box, place + _INDEX, what)
                flags = {}
                with Folder.root(self._root) as root, root.descend(parts) as folder:
                    file = folder.open(name + _MAIL)
            if octets:
                yield from messages_of(
                    file, box, place + _MAIL, exact=self._exact, clean=_as_it_is, flags_of=flags.get
                )  # fmt: skip

    def _flags(self, folder: Folder, name: str) -> dict[int, Flags]:
        """Flags by the octet at which a message begins. Raises OSError, DecodeError."""
        with folder.open(name + _INDEX) as file:
            metadata = msgspec.json.decode(b"".join(file.chunks()), type=_Metadata)
        return {each.offset: normalise(map(_flag, each.flags)) for each in metadata.messages}


FORMAT = ImapBackupFormat()
