"""Backups of Got-Your-Back (GYB): a folder with a database of labels, and a file for each message of a Gmail account.

Labels become mailboxes: a message is in as many as it has labels. The database is opened so that it is not changed.
Gmail keeps state as labels too: a message that is not UNREAD was read, STARRED is \\Flagged. Old versions of the tool
kept IMAP's names and flags instead; both are read.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from backupd.mail.flags import normalise
from backupd.model import Flags, Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.compression import LONGEST_MAGIC, Unreadable, decompressed
from backupd.sources.local.files import Folder, OpenFile, Parts, moment, reason
from backupd.sources.local.folder_tree import folders
from backupd.sources.local.naming import mailbox

_DATABASE = "msg-db.sqlite"
_UNFINISHED = (f"{_DATABASE}-journal", f"{_DATABASE}-wal")
_SIZE_UNKNOWN = None

_SYSTEM: dict[str, tuple[str, bytes]] = {
    "inbox": ("INBOX", b""),
    "sent": ("Sent", b"\\Sent"),
    "draft": ("Drafts", b"\\Drafts"),
    "drafts": ("Drafts", b"\\Drafts"),
    "spam": ("Spam", b"\\Junk"),
    "trash": ("Trash", b"\\Trash"),
    "chat": ("Chats", b""),
    "chats": ("Chats", b""),
}
_NO_LABEL = ("Archive", b"\\Archive")
_STATE = {"starred": b"\\Flagged", "important": b"$Important"}  # $Important: RFC 8457
_CATEGORY = "category_"

_MESSAGES = "SELECT message_num, message_filename, message_internaldate FROM messages ORDER BY 3, 1"


class GybFormat:
    """A backup of Got-Your-Back."""

    name = "gyb"

    def recognises(self, path: Path) -> bool:
        """Whether its database is there, with the tables it has."""
        try:
            if not (path / _DATABASE).is_file():
                return False
            with closing(_open(path)) as database:
                return {"messages", "labels"} <= _tables(database)
        except (OSError, sqlite3.Error):
            return False

    def open(self, path: Path, *, exact: bool) -> GybStore:
        """The store at this path."""
        return GybStore(path, exact=exact)


class GybStore:
    """A folder of Got-Your-Back."""

    kind = "Got-Your-Back folder"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._path, self._exact = path, exact

    @functools.cached_property
    def octets(self) -> int:
        """What the files of the messages have that are there."""
        total = 0
        try:
            with closing(_open(self._path)) as database, _Files(self._path) as files:
                for _, name, _ in database.execute(_MESSAGES):
                    try:
                        with files.open(name) as file:
                            total += file.size
                    except OSError:  # told of when the messages are read
                        continue
        except (OSError, sqlite3.Error):  # so is this
            return total
        return total

    def mailboxes(self) -> list[Mailbox]:
        """One for each label that a message has."""
        try:
            with closing(_open(self._path)) as database:
                labels = [str(label) for (label,) in database.execute("SELECT DISTINCT label FROM labels ORDER BY 1")]
        except (OSError, sqlite3.Error):  # told of when the messages are read
            return []
        boxes = [box for label in labels if (box := _mailbox(label))]
        return list({box.raw_name: box for box in boxes}.values())

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages of the database in the order they came."""
        where = str(self._path / _DATABASE)
        for name in _UNFINISHED:
            unfinished = self._path / name
            if unfinished.is_file() and unfinished.stat().st_size:
                what = "Got-Your-Back is at work or was killed: labels may be out of date; run it once more"
                yield LocalProblem(None, str(unfinished), what)
        try:
            with closing(_open(self._path)) as database, _Files(self._path) as files:
                has_flags = "flags" in _tables(database)
                for number, name, date in database.execute(_MESSAGES):
                    labels = _strings(database, "SELECT label FROM labels WHERE message_num = ? ORDER BY 1", number)
                    noted = (
                        _strings(database, "SELECT flag FROM flags WHERE message_num = ?", number)
                        if has_flags
                        else None
                    )
                    yield self._message(files, name, date, labels, noted)
                (known,) = database.execute("SELECT COUNT(DISTINCT message_filename) FROM messages").fetchone()
            yield from self._unknown(known)
        except sqlite3.Error as error:
            yield LocalProblem(None, where, f"not a database of Got-Your-Back that can be read: {error}")
        except OSError as error:
            yield LocalProblem(None, where, reason(error))

    def _unknown(self, known: int) -> Iterator[LocalProblem]:
        """Tell of files of messages that the database has lost."""
        there, _ = folders(self._path, _is_message)
        more = sum(found.messages for found in there) - known
        if more > 0:
            what = f"{more} files of messages are not in the database; import them with --format eml to have them too"
            yield LocalProblem(None, str(self._path), what)

    def _message(
        self, files: _Files, name: object, date: object, labels: list[str], noted: list[str] | None
    ) -> LocalMessage | LocalProblem:
        boxes = {box.raw_name: box for label in labels if (box := _mailbox(label))}
        if not boxes:
            box = mailbox([_NO_LABEL[0]], special_use=_NO_LABEL[1])
            boxes[box.raw_name] = box
        mailboxes = tuple(boxes.values())
        place = f"{self._path}/{name}"
        try:
            file = files.open(name)
            packed = decompressed(file, file.read(LONGEST_MAGIC), _SIZE_UNKNOWN)
            return LocalMessage(
                mailboxes=mailboxes,
                body=body_of(packed or file.chunks, exact=self._exact, size=None if packed else file.size),
                place=place,
                flags=_flags(labels, noted),
                stored=_date(date) or moment(file.modified),
            )
        except OSError as error:
            return LocalProblem(mailboxes[0], place, reason(error))
        except Unreadable as error:
            return LocalProblem(mailboxes[0], place, str(error))


