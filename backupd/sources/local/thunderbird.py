"""Thunderbird and its relatives: a profile, one account's folder in it, or folders copied out of it.

A mailbox is a file without a suffix, with its index NAME.msf and its subfolders in NAME.sbd beside it. Thunderbird
keeps a mark in each message: X-Mozilla-Status with the flags, X-Mozilla-Keys with the tags. They stand at the very top
of the header, are taken out, and the message is the server's again. What is marked as expunged was deleted, and waits
only for the file to be compacted: it is left out.

A profile may have several accounts. Where more than one has mail, each is a level of its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from backupd.mail.flags import normalise
from backupd.model import Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.files import Folder, Parts, reason, shown
from backupd.sources.local.folder_tree import folders
from backupd.sources.local.mbox import Cleaned, is_mbox, messages_of
from backupd.sources.local.naming import mailbox

_INDEX = ".msf"
_BELOW = ".sbd"
_ACCOUNTS = ("Mail", "ImapMail")
_NO_MAILBOX = re.compile(
    r"\.(?:msf|dat|html?|json|sqlite|txt|db|mab|js|ini|log|snm|lock|wdseml|mozmsgs|bak|tmp|zip)\Z|\A\.", re.IGNORECASE
)
_OWN = re.compile(
    rb"(?:(?:X-Account-Key|X-UIDL|X-Mozilla-Status2?|X-Mozilla-Keys):[^\n]*(?:\n[ \t][^\n]*)*\n)+", re.IGNORECASE
)
_STATUS = re.compile(rb"^X-Mozilla-Status:[ \t]*([0-9a-f]{1,8})", re.IGNORECASE | re.MULTILINE)
_KEYS = re.compile(rb"^X-Mozilla-Keys:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)
_EXPUNGED = 0x8
_FLAGS = {0x1: b"\\Seen", 0x2: b"\\Answered", 0x4: b"\\Flagged", 0x1000: b"$Forwarded"}
_USES = {
    "sent": b"\\Sent", "drafts": b"\\Drafts", "trash": b"\\Trash", "junk": b"\\Junk", "archives": b"\\Archive",
    "templates": b"", "unsent messages": b"",
}  # fmt: skip


def clean(header: bytes) -> Cleaned:
    """Takes Thunderbird's own fields from the top of a header."""
    own = _OWN.match(header)
    if own is None:
        return Cleaned(header)
    status = _STATUS.search(own[0])
    bits = int(status[1], 16) if status else 0
    keys = _KEYS.search(own[0])
    flags = [flag for bit, flag in _FLAGS.items() if bits & bit]
    tags = keys[1].split() if keys else []
    return Cleaned(header[own.end() :], normalise([*flags, *tags]), bool(bits & _EXPUNGED))


def _tell_only(header: bytes) -> Cleaned:
    return clean(header)._replace(header=header)


class _File:
    """A mailbox's file. account: the folders above its account's folder."""

    def __init__(self, parts: Parts, name: str, octets: int, account: Parts) -> None:
        self.parts, self.name, self.octets, self.account = parts, name, octets, account

    def levels(self, *, with_account: bool) -> list[str]:
        """The levels of its mailbox's name."""
        inner = [part.removesuffix(_BELOW) for part in self.parts[len(self.account) :]]
        outer = [self.account[-1]] if with_account and self.account else []
        return [shown(each) for each in [*outer, *inner, self.name]]


class ThunderbirdFormat:
    """A profile of Thunderbird, or a part of one."""

    name = "thunderbird"

    def recognises(self, path: Path) -> bool:
        """Whether there is a profile's preferences, or a mailbox with its index."""
        try:
            if not path.is_dir():
                return False
            if path.joinpath("prefs.js").is_file() and any(path.joinpath(each).is_dir() for each in _ACCOUNTS):
                return True
            names = {each.name for each in path.iterdir()}
        except OSError:
            return False
        return any(
            name.endswith((_INDEX, _BELOW)) and name.rpartition(".")[0] in names and is_mbox(path / name[:-4])
            for name in names
        )

    def open(self, path: Path, *, exact: bool) -> ThunderbirdStore:
        """The store at this path."""
        return ThunderbirdStore(path, exact=exact)


class ThunderbirdStore:
    """Mailboxes of Thunderbird below a folder."""

    kind = "Thunderbird"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._root, self._exact = path, exact

    @functools.cached_property
    def _found(self) -> tuple[list[_File], list[LocalProblem]]:
        is_profile = any(self._root.joinpath(each).is_dir() for each in _ACCOUNTS)
        found, problems = folders(self._root, _may_be_mailbox, any_folder=True)
        files: list[_File] = []
        for one in found:
            parts = one.parts
            if is_profile and (len(parts) < 2 or parts[0] not in _ACCOUNTS):
                continue  # address books, extensions, caches
            account = parts[:2] if is_profile else ()
            if not all(part.endswith(_BELOW) for part in parts[len(account) :]):
                continue
            files += self._files(parts, account)
        return files, problems

    def _files(self, parts: Parts, account: Parts) -> list[_File]:
        files = []
        try:
            with Folder.root(self._root) as root, root.descend(parts) as folder:
                for entry in sorted(folder.entries(), key=lambda each: each.name):
                    if not _may_be_mailbox(entry.name) or not entry.is_file(follow_symlinks=False):
                        continue
                    size = entry.stat(follow_symlinks=False).st_size
                    path = Path(folder.path, entry.name)
                    # What has an index and cannot be read, or does not begin as it should, is told of by `messages`.
                    if not size or is_mbox(path) or path.with_name(f"{path.name}{_INDEX}").is_file():
                        files.append(_File(parts, entry.name, size, account))
        except OSError:
            return files  # `folders` has told of it
        return files

    @functools.cached_property
    def _several(self) -> bool:
        """Whether more than one account has mail."""
        return len({each.account for each in self._found[0] if each.octets}) > 1

    @property
    def octets(self) -> int:
        """What the files have."""
        return sum(each.octets for each in self._found[0])

    def _mailbox(self, file: _File) -> Mailbox:
        levels = file.levels(with_account=self._several)
        use = _USES.get(file.name.lower()) if len(levels) == 1 else None
        return mailbox(levels, special_use=use)

    def mailboxes(self) -> list[Mailbox]:
        """One for each file; of empty ones of accounts without any mail, none."""
        with_mail = {each.account for each in self._found[0] if each.octets}
        boxes = [self._mailbox(each) for each in self._found[0] if each.account in with_mail]
        return list({box.raw_name: box for box in boxes}.values())

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, mailbox by mailbox."""
        yield from self._found[1]
        for file in self._found[0]:
            if not file.octets:
                continue
            box = self._mailbox(file)
            place = shown("/".join([str(self._root), *file.parts, file.name]))
            try:
                with Folder.root(self._root) as root, root.descend(file.parts) as folder:
                    opened = folder.open(file.name)
            except OSError as error:
                yield LocalProblem(box, place, reason(error))
                continue
            yield from messages_of(
                opened, box, place, exact=self._exact, clean=_tell_only if self._exact else clean
            )  # fmt: skip


def _may_be_mailbox(name: str) -> bool:
    return not _NO_MAILBOX.search(name) and not name.endswith(_BELOW)


FORMAT = ThunderbirdFormat()
