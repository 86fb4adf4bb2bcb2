"""Maildirs: Dovecot's and Courier's Maildir++, nested ones, those of mbsync, OfflineIMAP and getmail, and our own.

A message is a file in cur or new. Its name tells when it came and, behind ":2,", its flags; its time is the server's
INTERNALDATE, more or less. Servers rename such files while we read them: those are looked for once more at the end.

Our own restores left notes (see `ledger`), and with them everything comes back exactly.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path

from backupd.mail.flags import from_maildir_letters, normalise
from backupd.model import Body, Flags, Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import Chunks, body_of
from backupd.sources.local.compression import LONGEST_MAGIC, Unreadable, decompressed
from backupd.sources.local.files import Folder, OpenFile, moment, oddity, reason, shown
from backupd.sources.local.getmail import LONGEST, its_fields, its_name
from backupd.sources.local.maildir_folders import PARTS, Place, is_maildir, looks_like_maildirs, places
from backupd.sources.local.mbsync import without_its_field
from backupd.sources.local.scratch import Listing

_KEYWORDS = "dovecot-keywords"
_MOST_KEYWORDS = 26
_INFO = re.compile(r"[:;!]2,([A-Za-z]*)[^:;!]*\Z")
_SIZE = re.compile(r",S=(\d{1,15})(?![0-9])")
_MOST_MISSING = 10_000
_ROUNDS = 3

Item = LocalMessage | LocalProblem


def base_of(name: str) -> str:
    """What stays of a message's file name when its flags change."""
    info = _INFO.search(name)
    return name[: info.start()] if info else name


def letters_of(name: str) -> str:
    """The letters of its flags."""
    info = _INFO.search(name)
    return info[1] if info else ""


class MaildirFormat:
    """Maildir, by one or many folders."""

    name = "maildir"

    def recognises(self, path: Path) -> bool:
        """Whether it is a Maildir, or there are some not far below."""
        return looks_like_maildirs(path)

    def open(self, path: Path, *, exact: bool) -> MaildirStore:
        """The store at this path."""
        return MaildirStore(path, exact=exact)


