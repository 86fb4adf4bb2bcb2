"""Apple Mail's own folders: a file for each message, with a property list of flags and dates behind the message.

Such a file, N.emlx, has the message's octets as a number in its first line, then the message, then the list. A file
N.partial.emlx is a message whose attachments Mail keeps elsewhere, decoded, or has not fetched. Nobody can put together
again what the sender encoded, octet for octet, so such messages are told of and not taken; Mail fetches them whole when
the mailbox is exported ("Mailbox > Export Mailbox").
"""

from __future__ import annotations

import functools
import itertools
import plistlib
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.parsers.expat import ExpatError

from backupd.mail.flags import normalise
from backupd.model import Body, Flags, Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.files import Folder, OpenFile, Parts, moment, reason, shown
from backupd.sources.local.folder_tree import Found, folders, holds, listing
from backupd.sources.local.naming import mailbox

_SUFFIX = ".emlx"
_PARTIAL = ".partial.emlx"
_ATTACHMENTS = "Attachments"
_MAILBOX = re.compile(r"(.+)\.(?:imap)?mbox\Z", re.DOTALL)
_ACCOUNT = re.compile(
    r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}|(?:IMAP|AOSIMAP|POP|Mac|EWS|ExchangeEWS|Exchange|iCloud)-.+",
    re.DOTALL,
)
_AROUND = re.compile(r"V\d+|Mailboxes|Mail|Library|MailData")
"""Folders above mailboxes that are part of no name."""

_FIRST_LINE = re.compile(rb"[ \t]*(\d{1,15})[ \t]*\r?\n")
_LONGEST_FIRST_LINE = 64
_LARGEST_LIST = 1 << 20
_FLAGS = {
    0: b"\\Seen",
    1: b"\\Deleted",
    2: b"\\Answered",
    4: b"\\Flagged",
    6: b"\\Draft",
    8: b"$Forwarded",
    24: b"$Junk",
    25: b"$NotJunk",
}
"""By the number of the bit. The others tell of attachments, priority and how the message is shown."""

_EMPTIED = b"\nX-Apple-Content-Length:"
_BLANK_LINES = re.compile(rb"\r?\n(?:\r?\n)+")
_NOT_WHOLE = "not whole: Mail keeps its attachments elsewhere or has not fetched them; export the mailbox from Mail"


def is_emlx(name: str) -> bool:
    """Whether a file of this name is a message of Mail, whole or not."""
    return name.lower().endswith(_SUFFIX) and not name.startswith(".")


class EmlxFormat:
    """Apple Mail's folders."""

    name = "emlx"

    def recognises(self, path: Path) -> bool:
        """Whether there is a file of Mail in it or below."""
        return holds(path, is_emlx)

    def open(self, path: Path, *, exact: bool) -> EmlxStore:
        """The store at this path."""
        return EmlxStore(path, exact=exact)


class EmlxStore:
    """Folders of Apple Mail: all of them, one account, or one mailbox."""

    kind = "Apple Mail folder"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._path, self._exact = path, exact

    @functools.cached_property
    def _found(self) -> tuple[list[tuple[Found, Mailbox]], list[LocalProblem]]:
        found, problems = folders(self._path, is_emlx)
        kept = [one for one in found if _ATTACHMENTS not in one.parts]
        accounts = {account for one in kept if (account := _account(one.parts))}
        own = _MAILBOX.match(self._path.name)
        above = (own[1],) if own else ()
        boxes = [(one, mailbox([*above, *levels(one.parts, with_account=len(accounts) > 1)])) for one in kept]
        return boxes, problems

    @property
    def octets(self) -> int:
        """What the files of the messages have."""
        return sum(found.octets for found, _ in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """One for each folder that has messages."""
        return list({box.raw_name: box for _, box in self._found[0]}.values())

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All whole messages, folder by folder, in order of their numbers."""
        found, problems = self._found
        yield from problems
        for one, box in found:
            try:
                with Folder.root(self._path) as root, root.descend(one.parts) as folder:
                    yield from self._of_folder(folder, box)
            except OSError as error:
                yield LocalProblem(box, shown("/".join([str(self._path), *one.parts])), reason(error))

    def _of_folder(self, folder: Folder, box: Mailbox) -> Iterator[LocalMessage | LocalProblem]:
        odd: list[tuple[str, str]] = []
        with closing(listing(folder, is_emlx, odd)) as names:
            for name, what in odd:
                yield LocalProblem(box, shown(f"{folder.path}/{name}"), what)
            for _, name in names:
                place = shown(f"{folder.path}/{name}")
                if name.lower().endswith(_PARTIAL):
                    yield LocalProblem(box, place, _NOT_WHOLE)
                    continue
                try:
                    yield self._message(folder.open(name), box, place)
                except OSError as error:
                    yield LocalProblem(box, place, reason(error))

    def _message(self, file: OpenFile, box: Mailbox, place: str) -> LocalMessage | LocalProblem:
        first = _FIRST_LINE.match(file.read(_LONGEST_FIRST_LINE))
        if first is None:
            return LocalProblem(box, place, "not a message of Mail: its first line is no number")
        start, size = first.end(), int(first[1])
        end = start + size
        if end > file.size:
            what = f"cut off: {file.size - start} octets of a message of {size}"
            return LocalProblem(box, place, what)
        body = body_of(lambda: file.chunks(start, end), exact=self._exact, size=size)
        if _is_emptied(body):
            return LocalProblem(box, place, _NOT_WHOLE)
        noted = _list(file.read(_LARGEST_LIST, end))
        received = noted.get("date-received")
        return LocalMessage(
            mailboxes=(box,),
            body=body,
            place=place,
            flags=_flags(noted.get("flags")),
            stored=moment(received) if isinstance(received, int | float) else None,
        )


def levels(parts: Parts, *, with_account: bool) -> list[str]:
    """The levels of a mailbox's name from the folders its messages are in.

    Below the first folder of a mailbox only folders of mailboxes count; the rest is how Mail spreads its files.
    """
    found: list[str] = []
    inside = False
    for part in parts:
        box = _MAILBOX.match(part)
        if box is not None:
            inside = True
            found.append(shown(box[1]))
        elif not inside and (with_account or not _ACCOUNT.fullmatch(part)) and not _AROUND.fullmatch(part):
            found.append(shown(part))
    return found if inside else []


def _account(parts: Parts) -> str:
    return next((part for part in parts if _ACCOUNT.fullmatch(part)), "")


def _is_emptied(body: bytes | Body) -> bool:
    """Whether a part of the message was taken out: its header has the field, and nothing is behind it.

    A large message has its parts: they make it large.
    """
    if not isinstance(body, bytes) or _EMPTIED not in body:
        return False
    blocks = _BLANK_LINES.split(body)
    for block, following in itertools.pairwise(blocks):
        before, field, _ = block.partition(_EMPTIED)
        if field and following.startswith(b"--") and b"\n--" in b"\n" + before:
            return True
    return False


def _list(content: bytes) -> dict[str, object]:
    """The property list behind a message; empty where there is none that can be read."""
    try:
        found = plistlib.loads(content.strip(), fmt=plistlib.FMT_XML)
    except (ValueError, ExpatError, LookupError, AttributeError, TypeError, OverflowError):
        return {}
    return found if isinstance(found, dict) else {}


def _flags(value: object) -> Flags:
    bits = value if isinstance(value, int) else 0
    return normalise(flag for bit, flag in _FLAGS.items() if bits >> bit & 1)


FORMAT = EmlxFormat()
