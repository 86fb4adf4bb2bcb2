"""The demo's user: a small account of readable mail, a day in its life, and three disasters. All over plain IMAP."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.header import Header, decode_header, make_header
from email.parser import BytesHeaderParser
from email.utils import formataddr
from typing import NamedTuple

from imapclient import IMAPClient

from backupd.cli.demo.proof import Seen
from backupd.cli.demo.server import Login

# Short enough that a line about a message fits into 80 columns.
PEOPLE = {
    "Ada Lind": "al",
    "Björn Öst": "bo",
    "Carla Núñez": "cn",
    "Dmitri Orlov": "do",
    "Emma O'Neill": "eo",
    "Zoë": "z",
}
TOPICS = (
    "Invoice for October", "Minutes of Tuesday", "Lake photos", "Your train tickets", "Grüße aus Köln",
    "Re: broken printer", "School concert", "Contract, 2nd draft", "Recipe as promised", "Meeting moved",
)  # fmt: skip
BEGIN = datetime(2026, 3, 2, 8, tzinfo=UTC)
ZONES = [timezone(timedelta(minutes=minutes)) for minutes in (0, 60, 120, -480, 330)]
ODD_DATES = {
    3: datetime(2024, 2, 29, 23, 59, 59, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    8: datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
}
"""By number of the message: a leap day, and mail of another century that somebody once imported."""


class Message(NamedTuple):
    """One message to be put into a mailbox."""

    raw: bytes
    flags: tuple[bytes, ...]
    date: datetime


MAILBOXES = {"INBOX": 90, "Sent": 50, "Family/Holidays": 40, "Work": 60, "Archive/2025": 30}


def mail(mailbox: str, count: int, *, first: int = 0) -> Iterator[Message]:
    """Readable messages, the same each time."""
    for number in range(first, first + count):
        chooser = random.Random(f"{mailbox} {number}")  # noqa: S311 - the same mail each time
        usual = (BEGIN + timedelta(hours=7 * number, minutes=chooser.randrange(60))).astimezone(chooser.choice(ZONES))
        date = ODD_DATES.get(number, usual)
        flags = tuple(flag for flag in (b"\\Answered", b"\\Flagged", b"\\Seen") if chooser.random() < 0.4)
        yield Message(_raw(mailbox, number, date, chooser), flags, date)


def _raw(mailbox: str, number: int, date: datetime, chooser: random.Random) -> bytes:
    sender, to = chooser.sample(list(PEOPLE), 2)
    body = " ".join(chooser.choice(TOPICS) for _ in range(chooser.randrange(5, 120)))
    head = (
        f"From: {_person(sender)}\r\nTo: {_person(to)}\r\n"
        f"Subject: {Header(chooser.choice(TOPICS)).encode()}\r\nDate: {date:%a, %d %b %Y %H:%M:%S %z}\r\n"
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


def _person(name: str) -> str:
    return formataddr((name, f"{PEOPLE[name]}@example.org"))


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
        self._client.add_flags(self._client.search()[-9:], [b"\\Seen", b"\\Flagged"], silent=True)

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
                seen += [_seen(name, each[b"BODY[]"], each[b"FLAGS"], each[b"INTERNALDATE"]) for each in found.values()]
        return seen


def _seen(mailbox: str, raw: bytes, flags: Sequence[bytes], date: datetime) -> Seen:
    subject = str(make_header(decode_header(BytesHeaderParser().parsebytes(raw)["Subject"])))
    shown = tuple(flag.decode("ascii", "backslashreplace") for flag in _lasting(flags))
    return Seen(mailbox, hashlib.sha256(raw).hexdigest(), shown, f"{date:%Y-%m-%d %H:%M:%S %z}", len(raw), subject)


def _lasting(flags: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(flag for flag in flags if flag != b"\\Recent"))
