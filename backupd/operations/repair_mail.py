"""What a key adds to a repair: which messages are damaged, what of them comes back, and what stays lost.

In this order: packs that no index object describes are indexed; messages are located that cannot be restored, as an
audit of content does it, and are fetched again from their servers; lists of envelopes are made anew. At last damaged
objects of which nothing is needed any more are removed, so that nobody is alarmed by them for ever. What is left then
stays lost, and is told.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from backupd.errors import Interrupted, ObjectExists, ServerError
from backupd.operations.audit_memory import Memory
from backupd.operations.audit_objects import Copies
from backupd.operations.audit_packs import PackAudit
from backupd.operations.audit_report import Affected, Level
from backupd.operations.audit_snapshots import UNLISTED, SnapshotAudit
from backupd.operations.audit_source import Servers
from backupd.operations.events import Observer, ignore
from backupd.operations.messages import MessageStore, Stored
from backupd.operations.repair_envelopes import envelope_of, foreseen, rebuild
from backupd.operations.repair_objects import read
from backupd.operations.repair_report import Fetched
from backupd.operations.repair_server import FromServer, Place, Wanted
from backupd.operations.stopping import Stop
from backupd.repository import envelopes, mending, names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope, MessageRow
from backupd.repository.snapshots import MailboxRecord, SnapshotRef

MOST_WANTED = 100_000
"""Messages that are fetched again before it is looked anew what else is lost; each takes some 500 octets of memory."""

_MOST_PLACES = 4


@dataclass
class Located:
    """What is lost. tried: ids of messages that were looked for already, and are not noted again. wanted: by account
    and message id. envelopes: ids of runs. listed: of messages that are whole, which of these runs lists them.
    suspects: ids of blobs that may be damaged, for all that this key can tell. full: there is more than was noted.
    unread: there are snapshots that cannot be read."""

    tried: Collection[bytes] = ()
    affected: list[Affected] = field(default_factory=list)
    more: int = 0
    wanted: dict[str, dict[bytes, Wanted]] = field(default_factory=dict)
    envelopes: set[bytes] = field(default_factory=set)
    listed: dict[bytes, bytes] = field(default_factory=dict)
    suspects: set[bytes] = field(default_factory=set)
    full: bool = False
    unread: bool = False

    @property
    def messages(self) -> int:
        """How many messages cannot be restored, each counted once."""
        noted = sum(len(some) for some in self.wanted.values())
        return noted + sum(each.messages for each in self.affected if not each.id)

    def note(self, account: str, record: MailboxRecord, row: MessageRow, restorable: bool) -> None:
        """Take in a message that is damaged in a snapshot."""
        if restorable:
            self.envelopes.add(row.envelopes)
            if len(self.listed) < MOST_WANTED:
                self.listed[row.message] = row.envelopes
            return
        if row.message in self.tried:
            return
        some = self.wanted.setdefault(account, {})
        if row.message not in some and sum(map(len, self.wanted.values())) >= MOST_WANTED:
            self.full = True
            return
        places = some.setdefault(row.message, Wanted(row, [])).places
        place = Place(record.mailbox.raw_name, record.status.uidvalidity, row.uid)
        if not record.local and place not in places and len(places) < _MOST_PLACES:
            places.append(place)


class MailRepair:
    """One repair of what needs a key, while it lasts.

    Args:
        servers: how the accounts' servers are reached; None: they are not to be asked.
        accounts: names of the configured ones.
        stored_before: seconds since 1970; packs that were stored later may be about to be indexed by whoever did.

    damaged, fetched, affected, more, indexed, notes: what came of it (see RepairReport). is_whole: every snapshot can
    be read, and all that it refers to is there.
    """

    def __init__(
        self,
        repository: Repository,
        accounts: Sequence[str],
        servers: Servers | None,
        observer: Observer,
        stop: threading.Event,
        *,
        dry_run: bool,
        stored_before: float | None,
    ) -> None:
        self._repository, self._accounts, self._servers = repository, accounts, servers
        self._observer, self._stop, self._dry_run = observer, stop, dry_run
        self._before = stored_before
        self._reader = repository.secrets.role is Role.READER
        self._store = MessageStore(repository)
        self._known: dict[bytes, Envelope] = {}
        self._unindexed: tuple[str, ...] = ()
        self._bad: frozenset[str] = frozenset()
        self._fetched: dict[str, dict[bytes, int]] = {}
        self._promised: dict[bytes, bytes] = {}
        self._tried: set[bytes] = set()
        self.damaged = self.more = self.indexed = 0
        self.affected: list[Affected] = []
        self.is_whole = False
        self.notes: list[str] = []

    @property
    def fetched(self) -> list[Fetched]:
        """What came from each account's server."""
        return [Fetched(name, len(some), sum(some.values())) for name, some in self._fetched.items() if some]

    @property
    def unindexed(self) -> tuple[str, ...]:
        """Packs that no index object describes, and that cannot be indexed."""
        return () if self._dry_run and self._reader else self._unindexed

    def run(self, bad: Collection[str]) -> None:
        """Do it. bad: names of objects that are damaged or missing. Raises Interrupted, and errors of the storage."""
        self._bad = frozenset(name for name in bad if name.startswith(names.PACKS))
        if any(name.startswith(names.INDEX) for name in bad):
            # The cache may have learned of it when it was good; nothing tells of its packs any more when it is gone.
            self._repository.rebuild()
        for name in self._repository.erased.look().damaged:
            self._servers = None
            self.notes.append(f"{name} cannot be read: what it erased must not come back, so no server is asked")
        self._index()
        located = self._locate()
        if located.affected and self._save_what_is_astray(bad):
            located = self._locate()
        self.damaged = located.messages
        while self._fetch(located):
            located = self._locate()
        if located.envelopes and not self._dry_run:
            refs = [ref for some in self._refs().values() for ref in some]
            if rebuild(self._repository, refs, located.envelopes, self._known):
                located = self._locate()
        self.affected = self._foreseen(located) if self._dry_run else located.affected
        self.more = located.more
        # Without any snapshot nobody can say what is needed.
        self.is_whole = not (self.affected or self.more or located.unread or self.unindexed) and bool(self._refs())

    # The index

    def _index(self) -> None:
        """Index packs that no index object describes, and save what can be read of those among them that are damaged.
        """
        self._unindexed = mending.examine(self._repository, stored_before=self._before).unindexed
        if self._unindexed and not self._dry_run:
            self.indexed = mending.adopt(self._repository, self._unindexed, self._store.identify)
            self._unindexed = mending.examine(self._repository, stored_before=self._before).unindexed
        told = {names.pack(pack.hex()) for pack in self._repository.index.packs()}
        bad = {bytes.fromhex(name.rpartition("/")[2]) for name in self._bad}
        # A writer's key opens the lists of messages in them, and so tells which to fetch again.
        unread = self._bad - told if self._reader else (self._bad - told).union(self._unindexed)
        if not self._dry_run:
            self.indexed += self._save(sorted(unread), bad)
        elif unread:
            some = "1 damaged pack is" if len(unread) == 1 else f"{len(unread):,} damaged packs are"
            what = "told of by no index: what can be saved of it, a dry run does not see, so more may come back"
            self.notes.append(f"{some} {what}")
        if self._reader:
            self._unindexed = tuple(name for name in self._unindexed if name not in self._bad)
        elif self._unindexed:
            some = "1 pack is" if len(self._unindexed) == 1 else f"{len(self._unindexed):,} packs are"
            what = "described by no index object; a repair, or a backup, with a reader's key indexes them"
            self.notes.append(f"{some} {what}")

    def _save_what_is_astray(self, bad: Collection[str]) -> bool:
        """Whether blocks were found, and stored again, that are lost where the index looks for them: an object stands
        in the place of another, or its octets have moved."""
        if self._dry_run or not self._save(bad, ()):
            return False
        # Messages can be told from their recipes when their parts are there, which may have been in another pack.
        self._save(bad, ())
        mending.examine(self._repository)  # an object may be itself again
        return True

    def _save(self, objects: Collection[str], bad: Collection[bytes]) -> int:
        """Store again what can be read of these objects, and is nowhere else; how many had something. bad: see
        mending.salvage."""
        repository, saved = self._repository, 0
        for name in objects:
            with suppress(ObjectExists):  # nothing is lost by that
                if data := read(repository.storage, name):
                    saved += mending.salvage(repository, name, data, bad, self._store.identify) is not None
        if saved:
            repository.rebuild()
        return saved

    # What is lost

    def _locate(self) -> Located:
        repository, found = self._repository, Located(self._tried)
        there = {info.name: info for info in repository.storage.list()}
        copies, memory = Copies(), Memory(None, repository.storage.url)
        packs = PackAudit(
            repository, there, self._bad & there.keys(), Level.CONTENT, copies, memory, ignore, self._stop
        )
        packs.run()
        if repository.index.lost():
            packs.rescan()
        if self._unindexed and self._dry_run and self._reader:
            # As if they were indexed; the cache forgets it when it is next brought up to date.
            self.indexed = mending.adopt(repository, self._unindexed, self._store.identify, store=False)
            packs.damage.unjoined.clear()
            packs.rescan()
        walk = SnapshotAudit(
            repository, packs.damage, copies, memory, ignore, self._stop,
            unsure=bool(self._unindexed) and not self._reader, on_harm=found.note,
        )  # fmt: skip
        for account, refs in self._refs().items():
            walk.account(account, refs)
        found.affected, found.more, found.suspects = walk.affected(), walk.more, packs.damage.suspects
        found.unread = any(each.subject.startswith(names.SNAPSHOTS) for each in walk.findings)
        return found

    def _foreseen(self, located: Located) -> list[Affected]:
        """What would stay lost after what a dry run promises: messages from servers, and the lists made of them."""
        unlisted = {run for run in self._promised.values() if not envelopes.is_there(self._repository, run)}
        lost = unlisted | located.envelopes
        refs = [ref for some in self._refs().values() for ref in some] if lost else []
        back = foreseen(self._repository, refs, lost, self._promised)
        found = []
        for each in located.affected:
            message = bytes.fromhex(each.id)
            if each.restorable:
                found += [each] if located.listed.get(message) not in back else []
            elif message not in self._promised:
                found.append(each)
            elif self._promised[message] in unlisted - back:
                found.append(msgspec.structs.replace(each, what=UNLISTED, certain=True, restorable=True))
        return found

    def _refs(self) -> Mapping[str, list[SnapshotRef]]:
        """Snapshots of each account; of one that is in no configuration, under its tag."""
        named = {self._repository.secrets.account_tag(name): name for name in self._accounts}
        found: dict[str, list[SnapshotRef]] = {}
        for ref in self._repository.refs():
            found.setdefault(named.get(ref.tag, ref.tag), []).append(ref)
        return found

    # From the servers

    def _fetch(self, located: Located) -> bool:
        """Fetch what is lost and was not looked for yet; whether to look anew what is lost."""
        if self._servers is None or not located.wanted:
            return False
        for blob in () if self._dry_run else located.suspects:
            self._repository.distrust(blob)
        came = False
        for account, wanted in located.wanted.items():
            self._tried.update(wanted)
            if account in self._accounts:
                came |= self._from(account, wanted, self._servers)
        self._repository.trust()
        return came or located.full

    def _from(self, account: str, wanted: Mapping[bytes, Wanted], servers: Servers) -> bool:
        fetch = FromServer(
            self._repository, account, wanted, self._observer, Stop(self._stop),
            dry_run=self._dry_run, on_stored=self._note_envelope,
        )  # fmt: skip
        try:
            fetch.run(servers)
        except Interrupted:
            raise
        except ServerError as error:
            remedy = f" ({error.remedy})" if error.remedy else ""
            self.notes.append(f"{account}: its lost messages could not be fetched again: {error.what}{remedy}")
        finally:
            self._fetched.setdefault(account, {}).update(fetch.found)
            if self._dry_run:
                self._promised.update({message: wanted[message].row.envelopes for message in fetch.found})
            self.notes += fetch.notes
        return bool(fetch.found)

    def _note_envelope(self, stored: Stored) -> None:
        if len(self._known) < MOST_WANTED:
            self._known[stored.id] = envelope_of(stored)
