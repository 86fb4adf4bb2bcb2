"""The mail that is measured, and its way onto the server. All of it is spooled to disk first (bench.spool)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.spool import read_spool, write_spool
from tests.support import corpus
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import large_message, message, office_mail, text

Mail = Iterator[tuple[str, bytes]]


@dataclass(frozen=True)
class Box:
    """A filled account. octets: of all messages together, as the server holds them."""

    name: str
    about: str
    account: Account
    spool: Path
    count: int
    octets: int


@dataclass(frozen=True)
class Kind:
    """A sort of mail to measure. whole: all works and several rounds; else one first snapshot and one restore."""

    name: str
    about: str
    make: Callable[[Path, int], Mail]
    messages: int
    quick: int
    whole: bool = True
    format: str = "sdbox"


def bulk(scratch: Path, limit: int) -> Mail:
    """Evenly from the whole corpus, so that a part of it is like all of it."""
    chosen = corpus.spread("bulk", limit) if limit else corpus.messages("bulk")
    for one in chosen:
        yield one.mailbox or "INBOX", corpus.crlf(one.raw)


def _office(scratch: Path, limit: int) -> Mail:
    folder = os.environ.get("BACKUPD_CORPUS")
    maker = Path(folder) / "make_office_mailbox.py" if folder else None
    if maker is None or not maker.exists():
        for number, raw in enumerate(office_mail(limit)):
            yield f"person-{number % 6}", raw
        return
    words: list[str | Path] = [sys.executable, maker, "--out", scratch / "office", "--format", "eml", "--seed", "1"]
    words += ["--messages", str(limit), "--mailboxes", "8", "--corpus", corpus.unpacked("bulk")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    for path in sorted((scratch / "office").rglob("*.eml")):
        yield path.parent.relative_to(scratch / "office").as_posix(), path.read_bytes()


def _large(scratch: Path, octets: int) -> Mail:
    yield "INBOX", message("Before", text(1, 2_000))
    yield "INBOX", large_message(octets)
    yield "INBOX", message("After", text(2, 2_000))


def _many(scratch: Path, limit: int) -> Mail:
    for number in range(limit):
        yield "INBOX", message(f"Small {number}", text(number, 400), sender=f"sender{number % 997}@example.com")


KINDS = (
    Kind("bulk", "mailing lists, newsletters and spam", bulk, 0, 300),
    Kind("office", "a small office: every fourth with attachments, forwarded and replied to", _office, 3_000, 200),
    Kind("large", "one large message between two small ones", _large, 200_000_000, 20_000_000, whole=False),
    Kind("many", "small messages in one mailbox", _many, 100_000, 2_000, whole=False, format="mdbox"),
)


def fill(server: Dovecot, kind: Kind, scratch: Path, *, quick: bool) -> Box:
    """Make the mail, and deliver it to a new account. scratch: an empty folder."""
    spool = scratch / "spool"
    count, octets = write_spool(spool, kind.make(scratch, kind.quick if quick else kind.messages))
    account = server.account(kind.format)
    for mailbox, messages in read_spool(spool):
        if mailbox != "INBOX":
            account.create(mailbox)
        account.deliver(mailbox, messages)
    held = total(account)
    if held != count:
        raise RuntimeError(f"{kind.name}: {count} messages were delivered, and the server has {held}")
    return Box(kind.name, kind.about, account, spool, count, octets)


def total(account: Account) -> int:
    """How many messages an account holds."""
    return sum(account.status(mailbox)["MESSAGES"] for mailbox in account.mailboxes())
