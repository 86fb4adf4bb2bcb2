"""What files cannot hold of a mailbox and its messages, kept beside the mail as JSON.

`mailbox.json` describes the mailbox. `messages.jsonl` has a line for each message: its exact flags, keywords and
INTERNALDATE. Octets of the server stand there as characters of the same number (ISO 8859-1), so that nothing is lost.
A line may speak of a message that is not there, when a run was killed; of two lines for one message the last counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backupd.model import Mailbox
from backupd.targets.base import Outgoing

MAILBOX = "mailbox.json"
MESSAGES = "messages.jsonl"


class MailboxNote(msgspec.Struct, frozen=True):
    """The contents of mailbox.json."""

    name: str
    raw_name: str
    delimiter: str | None
    attributes: list[str]
    special_use: list[str]
    subscribed: bool


class MessageNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of messages.jsonl. file: the message's file; offset: where its "From " line begins in an mbox file.

    key is the message's id in the archive, in hexadecimal; size counts octets.
    """

    uid: int
    flags: list[str]
    internaldate: str
    size: int
    key: str
    file: str | None = None
    offset: int | None = None


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")


def mailbox_json(mailbox: Mailbox) -> bytes:
    """mailbox.json of a mailbox."""
    note = MailboxNote(
        name=mailbox.name,
        raw_name=_text(mailbox.raw_name),
        delimiter=None if mailbox.delimiter is None else _text(mailbox.delimiter),
        attributes=[_text(each) for each in mailbox.attributes],
        special_use=[_text(each) for each in mailbox.special_use],
        subscribed=mailbox.subscribed,
    )
    return msgspec.json.format(msgspec.json.encode(note), indent=2) + b"\n"


def message_line(message: Outgoing, *, file: str | None = None, offset: int | None = None) -> bytes:
    """The line of messages.jsonl for a message."""
    note = MessageNote(
        uid=message.uid,
        flags=[_text(flag) for flag in message.flags],
        internaldate=_text(message.internaldate),
        size=message.size,
        key=message.key.hex(),
        file=file,
        offset=offset,
    )
    return msgspec.json.encode(note) + b"\n"


def read_messages(lines: Iterable[bytes]) -> dict[str | int, MessageNote]:
    """Notes by file name or offset. A last line that a killed run cut off is passed over."""
    notes: dict[str | int, MessageNote] = {}
    for line in lines:
        if not line.endswith(b"\n"):
            break
        note = msgspec.json.decode(line, type=MessageNote)
        where = note.file if note.file is not None else note.offset
        if where is not None:
            notes[where] = note
    return notes
