"""Messages for targets, and readers of what targets wrote, made apart from the package so that they can judge it."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backupd.mail.headers import header_of
from backupd.mail.names import display_name
from backupd.model import Mailbox
from backupd.targets.base import Outgoing, Present

DATE = b"17-Jul-1996 02:44:25 -0700"


def fingerprint(header: bytes) -> bytes:
    """A fingerprint as the repository's, with a key everybody knows."""
    return hashlib.blake2b(header, digest_size=16, key=b"test").digest()


def mailbox(
    raw_name: bytes, delimiter: bytes | None = b"/", *, special_use: tuple[bytes, ...] = (), subscribed: bool = False
) -> Mailbox:
    """A mailbox of a source."""
    return Mailbox(raw_name, display_name(raw_name), delimiter, (), special_use, subscribed)


def outgoing(raw: bytes, uid: int = 1, flags: Sequence[bytes] = (), date: bytes = DATE) -> Outgoing:
    """A message on its way to a target."""
    return Outgoing(
        key=hashlib.sha256(b"%d %s" % (uid, raw)).digest(),
        fingerprint=fingerprint(header_of(raw)),
        uid=uid,
        flags=tuple(sorted(flags)),
        internaldate=date,
        size=len(raw),
        body=raw,
    )


def present(raw: bytes) -> Present:
    """How a target shall know a message."""
    return Present(fingerprint(header_of(raw)), len(raw))


class Chunks:
    """A body that is given piece by piece. wrong: what reading it raises after the first piece."""

    def __init__(self, raw: bytes, octets: int = 1000, wrong: Exception | None = None) -> None:
        self._raw, self._octets, self._wrong = raw, octets, wrong

    @property
    def size(self) -> int:
        return len(self._raw)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._raw), self._octets):
            yield self._raw[start : start + self._octets]
            if self._wrong:
                raise self._wrong


def messages_of_mbox(content: bytes) -> list[bytes]:
    """The messages of an mbox file as its format page says, from nothing but that page."""
    messages: list[bytes] = []
    for part in re.split(rb"(?m)^(?=From )", content):
        if not part:
            continue
        line, _, message = part.partition(b"\n")
        assert message.endswith(b"\n")
        message = message[:-1]
        if line.split()[1] == b"no-final-newline":
            assert message.endswith(b"\n")
            message = message[:-1]
        messages.append(re.sub(rb"(?m)^>(>*From )", rb"\1", message))
    return messages


Restored = dict[int, tuple[bytes, tuple[str, ...], str]]
"""By UID: the bytes, flags and keywords, and INTERNALDATE of a message."""


def _lines(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def _restored(raw: bytes, note: dict[str, Any]) -> tuple[bytes, tuple[str, ...], str]:
    return raw, tuple(note["flags"]), note["internaldate"]


def read_eml(folder: Path) -> Restored:
    """What an eml tree has of a mailbox."""
    notes = {note["file"]: note for note in _lines((folder / "messages.jsonl").read_bytes())}
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(".eml")}
    return {
        notes[name]["uid"]: (raw, tuple(notes[name]["flags"]), notes[name]["internaldate"])
        for name, raw in files.items()
    }


def read_mbox(file: Path) -> Restored:
    """What an mbox file and its side file have of a mailbox."""
    content = file.read_bytes()
    starts = [found.start() for found in re.finditer(rb"(?m)^From ", content)]
    notes = {note["offset"]: note for note in _lines(file.with_suffix(".messages.jsonl").read_bytes())}
    return {
        notes[start]["uid"]: _restored(raw, notes[start])
        for start, raw in zip(starts, messages_of_mbox(content), strict=True)
    }


def read_zip(file: Path, folder: str) -> Restored:
    """What a zip file has of a mailbox."""
    with zipfile.ZipFile(file) as archive:
        # Each is read to its end, which compares its checksum too; of the other mailboxes nothing is looked at.
        names = [name for name in archive.namelist() if name.rpartition("/")[0] == folder]
        files = {name.rpartition("/")[2]: archive.read(name) for name in names}
    notes = {
        note["file"]: note
        for name, content in files.items()
        if re.fullmatch(r"messages-\d+\.jsonl", name)
        for note in _lines(content)
    }
    return {
        notes[name]["uid"]: (raw, tuple(notes[name]["flags"]), notes[name]["internaldate"])
        for name, raw in files.items()
        if name.endswith(".eml")
    }
