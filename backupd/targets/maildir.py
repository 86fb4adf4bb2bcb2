"""A Maildir that Dovecot, mbsync, mutt and others read as it is: bytes, flags, keywords and dates of every message.

The layout is the nested one: INBOX is the folder itself, "Archive/2024" is the folder Archive/2024 in it, each with
cur, new and tmp. Dovecot calls it LAYOUT=fs (`mail_location = maildir:DIR:LAYOUT=fs`). Unlike Maildir++
(".Archive.2024") it can hold names with dots, and any depth. Names stand in modified UTF-7, as Dovecot 2.3 keeps them;
what a folder cannot be called ("..", "cur", a slash within a level) is escaped by percent signs.

The format has 26 letters for keywords (file dovecot-keywords); a message with more loses the rest, and is reported. The
zone of INTERNALDATE, UIDs and special use have no place in it: they are in messages.jsonl and mailbox.json.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import BinaryIO

from backupd.mail import dates
from backupd.mail.flags import maildir_letters
from backupd.mail.names import UNSAFE, encode_utf7, path_component
from backupd.model import Flags, Mailbox
from backupd.targets import ledger
from backupd.targets.base import Outgoing
from backupd.targets.folders import PARTIAL, Folder
from backupd.targets.message_files import Delivery, MessageFiles, Staged, arrival
from backupd.targets.paths import Component, Parts, mark, text_of_level

KEYWORDS = "dovecot-keywords"
SUBSCRIPTIONS = "subscriptions"
MOST_KEYWORDS = 26
LONGEST_LEVEL = 200
"""Octets of a folder's name; file systems allow 255."""

_NOT_A_FOLDER = re.compile(rf"\A\Z|\A[.~]|/|{UNSAFE.pattern}|\A%\Z|%(?:[0-9A-F]{{2}}|~)")
"""Names that mean something else, and names that look as if they had been escaped."""

_OURS = "backupd"
_PARTS_OF_MAILDIR = {"cur", "new", "tmp", "maildirfolder", SUBSCRIPTIONS, ledger.MAILBOX, ledger.MESSAGES}
_SYSTEM = {b"\\seen", b"\\answered", b"\\flagged", b"\\deleted", b"\\draft"}


def component(level: bytes) -> str:
    """The folder for one level of a name: the level itself where a folder can be called so."""
    text, exact = text_of_level(level)
    folded = text.casefold()
    reserved = folded in _PARTS_OF_MAILDIR or folded.startswith("dovecot") or text.endswith(PARTIAL)
    if exact and not reserved and not _NOT_A_FOLDER.search(text) and len(level) <= LONGEST_LEVEL:
        return level.decode("ascii")
    escaped = path_component(text) + ("" if exact and not reserved else mark(level))
    if escaped.startswith("~"):  # a home directory, for Dovecot
        escaped = f"%7E{escaped[1:]}"
    for length in (len(text), 80, 40, 20, 0):
        encoded = encode_utf7(escaped)
        if len(encoded) <= LONGEST_LEVEL:
            break
        escaped = path_component(text[:length]) + mark(level)
    return encoded.decode("ascii")


class Keywords:
    """The letters that stand for keywords in the names of a mailbox's files: the file dovecot-keywords."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._changed = False
        self._table: dict[int, bytes] = {}
        for line in (folder.read(KEYWORDS) or b"").splitlines():
            number, _, keyword = line.partition(b" ")
            if number.isdigit() and int(number) < MOST_KEYWORDS and keyword:
                self._table[int(number)] = keyword
        self._numbers = {keyword.lower(): number for number, keyword in self._table.items()}

    def letters(self, flags: Flags) -> tuple[str, list[bytes]]:
        """The letters of a message's flags, and the flags that get none."""
        letters, left = set(maildir_letters(flags)), []
        for flag in flags:
            if flag.lower() in _SYSTEM:
                continue
            number = None if flag.startswith(b"\\") else self._number(flag)
            if number is None:
                left.append(flag)
            else:
                letters.add(chr(ord("a") + number))
        return "".join(sorted(letters)), left

    def _number(self, keyword: bytes) -> int | None:
        """The number of a keyword; $Forwarded has one beside its letter P, which Dovecot does not know."""
        number = self._numbers.get(keyword.lower())
        if number is None:
            number = next((each for each in range(MOST_KEYWORDS) if each not in self._table), None)
            if number is not None:
                self._table[number] = keyword
                self._numbers[keyword.lower()] = number
                self._changed = True
        return number

    def save(self) -> None:
        """Write the file if it changed."""
        if self._changed:
            lines = (b"%d %s\n" % (number, keyword) for number, keyword in sorted(self._table.items()))
            self._folder.replace(KEYWORDS, b"".join(lines))
            self._changed = False


