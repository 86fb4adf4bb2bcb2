"""Mbox files, one a mailbox: a file, or a folder of them at any depth; see mbox_reader for the dialects.

What mail programs write into the header for themselves (Status, X-Status, X-Keywords, X-UID, X-IMAP, X-IMAPbase,
Content-Length where it frames the message) becomes flags and is taken out, as Dovecot does when it serves such a file:
without it the message is octet for octet the server's. Our own restores left notes beside the file (see `ledger`);
where they are, everything comes back exactly.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from backupd.mail.flags import from_mbox_status, normalise
from backupd.mail.line_ends import canonical
from backupd.model import Body, Flags, Mailbox
from backupd.sources.local import ledger, mbox_reader
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.files import Folder, OpenFile, Parts, reason, shown
from backupd.sources.local.folder_tree import Found, folders, holds, listing
from backupd.sources.local.getmail import its_fields
from backupd.sources.local.mbox_reader import Growing, NotAnMbox, Piece, Unquote, unquote_o, unquote_rd
from backupd.sources.local.naming import mailbox
from backupd.sources.local.scratch import Table

SUFFIXES = (".mbox", ".mbx", ".mbs")
_BESIDE = (f".{ledger.MAILBOX}", f".{ledger.MESSAGES}")
_FIELD = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:((?:[^\n]|\n[ \t])*)\n")
_OWN = {b"status", b"x-status", b"x-keywords", b"x-uid", b"x-imap", b"x-imapbase"}
_MAYBE_OWN = re.compile(rb"(?:\A|\n)(?:Status|X-Status|X-Keywords|X-UID|X-IMAP)", re.IGNORECASE)
_NO_MESSAGE = re.compile(rb"(?mi)^subject: *DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA")


class Cleaned(NamedTuple):
    """A header without what a mail program wrote into it for itself, and what that said. dropped: it is no message, or
    was deleted."""

    header: bytes
    flags: Flags = ()
    dropped: bool = False


Cleaner = Callable[[bytes], Cleaned]


def clean_status(header: bytes) -> Cleaned:
    """Takes out what mbox programs write. Content-Length goes where there is anything else of theirs."""
    if own := its_fields(header):
        header = header[: own[0]] + header[own[1] :]
    if not _MAYBE_OWN.search(header):
        return Cleaned(header)
    said: dict[bytes, bytes] = {}
    spans = []
    for field in _FIELD.finditer(header):
        name = field[1].lower()
        if name in _OWN:
            said.setdefault(name, field[2].strip())
            spans.append(field.span())
        elif name == b"content-length":
            spans.append(field.span())
    if not said:
        return Cleaned(header)
    kept, position = [], 0
    for start, end in spans:
        kept.append(header[position:start])
        position = end
    kept.append(header[position:])
    keywords = said.get(b"x-keywords", b"").split()
    flags = normalise([*from_mbox_status(said.get(b"status", b""), said.get(b"x-status", b"")), *keywords])
    dropped = b"x-imap" in said and _NO_MESSAGE.search(header) is not None
    return Cleaned(b"".join(kept), flags, dropped)


def clean_nothing(header: bytes) -> Cleaned:
    """Leaves all as it is; the flags are told all the same."""
    return clean_status(header)._replace(header=header)


def messages_of(
    file: OpenFile,
    box: Mailbox,
    place: str,
    *,
    exact: bool,
    clean: Cleaner = clean_status,
    unquote: Unquote = unquote_rd,
    note_of: Callable[[int], ledger.Note | None] = lambda offset: None,
    flags_of: Callable[[int], Flags | None] = lambda offset: None,
    boxes_of: Callable[[bytes], tuple[Mailbox, ...]] | None = None,
) -> Iterator[LocalMessage | LocalProblem]:
    """The messages of an mbox file.

    Args:
        place: the file, for people.
        exact: leave headers and line ends as they are.
        clean: what is done to headers.
        note_of: what a restore of ours noted of the message whose "From " line begins at this octet.
        flags_of: the same, of flags that another tool noted.
        boxes_of: the mailboxes of a message, by its header as it is in the file; `box` where None.
    """
    try:
        for piece in mbox_reader.read(file, unquote=unquote):
            note, flags = note_of(piece.offset), flags_of(piece.offset)
            cleaned = Cleaned(piece.header) if note else clean(piece.header)
            if cleaned.dropped:
                continue
            header = piece.header if exact else cleaned.header
            yield LocalMessage(
                mailboxes=boxes_of(piece.header) if boxes_of else (box,),
                body=_body(header, piece, exact=exact or note is not None),
                place=f"{place}, octet {piece.offset:,}",
                flags=note.flags if note else cleaned.flags if flags is None else flags,
                internaldate=note.internaldate if note else b"",
                stored=mbox_reader.date_of(piece.from_line),
            )
    except Growing as error:
        what = "the file grew while it was read, so this message may not be whole; import it again"
        yield LocalProblem(box, f"{place}, octet {error.offset:,}", what)
    except NotAnMbox:
        yield LocalProblem(box, place, 'it has no "From " line at its beginning, so it is no mbox file')
    except OSError as error:
        yield LocalProblem(box, place, reason(error))


def _body(header: bytes, piece: Piece, *, exact: bool) -> bytes | Body:
    if piece.small is not None:
        return header + piece.small if exact else canonical(header + piece.small)
    return body_of(lambda: chain([header], piece.rest()), exact=exact)


def is_mbox(path: Path) -> bool:
    """Whether a file begins as an mbox file does, or is empty and named like one."""
    try:
        with Folder.root(path.parent) as folder, folder.open(path.name) as file:
            start = file.read(5)
    except OSError:
        return False
    return mbox_reader.begins(start) or (not start and path.suffix.lower() in SUFFIXES)


def _may_be_one(name: str) -> bool:
    return not name.startswith(".") and not name.endswith((*_BESIDE, ".partial", ".lock"))


def _is_one(folder: Folder, name: str) -> bool:
    """Whether it is an mbox file by its name, or by its beginning: mutt, Alpine and getmail name them as they like.
    Raises OSError."""
    with folder.open(name) as file:
        return name.lower().endswith(SUFFIXES) or mbox_reader.begins(file.read(5))


def _looks_like_one(folder: Folder, name: str) -> bool:
    try:
        return _is_one(folder, name)
    except OSError:
        return False


class MboxFormat:
    """An mbox file, or a folder of them."""

    def __init__(self, name: str, unquote: Unquote) -> None:
        self.name, self._unquote = name, unquote

    def recognises(self, path: Path) -> bool:
        """Whether it is such a file, or there is one in it or below."""
        return is_mbox(path) if path.is_file() else holds(path, _may_be_one, _looks_like_one)

    def open(self, path: Path, *, exact: bool) -> MboxStore:
        """The store at this path."""
        return MboxStore(path, exact=exact, unquote=self._unquote)


class MboxStore:
    """Mbox files below a folder, or one of them. In a folder, all files count that begin as mbox files do."""

    kind = "mbox"

    def __init__(self, path: Path, *, exact: bool, unquote: Unquote) -> None:
        self._one = path.name if path.is_file() else None
        self._root = path.parent if self._one else path
        self._exact, self._unquote = exact, unquote

    @functools.cached_property
    def _found(self) -> tuple[list[Found], list[LocalProblem]]:
        if self._one is not None:
            return [Found((), 1, self._root.joinpath(self._one).stat().st_size, None)], []
        return folders(self._root, _may_be_one, any_folder=True)

    @property
    def octets(self) -> int:
        """What the files have."""
        return sum(found.octets for found in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """One for each file."""
        return [box for _, _, box in self._files() if isinstance(box, Mailbox)]

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, file by file."""
        yield from self._found[1]
        for parts, name, box in self._files():
            place = shown("/".join([str(self._root), *parts, name]))
            if isinstance(box, OSError):
                yield LocalProblem(None, place, reason(box))
                continue
            try:
                with Folder.root(self._root) as root, root.descend(parts) as folder:
                    # It closes with the last large message in it, which may be read after all others.
                    yield from self._of_file(folder, name, folder.open(name), box, place)
            except OSError as error:
                yield LocalProblem(box, place, reason(error))

    def _of_file(
        self, folder: Folder, name: str, file: OpenFile, box: Mailbox, place: str
    ) -> Iterator[LocalMessage | LocalProblem]:
        if not file.size:
            return
        notes = _Notes(folder, _stem(name))
        with closing(notes):
            yield from messages_of(
                file, box, place, exact=self._exact, unquote=self._unquote, note_of=notes.get,
                clean=clean_nothing if self._exact else clean_status,
            )  # fmt: skip

    def _files(self) -> Iterator[tuple[Parts, str, Mailbox | OSError]]:
        """(folders, file, its mailbox) of what begins as mbox files do or is named so; or why one cannot be read."""
        for found in self._found[0]:
            try:
                with Folder.root(self._root) as root, root.descend(found.parts) as folder:
                    if self._one is not None:
                        yield found.parts, self._one, self._mailbox(folder, (), self._one)
                        continue
                    with closing(listing(folder, _may_be_one, [])) as names:
                        for _, name in names:
                            try:
                                if _is_one(folder, name):
                                    yield found.parts, name, self._mailbox(folder, found.parts, name)
                            except OSError as error:
                                yield found.parts, name, error
            except OSError:
                continue  # `messages` tells of it when it opens the file, and `folders` of the folder

    def _mailbox(self, folder: Folder, parts: Parts, name: str) -> Mailbox:
        try:
            noted = folder.read(f"{_stem(name)}.{ledger.MAILBOX}")
            if noted is not None:
                return ledger.mailbox_of(noted)
        except (OSError, ValueError):
            pass  # a description that cannot be read: the name of the file is as good
        return mailbox([shown(os.fsdecode(part)) for part in (*parts, _stem(name))])


class _Notes:
    """What a restore of ours noted of the messages in a file, by the octet where each begins."""

    def __init__(self, folder: Folder, stem: str) -> None:
        self._table: Table | None = None
        try:
            file = folder.open(f"{stem}.{ledger.MESSAGES}")
        except OSError:
            return
        with file:
            self._table = Table(self._rows(ledger.lines_of(file.chunks())))

    @staticmethod
    def _rows(lines: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for line in lines:
            try:
                offset = msgspec.json.decode(line, type=_Offset).offset
            except ValueError:
                continue
            yield b"%d" % offset, line

    def get(self, offset: int) -> ledger.Note | None:
        """The note; None where there is none."""
        value = self._table.get(b"%d" % offset) if self._table else None
        return ledger.note_of(value) if value is not None else None

    def close(self) -> None:
        if self._table:
            self._table.close()


class _Offset(msgspec.Struct):
    offset: int


def _stem(name: str) -> str:
    lowered = name.lower()
    suffix = next((each for each in SUFFIXES if lowered.endswith(each) and len(name) > len(each)), "")
    return name[: len(name) - len(suffix)]


FORMAT = MboxFormat("mbox", unquote_rd)
MBOXO = MboxFormat("mboxo", unquote_o)
