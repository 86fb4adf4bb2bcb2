"""An account with a past: mail comes, some of it goes again, flags change. Made up, the same each time, at any size,
and fast enough for a million messages: what a message says follows from its number, so none of it is kept.

Half of the mail is there at the first snapshot, the other half comes evenly until the last. INBOX loses some of its new
mail within days, and a few old ones; Lists and Junk lose as much at their beginning as comes at their end; Archive
stays.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate

from backupd.mail.headers import header_of
from backupd.mail.uidset import UidSet
from backupd.model import Flags, Mailbox, MailboxStatus, MessageFacts, MessageState
from backupd.sources.base import Described, Discovered, Fetched, Identity, Known, Scan

BEGAN = datetime(2024, 1, 1, 3, tzinfo=UTC)
_FIRST = {"Archive": 0.60, "INBOX": 0.15, "Lists": 0.20, "Junk": 0.05}
_LATER = {"Archive": 0.0, "INBOX": 0.35, "Lists": 0.50, "Junk": 0.15}
_ROLLING = ("Lists", "Junk")
_DELETED = 0.3
"""Of the mail that comes to INBOX, within the next _SOON snapshots."""

_SOON = 20
_SEEN: Flags = (b"\\Seen",)
_FLAGGED: Flags = (b"\\Flagged", b"\\Seen")


@dataclass
class Change:
    """What happens in one mailbox between two snapshots. added: UIDs, first and after the last; the first of them is
    message number `number`. gone, flagged: UIDs."""

    added: range
    number: int
    gone: list[int] = field(default_factory=list)
    flagged: list[int] = field(default_factory=list)


@dataclass
class Box:
    """uids: that are there. flagged: by UID, those whose flags have changed, and when (MODSEQ). numbers: by first UID
    of each stretch that came together, the number of its first message."""

    uids: UidSet = UidSet.EMPTY
    uidnext: int = 1
    modseq: int = 1
    flagged: dict[int, int] = field(default_factory=dict)
    stretches: list[tuple[int, int]] = field(default_factory=list)

    def number(self, uid: int) -> int:
        """Of the message with this UID."""
        low, high = 0, len(self.stretches)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.stretches[middle][0] <= uid else (low, middle)
        first, number = self.stretches[low]
        return number + uid - first

    def state(self, uid: int) -> MessageState:
        """Its flags."""
        modseq = self.flagged.get(uid)
        return MessageState(uid, _FLAGGED if modseq else _SEEN, (), modseq or 1)


class Changing:
    """The account, as a source (backupd/sources/base.py). It is at its first snapshot until `go_on`."""

    connections = 1

    def __init__(self, messages: int, snapshots: int, seed: int = 1) -> None:
        self.messages, self.snapshots = messages, snapshots
        self._chance = random.Random(f"changing {seed}")
        self._later: dict[int, list[int]] = {}
        self._step = 0
        self.boxes = {name: Box() for name in _FIRST}
        self._first = messages // 2
        self._number = 0
        self.changes = self._add(self._first, _FIRST)

    @property
    def time(self) -> datetime:
        """Of this snapshot: one a day."""
        return BEGAN + timedelta(days=self._step)

    def go_on(self) -> dict[str, Change]:
        """To the next snapshot; what changes, by mailbox."""
        self._step += 1
        left = self.messages - self._first
        come = left * self._step // (self.snapshots - 1) - left * (self._step - 1) // (self.snapshots - 1)
        self.changes = changes = self._add(come, _LATER)
        for name in _ROLLING:
            there = self.boxes[name].uids
            self._expunge(name, next(there.chunks(len(changes[name].added)), UidSet.EMPTY))
        inbox = changes["INBOX"]
        for uid in inbox.added:
            if self._chance.random() < _DELETED:
                self._later.setdefault(self._step + self._chance.randint(1, _SOON), []).append(uid)
        old = self._some("INBOX", 1 + len(inbox.added) // 50)
        self._expunge("INBOX", UidSet.from_uids([*self._later.pop(self._step, []), *old]))
        self._flag("INBOX", self._some("INBOX", 1 + len(inbox.added) // 20, recent=1_000))
        self._flag("INBOX", self._some("INBOX", 1 + len(inbox.added) // 50))
        return changes

    def _add(self, count: int, shares: dict[str, float]) -> dict[str, Change]:
        ends = [round(count * each) for each in accumulate(shares.values())]
        changes = {}
        for name, first, last in zip(shares, [0, *ends], ends, strict=False):
            box, added = self.boxes[name], last - first
            changes[name] = Change(range(box.uidnext, box.uidnext + added), self._number)
            if added:
                box.stretches.append((box.uidnext, self._number))
                box.uids |= UidSet([(box.uidnext, box.uidnext + added - 1)])
                box.uidnext, box.modseq = box.uidnext + added, box.modseq + 1
                self._number += added
        return changes

    def _some(self, name: str, count: int, *, recent: int | None = None) -> list[int]:
        """UIDs that are there, at random."""
        box = self.boxes[name]
        first = max(1, box.uidnext - recent) if recent else 1
        found = {self._chance.randrange(first, box.uidnext) for _ in range(count)}
        return sorted(uid for uid in found if uid in box.uids)

    def _expunge(self, name: str, uids: UidSet) -> None:
        box = self.boxes[name]
        gone = uids & box.uids
        if gone:
            box.uids, box.modseq = box.uids - gone, box.modseq + 1
            self.changes[name].gone += gone
            for uid in gone:
                box.flagged.pop(uid, None)

    def _flag(self, name: str, uids: Sequence[int]) -> None:
        box = self.boxes[name]
        box.modseq += 1
        for uid in uids:
            if uid not in box.flagged:
                self.changes[name].flagged.append(uid)
                box.flagged[uid] = box.modseq

    # What a source is

    def open(self) -> Session:
        return Session(self)


class Session:
    """One connection to it."""

    identity = Identity("imap", "changing.example", 143, "Changing", ("IMAP4REV1", "CONDSTORE"))

    def __init__(self, account: Changing) -> None:
        self._account = account

    def discover(self) -> list[Discovered]:
        return [Discovered(Mailbox(name.encode(), name, b"/"), self._status(name)) for name in self._account.boxes]

    def _status(self, name: str) -> MailboxStatus:
        box = self._account.boxes[name]
        return MailboxStatus(len(box.uids), box.uidnext, 7, box.modseq)

    def scan(self, mailbox: Mailbox, known: Known | None) -> Scan:
        box, status = self._account.boxes[mailbox.name], self._status(mailbox.name)
        if known is None:
            return Scan(status, box.uids, UidSet.EMPTY, (), reset=True)
        since = known.status.highestmodseq or 0
        changed = tuple(box.state(uid) for uid, when in box.flagged.items() if when > since and uid in known.uids)
        return Scan(status, box.uids, known.uids - box.uids, changed)

    def describe(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
        return (Described(each.facts, each.state) for each in self.fetch(mailbox, uids))

    def headers(self, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
        return ((each.facts.uid, header_of(bytes(each.body))) for each in self.fetch(mailbox, uids))  # type: ignore[arg-type]

    def fetch(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched]:
        box = self._account.boxes[mailbox.name]
        for uid in uids & box.uids:
            raw = message(box.number(uid))
            facts = MessageFacts(uid, b"17-Jul-2026 02:44:25 +0200", len(raw))
            yield Fetched(facts, box.state(uid), raw)

    def expect_scans(self, wanted: object) -> None:
        """Nothing is slow here."""

    def expect_fetches(self, wanted: object) -> None:
        """Nothing is slow here."""

    def close(self) -> None:
        """Nothing to end."""


# -- its mail ----------------------------------------------------------------------------------------------------------

_PARAGRAPHS, _FILES = 20_000, 2_000
_WITH_FILE = 0.02


@cache
def _paragraphs() -> list[bytes]:
    chance = random.Random("paragraphs")
    vocabulary = [
        "".join(chance.choices("etaoinshrdlucmfwypvbgkq", k=chance.randint(2, 10))) for _ in range(_PARAGRAPHS)
    ]
    weights = list(accumulate(1 / rank for rank in range(1, _PARAGRAPHS + 1)))  # as words are distributed (Zipf)
    made = []
    for _ in range(_PARAGRAPHS):
        words = chance.choices(vocabulary, cum_weights=weights, k=chance.randint(20, 120))
        lines = [" ".join(words[at : at + 11]) for at in range(0, len(words), 11)]
        made.append("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    return made


def message(number: int) -> bytes:
    """The message of this number: 2 kB in median, one in fifty with a file of 10 to 60 kB, of which every third was
    sent before."""
    chance = random.Random(number)
    paragraphs = _paragraphs()
    count = min(40, 1 + int(chance.lognormvariate(1.2, 0.7)))
    head = (
        b"From: Person %d <p%d@example.com>\r\nTo: Owner <owner@example.com>\r\nSubject: About %x\r\n"
        b"Date: Mon, 01 Jan 2024 03:00:00 +0000\r\nMessage-ID: <%032x@example.com>\r\nMIME-Version: 1.0\r\n"
    ) % (number % 997, number % 997, chance.getrandbits(40), chance.getrandbits(128))
    body = b"".join(chance.choices(paragraphs, k=count))
    if chance.random() >= _WITH_FILE:
        return head + b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + body
    file = chance.randrange(_FILES) if chance.random() < 1 / 3 else _FILES + number
    content = random.Random(f"file {file}").randbytes(random.Random(file).randint(10_000, 60_000))
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return (
        head
        + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n'
        + body
        + b"\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; "
        + b'filename="file%d.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n' % file
        + encoded
        + b"--b--\r\n"
    )