class MaildirTarget(MessageFiles):
    """Restores into a Maildir; see the module for its layout."""

    kind = "maildir"
    fold = False  # Maildirs live on file systems that tell case apart: colons in file names rule out the others

    def _component(self) -> Component:
        return component

    def _parts(self, mailbox: Mailbox) -> Parts:
        parts = super()._parts(mailbox)
        return () if parts == ("INBOX",) else parts

    def _lay_out(self, folder: Folder) -> None:
        for part in ("cur", "new", "tmp"):
            with _part(folder, part) as inner:
                if part == "tmp":
                    for name in inner.names():
                        if f".{_OURS}." in name:
                            inner.remove(name)
        for name in folder.names():
            if name.startswith(".") and name.endswith(PARTIAL):
                folder.remove(name)

    def _announce(self, root: Folder, mailbox: Mailbox) -> None:
        if mailbox.subscribed:
            name = "/".join(self._parts(mailbox) or ("INBOX",)).encode("ascii")
            lines = (root.read(SUBSCRIPTIONS) or b"").splitlines()
            version_2 = lines[:1] == [b"V\t2"]
            line = name.replace(b"/", b"\t") if version_2 else name
            if line not in lines:
                root.replace(SUBSCRIPTIONS, b"".join(each + b"\n" for each in [*lines, line]))

    def _messages(self, folder: Folder) -> Iterator[BinaryIO]:
        for part in ("cur", "new"):
            inner = folder.child(part, create=False)
            if inner is not None:
                with inner:
                    for name in inner.names():
                        file = None if name.startswith(".") else inner.open(name)
                        if file is not None:
                            yield file

    def _delivery(self, folder: Folder) -> Delivery:
        return _MaildirDelivery(folder)


class _MaildirDelivery(Delivery):
    """Messages go to tmp, and from there to cur."""

    def __init__(self, folder: Folder) -> None:
        with contextlib.ExitStack() as opened:
            self.temporary = opened.enter_context(_part(folder, "tmp"))
            self.final = opened.enter_context(_part(folder, "cur"))
            self._keywords = Keywords(folder)
            self._opened = opened.pop_all()
        self._folder = folder
        self._host = "".join(each if each.isalnum() or each in "-." else "-" for each in socket.gethostname())
        self._last = self._count = 0
        self._run = os.urandom(4).hex()

    def names(self, message: Outgoing) -> tuple[str, str, str]:
        # Dovecot numbers the messages it finds by the seconds in front: so they stand in the order of the archive.
        self._last = max(self._last + 1, arrival(message))
        self._count += 1
        unique = f"{self._last}.M{self._count:06}R{self._run}U{message.uid}.{_OURS}.{self._host}"
        letters, left = self._keywords.letters(message.flags)
        remarks = []
        if left:
            remarks.append(f"no letter in the Maildir for {b', '.join(left).decode('ascii', 'backslashreplace')}")
        usable, changed = dates.for_append(message.internaldate)
        if changed:
            shown = message.internaldate.decode("ascii", "backslashreplace")
            remarks.append(f"the date {shown!r} became {usable.decode('ascii')!r}")
        name = f"{unique},S={message.size}:2,{letters}"
        return name, name, "; ".join(remarks)

    def describe(self, batch: list[Staged]) -> list[int]:
        self._keywords.save()
        notes = (ledger.message_line(each.message, file=each.final.partition(":")[0]) for each in batch)
        return [self._folder.append(ledger.MESSAGES, b"".join(notes))]

    def close(self) -> None:
        self._opened.close()


def _part(folder: Folder, name: str) -> Folder:
    part = folder.child(name, create=True)
    assert part is not None  # noqa: S101 it was made
    return part
