"""The mail of the POP3 mailbox, and the check that a result holds every message of it.

Each message gets a field with its number as the last of its header. So it is found again in whatever a program made
of it, and no two are the same, which would help a program that stores equal messages once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from bench.mailboxes import Mail
from bench.process import Failed
from bench.spool import read_spool
from tests.support import corpus
from tests.support.mail import Attachment, message, noise, text

_NUMBER = re.compile(rb"^X-Bench: (\d+)\r?$", re.MULTILINE)
_SMALLEST, _LARGEST = 2_000, 10_000
_WITH_A_FILE = 200
"""Every so many of the messages that are made here, one has a file attached."""
_LARGEST_FILE = 1_000_000


def numbered(number: int, raw: bytes) -> bytes:
    head, end, body = raw.partition(b"\r\n\r\n")
    return b"%s\r\nX-Bench: %d\r\n\r\n%s" % (head if end else b"Subject: bare", number, body if end else raw)


def mailbox(scratch: Path, limit: int) -> Mail:
    """So many messages: the bulk mail first, evenly where there is too much of it, then ones made here."""
    real = [one.raw for one in corpus.spread("bulk", limit)]
    for number in range(limit):
        # Of several CRs before LF all but one go when it is delivered: what counts is what the server has.
        raw = re.sub(rb"\r+\n", b"\r\n", corpus.crlf(real[number])) if number < len(real) else _made(number)
        yield "INBOX", numbered(number, raw)


def _made(number: int) -> bytes:
    chooser = Random(f"pop3 {number}")
    body = text(number, chooser.randint(_SMALLEST, _LARGEST))
    files = []
    if number % _WITH_A_FILE == 0:
        files.append(Attachment("file.pdf", noise(number, chooser.randint(_LARGEST, _LARGEST_FILE)), "application/pdf"))
    sender = f"sender{number % 997}@example.com"
    raw = message(f"Message {number}", body, attachments=files, sender=sender)
    # Servers put this field before what they deliver (RFC 5321, 4.4); getmail adds it where it is missing.
    return b"Return-Path: <%s>\r\n%s" % (sender.encode(), raw)


class Expected:
    """What every result must hold: the numbers of all messages. Their digests tell which of them were altered."""

    def __init__(self, spool: Path) -> None:
        self._digests: dict[int, bytes] = {}
        for _, messages in read_spool(spool):
            for raw in messages:
                self.add(raw)

    def add(self, raw: bytes) -> None:
        """One that has arrived since."""
        self._digests[_number(raw)] = _digest(raw)

    def __len__(self) -> int:
        return len(self._digests)

    def altered(self, who: str, found: Iterable[bytes]) -> int:
        """How many of the messages are not the same octets any more, but for line ends. Failed when one is missing."""
        seen: set[int] = set()
        altered = 0
        for raw in found:
            number = _number(raw)
            if number in seen or number not in self._digests:
                raise Failed(f"{who}: message {number} is there once too often")
            seen.add(number)
            altered += _digest(raw) != self._digests[number]
        if len(seen) != len(self._digests):
            raise Failed(f"{who}: {len(seen)} messages of {len(self._digests)} are there")
        return altered


def _number(raw: bytes) -> int:
    found = _NUMBER.search(raw)
    if found is None:
        raise Failed(f"a message has lost its number: {raw[:200]!r}")
    return int(found[1])


def _digest(raw: bytes) -> bytes:
    """Of the message with LF, and no matter how many of them end it: Maildirs and mbox files differ from the wire."""
    return hashlib.blake2b(raw.replace(b"\r\n", b"\n").rstrip(b"\n"), digest_size=16).digest()


def in_files(folder: Path) -> Iterator[bytes]:
    """Messages in a tree of .eml files, or in a Maildir."""
    for path in folder.rglob("*"):
        if path.suffix == ".eml" or path.parent.name in ("cur", "new"):
            yield path.read_bytes()


def in_batch(path: Path) -> Iterator[bytes]:
    """Messages in a file of SMTP commands, as they would be sent to a mail server (RFC 5321, 4.5.2)."""
    lines: list[bytes] | None = None
    with path.open("rb") as file:
        for line in file:
            bare = line.rstrip(b"\r\n")
            if lines is None:
                lines = [] if bare == b"DATA" else None
            elif bare == b".":
                yield b"".join(lines)
                lines = None
            else:
                lines.append(line[1:] if line.startswith(b".") else line)
