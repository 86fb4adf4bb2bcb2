"""What our own restores left beside the mail: mailbox.json and messages.jsonl, so that an import brings back all of it.

The pages of the targets say what is in them. Octets of a server stand there as characters of the same number. Whoever
can write to the folder can write these files too: what is malformed is told, and the mail is read without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

import msgspec

from backupd.mail.flags import normalise
from backupd.mail.names import display_name
from backupd.model import Flags, Mailbox
from backupd.sources.local.files import Folder
from backupd.sources.local.scratch import Table

MAILBOX = "mailbox.json"
MESSAGES = "messages.jsonl"

_LONGEST_LINE = 1 << 20
_LINE = re.compile(rb"[^\n]*\n")


class _MailboxNote(msgspec.Struct):
    raw_name: str
    delimiter: str | None
    attributes: list[str]
    special_use: list[str]
    subscribed: bool


class _Note(msgspec.Struct):
    flags: list[str]
    internaldate: str
    size: int
    file: str | None = None


class Note(msgspec.Struct, frozen=True):
    """What was noted of a message. size: octets of its file when it was written."""

    flags: Flags
    internaldate: bytes
    size: int


def mailbox_of(content: bytes) -> Mailbox:
    """The mailbox that a mailbox.json describes. Raises ValueError."""
    note = msgspec.json.decode(content, type=_MailboxNote)
    raw = note.raw_name.encode("latin-1")
    if not raw:
        raise ValueError("a mailbox without a name")
    return Mailbox(
        raw_name=raw,
        name=display_name(raw),
        delimiter=None if note.delimiter is None else note.delimiter.encode("latin-1"),
        attributes=tuple(each.encode("latin-1") for each in note.attributes),
        special_use=tuple(each.encode("latin-1") for each in note.special_use),
        subscribed=note.subscribed,
    )


def read_mailbox(folder: Folder) -> Mailbox | None:
    """The mailbox whose folder it is; None if no restore described it. Raises ValueError and OSError."""
    content = folder.read(MAILBOX)
    return None if content is None else mailbox_of(content)


def note_of(line: bytes) -> Note:
    """What a line of messages.jsonl says. Raises ValueError."""
    note = msgspec.json.decode(line, type=_Note)
    flags = normalise(flag.encode("latin-1") for flag in note.flags)
    return Note(flags, note.internaldate.encode("latin-1"), note.size)


class Notes:
    """The notes of a mailbox's messages, by file name. bad: how many lines could not be understood."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.bad = 0
        self._table = Table(self._rows(lines))

    def get(self, name: str) -> Note | None:
        """What was noted of the message in a file."""
        value = self._table.get(os.fsencode(name))
        if value is None:
            return None
        return note_of(value)

    def close(self) -> None:
        self._table.close()

    def _rows(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for line in lines:
            try:
                note = msgspec.json.decode(line, type=_Note)
                "".join([*note.flags, note.internaldate]).encode("latin-1")
                name = b"" if note.file is None else os.fsencode(note.file)
            except ValueError:
                # The last line may be cut: a killed restore leaves that, and no message that it tells of.
                self.bad += line.endswith(b"\n")
                continue
            if name:
                yield name, line


def read_notes(folder: Folder) -> Notes | None:
    """The notes in a mailbox's folder; None if there are none. Raises OSError."""
    try:
        file = folder.open(MESSAGES)
    except FileNotFoundError:
        return None
    with file:
        return Notes(lines_of(file.chunks()))


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends; one that is longer than any note comes in pieces, none of which is a note."""
    held = b""
    for chunk in chunks:
        held += chunk
        end = 0
        for line in _LINE.finditer(held):
            yield line[0]
            end = line.end()
        held = held[end:]
        if len(held) > _LONGEST_LINE:
            yield held
            held = b""
    if held:
        yield held
