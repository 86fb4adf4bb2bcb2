"""The demo's user: a small account of readable mail, a day in its life, and three disasters. All over plain IMAP."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from imapclient import IMAPClient

from backupd.cli.demo.server import Login

PEOPLE = ("Ada Lind", "Björn Özdemir", "Carla Núñez", "Dmitri Ivanov", "Emma O'Neill", "Françoise Noël")
TOPICS = (
    "Invoice for October", "Minutes of Tuesday", "Photos from the lake", "Your train tickets", "Grüße aus Köln",
    "Re: the broken printer", "School concert", "Contract, second draft", "Recipe as promised", "Meeting moved",
)  # fmt: skip
BEGIN = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Message(NamedTuple):
    """One message to be put into a mailbox."""

    raw: bytes
    flags: tuple[bytes, ...]
    date: datetime


class Seen(NamedTuple):
    """What the user sees of a message. digest: SHA-256 of its bytes."""

    mailbox: str
    digest: str
    flags: tuple[bytes, ...]
    date: bytes


MAILBOXES = {"INBOX": 90, "Sent": 50, "Family/Holidays": 40, "Work": 60, "Archive/2025": 30}


def mail(mailbox: str, count: int, *, first: int = 0) -> Iterator[Message]:
    """Readable messages, the same each time."""
    for number in range(first, first + count):
        chooser = random.Random(f"{mailbox} {number}")  # noqa: S311 - the same mail each time
        date = BEGIN + timedelta(hours=7 * number, minutes=chooser.randrange(60))
        flags = tuple(flag for flag in (b"\\Answered", b"\\Flagged", b"\\Seen") if chooser.random() < 0.4)
        yield Message(_raw(mailbox, number, date, chooser), flags, date)


def _raw(mailbox: str, number: int, date: datetime, chooser: random.Random) -> bytes:
    sender, to = chooser.sample(PEOPLE, 2)
    body = " ".join(chooser.choice(TOPICS) for _ in range(chooser.randrange(5, 120)))
    head = (
        f"From: {sender} <{number}@example.org>\r\nTo: {to} <demo@example.org>\r\n"
        f"Subject: {chooser.choice(TOPICS)}\r\nDate: {date:%a, %d %b %Y %H:%M:%S +0000}\r\n"
        f"Message-ID: <{number}.{mailbox.replace('/', '.')}@example.org>\r\nMIME-Version: 1.0\r\n"
    )
    if chooser.random() > 0.2:
        return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n".encode()
    # One of three files that go round, wrapped by whichever program sent it.
    file = random.Random(chooser.randrange(3)).randbytes(90_000)  # noqa: S311
    width = chooser.choice((60, 72, 76))
    text = base64.b64encode(file).decode()
    lines = "\r\n".join(text[at : at + width] for at in range(0, len(text), width))
    return (
        f'{head}Content-Type: multipart/mixed; boundary="demo"\r\n\r\n'
        f"--demo\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
        f'--demo\r\nContent-Type: application/pdf; name="plan.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        f"{lines}\r\n--demo--\r\n"
    ).encode()


class User:
    """A mail program, logged in. Use it as a context manager."""

    def __init__(self, login: Login) -> None:
        self._client = IMAPClient(login.host, port=login.port, ssl=False, timeout=30)
        self._client.normalise_times = False  # dates keep the zone they were given
        self._client.login(login.username, login.password)

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.shutdown()

    def settle_in(self) -> None:
        """Fill the account."""
        for name, count in MAILBOXES.items():
            if name != "INBOX":
                self._client.create_folder(name)
            self.receive(name, list(mail(name, count)))

    def receive(self, mailbox: str, messages: Sequence[Message]) -> None:
        """Put messages into a mailbox."""
        given = [{"msg": each.raw, "flags": each.flags, "date": each.date} for each in messages]
        self._client.multiappend(mailbox, given)

    def an_ordinary_day(self) -> None:
        """New mail, and some of it read."""
        self.receive("INBOX", list(mail("INBOX", 4, first=MAILBOXES["INBOX"])))
        self._client.select_folder("INBOX")
        self._client.add_flags(self._client.search()[-6:], [b"\\Seen", b"\\Flagged"], silent=True)

    def delete_half_the_inbox(self) -> int:
        """The first disaster; how many messages it cost."""
        self._client.select_folder("INBOX")
        gone = self._client.search()[::2]
        self._client.delete_messages(gone, silent=True)
        self._client.expunge()
        return len(gone)

    def delete_a_mailbox(self, name: str) -> None:
        """The second disaster."""
        self._client.select_folder("INBOX", readonly=True)
        self._client.delete_folder(name)

    def rebuild(self, name: str) -> None:
        """The third: the server loses its index and makes the mailbox anew, with another UIDVALIDITY."""
        self._client.select_folder(name, readonly=True)
        found = self._client.fetch(self._client.search(), ["FLAGS", "INTERNALDATE", "BODY.PEEK[]"])
        self._client.select_folder("INBOX", readonly=True)
        self._client.delete_folder(name)
        self._client.create_folder(name)
        self.receive(
            name,
            [
                Message(each[b"BODY[]"], _lasting(each[b"FLAGS"]), each[b"INTERNALDATE"])
                for _, each in sorted(found.items())
            ],
        )

    def look(self) -> list[Seen]:
        """Everything there is, in every mailbox."""
        seen = []
        for attributes, _, name in self._client.list_folders():
            if b"\\Noselect" in attributes:
                continue
            if self._client.select_folder(name, readonly=True)[b"EXISTS"]:
                found = self._client.fetch(self._client.search(), ["FLAGS", "INTERNALDATE", "BODY.PEEK[]"])
                seen += [
                    Seen(
                        name,
                        hashlib.sha256(each[b"BODY[]"]).hexdigest(),
                        _lasting(each[b"FLAGS"]),
                        each[b"INTERNALDATE"].isoformat().encode(),
                    )
                    for each in found.values()
                ]
        return seen


def _lasting(flags: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(flag for flag in flags if flag != b"\\Recent"))
