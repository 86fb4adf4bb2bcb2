"""An IMAP account in memory, as a source: every fault can be provoked at will, and nothing is slow.

It offers what tests of operations need of a server; that a real one behaves so is the business of tests/sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from backupd.errors import ConnectionLost, ServerRefused
from backupd.mail.headers import header_of
from backupd.mail.uidset import UidSet
from backupd.model import Flags, Mailbox, MailboxStatus, MessageFacts, MessageState
from backupd.sources.base import Described, Discovered, Fetched, Identity, Known, Scan, Unreadable

DATE = b"17-Jul-2026 02:44:25 +0200"


@dataclass
class Stored:
    """A message in the account."""

    raw: bytes
    flags: Flags = ()
    date: bytes = DATE
    modseq: int = 1
    server_id: bytes | None = None


@dataclass
class Box:
    """A mailbox of the account."""

    uidvalidity: int
    uidnext: int = 1
    modseq: int = 1
    messages: dict[int, Stored] = field(default_factory=dict)
    special_use: tuple[bytes, ...] = ()
    subscribed: bool = False


class SimulatedAccount:
    """Mailboxes by name, and what happens to them. It is a Source itself.

    condstore: whether the server counts changes. server_ids: whether it has EMAILID. connections: sessions at once.
    """

    def __init__(self, *, condstore: bool = True, server_ids: bool = False, connections: int = 2) -> None:
        self.condstore, self.server_ids, self.connections = condstore, server_ids, connections
        self.boxes: dict[bytes, Box] = {}
        self._modseq, self._uidvalidity, self._ids = 1, 1000, 0
        self.unreadable: dict[tuple[bytes, int], str] = {}
        self.deadly: dict[tuple[bytes, int], int] = {}
        self.refuse_select: dict[bytes, str] = {}
        self.before_fetch: Callable[[], None] = lambda: None
        self.on_message: Callable[[bytes, int], None] = lambda _name, _uid: None
        self.selected: list[bytes] = []
        self.fetched: list[tuple[bytes, int]] = []
        self.opened = 0
        self.create(b"INBOX")

    # What users do

    def create(self, name: bytes, *, special_use: tuple[bytes, ...] = (), subscribed: bool = False) -> None:
        self._uidvalidity += 1
        self.boxes[name] = Box(self._uidvalidity, special_use=special_use, subscribed=subscribed)

    def append(self, name: bytes, *raws: bytes, flags: Flags = (), date: bytes = DATE) -> list[int]:
        """The new UIDs."""
        uids = []
        for raw in raws:
            self._ids += 1
            identity = b"EMAILID:%d" % self._ids if self.server_ids else None
            uids.append(self._place(name, Stored(raw, flags, date, server_id=identity)))
        return uids

    def _place(self, name: bytes, message: Stored) -> int:
        box = self.boxes[name]
        uid = box.uidnext
        box.uidnext += 1
        box.messages[uid] = Stored(message.raw, message.flags, message.date, self._tick(name), message.server_id)
        return uid

    def _tick(self, name: bytes) -> int:
        self._modseq += 1
        self.boxes[name].modseq = self._modseq
        return self._modseq

    def expunge(self, name: bytes, *uids: int) -> None:
        self._tick(name)
        for uid in uids:
            del self.boxes[name].messages[uid]

    def flag(self, name: bytes, uid: int, *flags: bytes) -> None:
        message = self.boxes[name].messages[uid]
        message.flags, message.modseq = tuple(sorted(flags)), self._tick(name)

    def move(self, name: bytes, to: bytes, *uids: int) -> list[int]:
        moved = [self._place(to, self.boxes[name].messages[uid]) for uid in uids]
        self.expunge(name, *uids)
        return moved

    def rename(self, name: bytes, to: bytes) -> None:
        self.boxes[to] = self.boxes.pop(name)

    def delete(self, name: bytes) -> None:
        del self.boxes[name]

    def reset(self, name: bytes, *, first_uid: int = 1) -> None:
        """UIDVALIDITY and all UIDs change."""
        self._uidvalidity += 1
        old = self.boxes[name]
        new = Box(self._uidvalidity, first_uid, special_use=old.special_use, subscribed=old.subscribed)
        self.boxes[name] = new
        for message in old.messages.values():
            self._place(name, message)

    def contents(self) -> dict[bytes, dict[int, tuple[bytes, Flags, bytes]]]:
        """All messages by mailbox and UID: bytes, flags, date."""
        return {
            name: {uid: (message.raw, message.flags, message.date) for uid, message in box.messages.items()}
            for name, box in self.boxes.items()
        }

    # What a source is

    def open(self) -> SimulatedSession:
        self.opened += 1
        return SimulatedSession(self)

    def mailbox(self, name: bytes) -> Mailbox:
        box = self.boxes[name]
        return Mailbox(name, name.decode("latin-1"), b"/", (), box.special_use, box.subscribed)

    def status(self, name: bytes) -> MailboxStatus:
        box = self.boxes[name]
        return MailboxStatus(len(box.messages), box.uidnext, box.uidvalidity, box.modseq if self.condstore else None)


class SimulatedSession:
    """One connection to the account."""

    def __init__(self, account: SimulatedAccount) -> None:
        self._account = account

    @property
    def identity(self) -> Identity:
        offered = {"CONDSTORE": self._account.condstore, "OBJECTID": self._account.server_ids}
        capabilities = ("IMAP4REV1", *(name for name, has in offered.items() if has))
        return Identity("imap", "simulated.example", 143, "Simulated", capabilities)

    def discover(self) -> list[Discovered]:
        account = self._account
        return [Discovered(account.mailbox(name), account.status(name)) for name in account.boxes]

    def scan(self, mailbox: Mailbox, known: Known | None) -> Scan:
        account, name = self._account, mailbox.raw_name
        account.selected.append(name)
        if name in account.refuse_select:
            raise ServerRefused(account.refuse_select[name], subject=mailbox.name)
        box, status = account.boxes[name], account.status(name)
        uids = UidSet.from_uids(box.messages)
        if known is None or known.status.uidvalidity != box.uidvalidity:
            return Scan(status, uids, UidSet.EMPTY, (), reset=True)
        before = {state.uid: state for state in known.states()}
        now = {uid: self._state(uid, message) for uid, message in box.messages.items()}
        changed = tuple(state for uid, state in now.items() if uid in before and before[uid] != state)
        return Scan(status, uids, known.uids - uids, changed)

    def _state(self, uid: int, message: Stored) -> MessageState:
        return MessageState(uid, message.flags, (), message.modseq if self._account.condstore else None)

    def describe(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
        for uid, message in list(self._account.boxes[mailbox.raw_name].messages.items()):
            if uid in uids:
                facts = MessageFacts(uid, message.date, len(message.raw), message.server_id)
                yield Described(facts, self._state(uid, message))

    def headers(self, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
        for uid, message in list(self._account.boxes[mailbox.raw_name].messages.items()):
            if uid in uids:
                yield uid, header_of(message.raw)

    def fetch(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched | Unreadable]:
        account, name = self._account, mailbox.raw_name
        account.before_fetch()
        for uid in uids:
            message = account.boxes[name].messages.get(uid)
            if message is None:
                continue
            account.on_message(name, uid)
            if account.deadly.get((name, uid), 0):
                account.deadly[name, uid] -= 1
                raise ConnectionLost("the connection was cut", subject=f"{mailbox.name} UID {uid}")
            if what := account.unreadable.get((name, uid)):
                yield Unreadable(uid, what)
                continue
            account.fetched.append((name, uid))
            facts = MessageFacts(uid, message.date, len(message.raw), message.server_id)
            yield Fetched(facts, self._state(uid, message), message.raw)

    def expect_scans(self, wanted: Sequence[tuple[Mailbox, Known | None]]) -> None:
        """Nothing is slow here."""

    def expect_fetches(self, wanted: Sequence[tuple[Mailbox, UidSet]]) -> None:
        """Nothing is slow here."""

    def close(self) -> None:
        """Nothing to end."""
