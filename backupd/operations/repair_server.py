"""Messages that the repository has lost, fetched again from where they came from, if they are still there.

They are looked for where they were: the mailbox, its UIDVALIDITY and the UID; on a POP3 server by UIDL. What is not
found so has been moved, or the mailbox renamed: then all mailboxes are searched by EMAILID, or by size and header.
Nothing else is downloaded, and what is downloaded counts only if it has the message's id, a keyed hash of its bytes.
So a writer's key is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from backupd.errors import Interrupted, ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Body, Mailbox
from backupd.operations.audit_source import Servers
from backupd.operations.events import Advance, Observer, Plan
from backupd.operations.messages import MessageStore, Stored
from backupd.operations.session_pool import Once, SessionPool, Work
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository
from backupd.repository.runs import MessageRow
from backupd.sources.base import Discovered, Session, Source, Unreadable
from backupd.sources.pop3.base import Pop3Source, Retrieved, server_id


class Place(NamedTuple):
    """Where a message was on its server. mailbox: its raw name."""

    mailbox: bytes
    uidvalidity: int | None
    uid: int


class Wanted(NamedTuple):
    """A message that is lost: what its mailbox says of it, and where it was in some snapshots."""

    row: MessageRow
    places: list[Place]


class FromServer:
    """Looks for the lost messages of one account.

    Args:
        wanted: by message id.
        on_stored: told of each message that was stored.
        dry_run: only look whether they are there.

    found: ids of messages that were, with their octets. notes: what went wrong with some of them.
    """

    def __init__(
        self,
        repository: Repository,
        account: str,
        wanted: Mapping[bytes, Wanted],
        observer: Observer,
        stop: Stop,
        *,
        dry_run: bool,
        on_stored: Callable[[Stored], None],
    ) -> None:
        self._repository, self._account, self._left = repository, account, dict(wanted)
        self._observer, self._stop, self._dry_run, self._on_stored = observer, stop, dry_run, on_stored
        self._store = MessageStore(repository)
        self.found: dict[bytes, int] = {}
        self.notes: list[str] = []

    def run(self, servers: Servers) -> None:
        """Look, and fetch. What was fetched is durable when this returns, or raises.

        Raises errors of the server, and Interrupted.
        """
        self._observer(Plan(self._account, len(self._left), sum(each.row.size for each in self._left.values())))
        try:
            if source := servers.imap(self._account):
                self._imap(source)
            elif pop3 := servers.pop3(self._account):
                self._pop3(pop3)
        finally:
            if self.found and not self._dry_run:
                self._repository.flush()

    # IMAP

    def _imap(self, source: Source) -> None:
        pool = SessionPool(source, stop=self._stop)
        try:
            discovered: list[Discovered] = pool.run(Once(lambda session: session.discover()))
            there = {each.mailbox.raw_name: each.mailbox for each in discovered if each.mailbox.selectable}
            where: dict[tuple[bytes, int | None], dict[int, bytes]] = {}
            for message, wanted in self._left.items():
                for place in wanted.places:
                    where.setdefault(place[:2], {})[place.uid] = message
            for (raw_name, uidvalidity), uids in where.items():
                if raw_name in there:
                    self._where_they_were(pool, there[raw_name], uidvalidity, uids)
            for mailbox in there.values():
                if self._left:
                    self._anywhere(pool, mailbox)
        finally:
            pool.close()

    def _where_they_were(
        self, pool: SessionPool, mailbox: Mailbox, uidvalidity: int | None, uids: Mapping[int, bytes]
    ) -> None:
        uids = {uid: message for uid, message in uids.items() if message in self._left}
        if not uids:
            return
        try:
            scan = pool.run(Once(lambda session: session.scan(mailbox, None)))
        except ServerRefused as error:
            self._note(f"{mailbox.name} cannot be read: {error.what}")
            return
        if uidvalidity is None or scan.status.uidvalidity != uidvalidity:
            return
        self._fetch(pool, mailbox, {uid: message for uid, message in uids.items() if uid in scan.uids})

    def _anywhere(self, pool: SessionPool, mailbox: Mailbox) -> None:
        """Look through a mailbox for messages that have another place now."""
        named = {each.row.server_id: message for message, each in self._left.items() if each.row.server_id}
        sizes = {each.row.size for each in self._left.values()}
        headers: dict[tuple[int, bytes], bytes] = {
            (each.row.size, each.row.fingerprint): message for message, each in self._left.items()
        }

        def look(session: Session) -> dict[int, bytes]:
            found: dict[int, bytes] = {}
            alike: dict[int, int] = {}
            for described in session.describe(mailbox, session.scan(mailbox, None).uids):
                facts = described.facts
                if facts.server_id in named:
                    found[facts.uid] = named[facts.server_id]
                elif facts.size in sizes:
                    alike[facts.uid] = facts.size
            for uid, header in session.headers(mailbox, UidSet.from_uids(sorted(alike))) if alike else ():
                key = (alike.get(uid, -1), self._repository.secrets.fingerprint(header))
                if key in headers:
                    found[uid] = headers[key]
            return found

        try:
            found = pool.run(Once(look))
        except ServerRefused as error:
            self._note(f"{mailbox.name} cannot be searched: {error.what}")
            return
        self._fetch(pool, mailbox, found)

    def _fetch(self, pool: SessionPool, mailbox: Mailbox, uids: Mapping[int, bytes]) -> None:
        self._go_on()
        if self._dry_run:
            for message in uids.values():
                self._promise(message)
        elif uids:
            try:
                pool.run(_Fetch(mailbox, uids, self._take, self._note, self._go_on))
            except ServerRefused as error:
                self._note(f"{mailbox.name}: {error.what}")

    # POP3

    def _pop3(self, source: Pop3Source) -> None:
        named = {each.row.server_id: message for message, each in self._left.items() if each.row.server_id}
        session = source.open()
        try:
            there = [each for each in session.listing() if each.uidl and server_id(each) in named]
            if self._dry_run:
                for each in there:
                    self._promise(named[server_id(each)])
                return
            for item in session.retrieve(there):
                self._go_on()
                if isinstance(item, Retrieved):
                    self._take(item.body, "INBOX")
                else:
                    self._note(f"message {item.number}: {item.what}")
        finally:
            session.close()

    def _promise(self, message: bytes) -> None:
        if wanted := self._left.pop(message, None):
            self.found[message] = wanted.row.size

    # What came

    def _take(self, body: bytes | Body, where: str) -> None:
        message = self._store.id_of(body)
        wanted = self._left.pop(message, None)
        if wanted is None:
            if message not in self.found:
                self._note(f"{where}: the server has other bytes under the number of a lost message")
            return
        self._repository.distrust(message)  # it may be there, and not be whole
        stored = self._store.store(body)
        self.found[message] = stored.size
        self._on_stored(stored)
        self._observer(Advance(self._account, where, 1, stored.size))

    def _note(self, what: str) -> None:
        note = f"{self._account}: {what}"
        if note not in self.notes:
            self.notes.append(note)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._account, remedy="what was fetched stays; run it again")


class _Fetch(Work[None]):
    """Messages of one mailbox. Called again after a lost connection, it goes on with those that are left."""

    def __init__(
        self,
        mailbox: Mailbox,
        uids: Iterable[int],
        take: Callable[[bytes | Body, str], None],
        note: Callable[[str], None],
        go_on: Callable[[], None],
    ) -> None:
        self._mailbox, self._left = mailbox, set(uids)
        self._take, self._note, self._go_on = take, note, go_on
        self._done = 0

    @property
    def progress(self) -> int:
        return self._done

    def __call__(self, session: Session) -> None:
        for item in session.fetch(self._mailbox, UidSet.from_uids(sorted(self._left))):
            uid = item.uid if isinstance(item, Unreadable) else item.facts.uid
            self._left.discard(uid)
            self._done += 1
            if isinstance(item, Unreadable):
                self._note(f"{self._mailbox.name} UID {uid}: {item.what}")
            else:
                self._take(item.body, self._mailbox.name)
            self._go_on()