class MaildirStore:
    """One or more Maildirs below a folder."""

    kind = "Maildir"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._path, self._exact = path, exact

    @functools.cached_property
    def _found(self) -> tuple[list[Place], list[LocalProblem]]:
        return places(self._path)

    @functools.cached_property
    def octets(self) -> int:
        """What the files in it have, as they lie there."""
        return sum(self._octets(place) for place in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """One for each Maildir, and what our own restores noted of folders that hold no messages."""
        return list({place.mailbox.raw_name: place.mailbox for place in self._found[0]}.values())

    def messages(self) -> Iterator[Item]:
        """All messages, folder by folder, in the order they came."""
        found, problems = self._found
        yield from problems
        for place in found:
            try:
                with Folder.root(self._path) as root, root.descend(place.parts) as folder:
                    if is_maildir(folder):
                        yield from _Reader(folder, place.mailbox, exact=self._exact).messages()
            except OSError as error:
                yield LocalProblem(place.mailbox, place.shown(self._path), reason(error))

    def _octets(self, place: Place) -> int:
        total = 0
        for part in PARTS:
            try:
                with Folder.root(self._path) as root, root.descend((*place.parts, part)) as folder:
                    total += sum(entry.stat(follow_symlinks=False).st_size for entry in folder.entries())
            except OSError:  # removed, or not to be read: it is told of when the messages are read
                continue
        return total


class _Reader:
    """Reads the messages of one Maildir."""

    def __init__(self, folder: Folder, mailbox: Mailbox, *, exact: bool) -> None:
        self._folder, self._mailbox, self._exact = folder, mailbox, exact
        self._notes: ledger.Notes | None = None
        self._keywords: Sequence[bytes] = ()
        self._parts: dict[str, Folder] = {}
        self._odd: list[LocalProblem] = []

    def messages(self) -> Iterator[Item]:
        with ExitStack() as opened:
            yield from self._prepare(opened)
            listing = opened.enter_context(closing(Listing(self._names())))
            yield from self._odd
            missing: dict[str, set[tuple[str, str]]] = {}
            for part, name in listing:
                try:
                    yield self._message(part, name)
                except FileNotFoundError:
                    missing.setdefault(base_of(name), set()).add((part, name))
                    if len(missing) >= _MOST_MISSING:
                        yield from self._look_again(missing, listing)
                        missing = {}
            yield from self._look_again(missing, listing)

    def _prepare(self, opened: ExitStack) -> Iterator[LocalProblem]:
        for part in PARTS:
            try:
                self._parts[part] = opened.enter_context(self._folder.child(part))
            except FileNotFoundError:  # archives often leave empty folders out
                continue
            except OSError as error:
                yield self._problem(part, reason(error))
        try:
            self._keywords = keyword_table(self._folder.read(_KEYWORDS) or b"")
        except OSError as error:
            yield self._problem(_KEYWORDS, reason(error))
        try:
            self._notes = ledger.read_notes(self._folder)
        except OSError as error:
            yield self._problem(ledger.MESSAGES, reason(error))
        if self._notes is not None:
            opened.callback(self._notes.close)
            if self._notes.bad:
                yield self._problem(ledger.MESSAGES, f"{self._notes.bad} lines that tell nothing of a message")

    def _names(self) -> Iterator[tuple[str, str]]:
        for part, folder in self._parts.items():
            try:
                for entry in folder.entries():
                    if entry.name.startswith("."):
                        continue
                    if what := oddity(entry):
                        self._odd.append(self._problem(f"{part}/{entry.name}", what))
                    else:
                        yield part, entry.name
            except OSError as error:
                self._odd.append(self._problem(part, reason(error)))

    def _look_again(self, missing: dict[str, set[tuple[str, str]]], listing: Listing) -> Iterator[Item]:
        """Read messages that were not there any more under the names of the listing."""
        for _ in range(_ROUNDS):
            if not missing:
                return
            for part, name in self._names():
                tried = missing.get(base_of(name))
                if tried is None:
                    continue
                if (part, name) in listing and (part, name) not in tried:  # it had two names, and this one is read
                    del missing[base_of(name)]
                    continue
                try:
                    yield self._message(part, name)
                except FileNotFoundError:
                    continue
                del missing[base_of(name)]
        for tried in missing.values():
            part, name = min(tried)
            yield self._problem(f"{part}/{name}", "moved or deleted while the folder was read")

    def _message(self, part: str, name: str) -> Item:
        """Raises FileNotFoundError."""
        place = f"{part}/{name}"
        try:
            file = self._parts[part].open(name)
            note = self._notes.get(base_of(name)) if self._notes else None
            flags = from_maildir_letters(letters_of(name), self._keywords)
            return LocalMessage(
                mailboxes=(self._mailbox,),
                body=self._body(file, name, note),
                place=self._place(place),
                flags=merged(flags, note.flags, self._keywords) if note else flags,
                internaldate=note.internaldate if note else b"",
                stored=moment(file.modified),
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            return self._problem(place, reason(error))
        except Unreadable as error:
            return self._problem(place, str(error))

    def _body(self, file: OpenFile, name: str, note: ledger.Note | None) -> bytes | Body:
        size = _SIZE.search(name)
        head = file.read(LONGEST_MAGIC)
        chunks: Chunks = file.chunks
        packed = decompressed(file, head, int(size[1]) if size else None)
        if packed is not None:
            return body_of(packed, exact=self._exact)
        if note is not None and note.size == file.size:
            return body_of(chunks, exact=True, size=file.size)
        if not self._exact and its_name(name) and (own := its_fields(file.read(LONGEST))):
            start, end = own
            return body_of(lambda: chain(file.chunks(0, start), file.chunks(end)), exact=False)
        chunks, octets = without_its_field(file, name)
        return body_of(chunks, exact=self._exact, size=octets)

    def _place(self, name: str) -> str:
        return shown(f"{self._folder.path}/{name}")

    def _problem(self, name: str, what: str) -> LocalProblem:
        return LocalProblem(self._mailbox, self._place(name), what)


def keyword_table(content: bytes) -> tuple[bytes, ...]:
    """The keywords for the letters a, b, c ... as the file dovecot-keywords gives them; empty where there is none."""
    table = [b""] * _MOST_KEYWORDS
    for line in content.splitlines():
        number, _, keyword = line.partition(b" ")
        if number.isdigit() and len(number) < 3 and int(number) < _MOST_KEYWORDS:
            table[int(number)] = keyword
    return tuple(table)


def merged(flags: Flags, noted: Flags, keywords: Sequence[bytes]) -> Flags:
    """The flags of a message that we restored: what its name says now, and what a name cannot say as it was noted.

    Args:
        flags: from the file's name.
        noted: when it was written.
        keywords: that have letters in this Maildir.
    """
    table = {keyword.lower() for keyword in keywords if keyword}
    silent = [flag for flag in noted if flag.lower() not in table and not from_name(flag)]
    present = normalise([*flags, *silent])
    if {flag.lower() for flag in present} == {flag.lower() for flag in noted}:
        return noted
    return present


def from_name(flag: bytes) -> bool:
    """Whether Maildir has a letter for the flag in any case."""
    return flag.lower() in _LETTERED


_LETTERED = {flag.lower() for flag in from_maildir_letters("DFPRST")}

FORMAT = MaildirFormat()