class _Files:
    """The files of messages. Those of one day lie together, so the folder of the last one stays open."""

    def __init__(self, path: Path) -> None:
        self._opened = ExitStack()
        self._root = self._opened.enter_context(Folder.root(path))
        self._last: tuple[Parts, Folder] | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        self._forget()
        self._opened.close()

    def open(self, name: object) -> OpenFile:
        """A message's file by the name in the database, as Unix or Windows writes it. Raises OSError."""
        parts = tuple(str(name).replace("\\", "/").split("/"))
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise OSError("a file name that leads elsewhere")
        *above, last = parts
        folder = tuple(above)
        if self._last is None or self._last[0] != folder:
            self._forget()
            self._last = (folder, self._root.descend(folder))
        return self._last[1].open(last)

    def _forget(self) -> None:
        if self._last is not None:
            self._last[1].close()
            self._last = None


def _is_message(name: str) -> bool:
    return name.endswith((".eml", ".eml.gz"))


def _open(path: Path) -> sqlite3.Connection:
    """The database, for reading; no lock is taken and nothing is written. Raises OSError and sqlite3.Error."""
    with Folder.root(path) as root, root.open(_DATABASE):
        pass  # a link or a pipe is refused here
    return sqlite3.connect(f"file:{quote(str(path / _DATABASE))}?mode=ro&immutable=1", uri=True)


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _strings(database: sqlite3.Connection, query: str, number: object) -> list[str]:
    return [str(value) for (value,) in database.execute(query, (number,))]


def _name(label: str) -> str:
    """A label as it is known: old versions kept IMAP's, with one or two backslashes in front."""
    return label.lstrip("\\").casefold() if label.startswith("\\") or label.isupper() else ""


def _mailbox(label: str) -> Mailbox | None:
    """The mailbox for a label; None if it stands for something else."""
    name = _name(label)
    if name in _SYSTEM:
        level, use = _SYSTEM[name]
        return mailbox([level], special_use=use)
    if name == "unread" or name in _STATE or name.startswith(_CATEGORY):
        return None
    return mailbox(label.split("/"), special_use=b"")


def _flags(labels: list[str], noted: list[str] | None) -> Flags:
    names = {_name(label) for label in labels}
    flags = {flag for name, flag in _STATE.items() if name in names}
    if names & {"draft", "drafts"}:
        flags.add(b"\\Draft")
    if noted is not None:
        flags |= {b"\\" + flag.lstrip("\\").encode("utf-8", "replace") for flag in noted if flag.startswith("\\")}
        flags |= {flag.encode("utf-8", "replace") for flag in noted if not flag.startswith("\\")}
    elif "unread" not in names:
        flags.add(b"\\Seen")
    return normalise(flags)


def _date(value: object) -> datetime | None:
    """INTERNALDATE as the program kept it: in the local time of its machine, which is taken to be the one here."""
    try:
        return datetime.fromisoformat(str(value)).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


FORMAT = GybFormat()
