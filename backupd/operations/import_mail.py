"""`backupd import`: a snapshot of an account with mail from local files beside what it has already.

A message that is in the mailbox of that name already, from the server, by POP3 or from an earlier import, is not added
again, so importing the same files once more adds only what is new. A message that was in INBOX, and that a person has
filed in a folder since, moves there. Nothing is ever taken away because local files no longer have it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from backupd.errors import BackupdError, Damaged, Interrupted
from backupd.mail import arrival
from backupd.mail.names import encode_utf7
from backupd.model import Mailbox, MessageFacts, MessageState, Problem
from backupd.operations.backup import now, recorded
from backupd.operations.backup_report import COUNTS, BackupReport, conclude
from backupd.operations.backup_run import CHECKPOINT_SECONDS
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.operations.history import History
from backupd.operations.holdings import Holdings
from backupd.operations.local_names import aside
from backupd.operations.mend import mend
from backupd.operations.messages import MessageStore
from backupd.operations.state import State
from backupd.repository.repository import Repository
from backupd.repository.snapshots import IMPORT
from backupd.sources.base import Identity
from backupd.sources.local.base import LocalMessage, LocalProblem, LocalStore

_REPORT_OCTETS = 1 << 20


class ImportPlan(msgspec.Struct, frozen=True):
    """What an import would do with one mailbox: messages that there are, and how many of them are new."""

    mailbox: str
    messages: int
    new: int


def import_mail(
    repository: Repository,
    store: LocalStore,
    account: str,
    *,
    state: State,
    into: str = "",
    observer: Observer = ignore,
    stop: threading.Event | None = None,
    clock: Callable[[], datetime] = now,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> BackupReport:
    """Take in local mail, and record the run. into: levels of names, separated by "/", below which it goes.

    In the report, new are messages that were added; recognised those that were there already; changed those with other
    flags; vanished those that were filed elsewhere. Raises Busy, Interrupted (what was read is kept), and errors of the
    storage. A file or message that cannot be read stops nothing: it is in the report's problems.
    """

    def run(history: History) -> BackupReport:
        ours = stop or threading.Event()
        return _Import(repository, store, account, history, state, into, observer, ours, checkpoint_seconds).run()

    return recorded(run, repository, account, state, clock, imported=True)


def plan_import(repository: Repository, store: LocalStore, account: str, *, into: str = "") -> list[ImportPlan]:
    """What an import would do. Reads all local mail, and stores nothing."""
    refs = repository.refs(account)
    messages, new = dict[str, int](), dict[str, int]()
    holdings = Holdings(repository, repository.snapshot(refs[-1]).mailboxes if refs else [])
    try:
        reading = MessageStore(repository)
        for item in store.messages():
            if isinstance(item, LocalProblem):
                continue
            try:
                message = reading.id_of(item.body)
            except Damaged:  # the import will tell
                continue
            for each in item.mailboxes:
                mailbox = _below(into, each)
                messages[mailbox.name] = messages.get(mailbox.name, 0) + 1
                places = [number for number in _places(holdings, mailbox) if number is not None]
                held = next((found for number in places if (found := holdings.of_message(message, number))), None)
                if held:
                    holdings.claim(held)
                else:
                    new[mailbox.name] = new.get(mailbox.name, 0) + 1
    finally:
        holdings.close()
    return [ImportPlan(name, count, new.get(name, 0)) for name, count in messages.items()]


def _below(into: str, mailbox: Mailbox) -> Mailbox:
    """The mailbox below a prefix."""
    levels = [level for level in into.split("/") if level]
    if not levels:
        return mailbox
    delimiter = mailbox.delimiter or b"/"
    raw = delimiter.join([*(encode_utf7(level) for level in levels), mailbox.raw_name])
    name = "/".join([*levels, mailbox.name])
    return msgspec.structs.replace(mailbox, raw_name=raw, name=name, delimiter=delimiter, special_use=())


def _places(holdings: Holdings, mailbox: Mailbox) -> tuple[int | None, int | None]:
    """(the mailbox of this name, the one aside if that is a server's); None for what there is not."""
    first = holdings.find(mailbox.raw_name)
    if first is None or holdings.is_local(first):
        return first, None
    return first, holdings.find(aside(mailbox).raw_name)


class _Import:
    """One run, while it lasts."""

    def __init__(
        self,
        repository: Repository,
        store: LocalStore,
        account: str,
        history: History,
        state: State,
        into: str,
        observer: Observer,
        stop: threading.Event,
        checkpoint_seconds: float,
    ) -> None:
        self._repository, self._local, self._account, self._history = repository, store, account, history
        self._state, self._into, self._observer, self._stop = state, into, observer, stop
        self._checkpoint_seconds = checkpoint_seconds
        self._store = MessageStore(repository)
        self._identity = Identity(kind=IMPORT, host="", port=0, server=store.kind)
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._covered: set[int] = set()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._unreported = [0, 0]

    def run(self) -> BackupReport:
        stored_before = self._repository.bytes_stored
        found = mend(self._repository, self._account, self._history.parent, self._state, self._history.started)
        if found.mailboxes is not None:
            self._history.mended(found.mailboxes)
        self._notes += [*self._history.notes, *found.notes]
        self._holdings = Holdings(self._repository, self._history.before().values())
        try:
            self._take_in()
            self._counts["vanished"] = self._holdings.moved(self._covered)
            return self._conclude(stored_before)
        except BaseException as error:
            self._keep_what_there_is(error)
            raise
        finally:
            self._holdings.close()

    def _take_in(self) -> None:
        for mailbox in self._local.mailboxes():
            self._place(_below(self._into, mailbox))
        self._observer(Plan(self._account, 0, self._local.octets))
        last = time.monotonic()
        for item in self._local.messages():
            if self._stop.is_set():
                remedy = "what was read is kept; the same command goes on"
                raise Interrupted("stopped", subject=self._account, remedy=remedy)
            if isinstance(item, LocalProblem):
                name = item.mailbox.name if item.mailbox else ""
                self._problems.append(Problem(name, None, f"{item.place}: {item.what}"))
                continue
            self._take(item)
            if time.monotonic() - last > self._checkpoint_seconds:
                self._write_checkpoint()
                last = time.monotonic()
        self._tell()

    def _place(self, mailbox: Mailbox) -> list[int]:
        """Where to look for messages of this mailbox; new ones go to the last of these."""
        first, second = _places(self._holdings, mailbox)
        if first is None or self._holdings.is_local(first):
            return [self._holdings.box(mailbox)]
        return [first, self._holdings.box(aside(mailbox)) if second is None else second]

    def _take(self, item: LocalMessage) -> None:
        try:
            stored = self._store.store(item.body)
        except Damaged as error:  # a file that changes while it is read
            self._problems.append(Problem(item.mailboxes[0].name, None, f"{item.place}: {error.what}"))
            return
        date = item.internaldate or arrival.internaldate(
            stored.header, stored=item.stored, otherwise=self._history.started
        )
        facts = MessageFacts(uid=0, internaldate=date, size=stored.size)
        added = False
        for mailbox in item.mailboxes:
            places = self._place(_below(self._into, mailbox))
            self._covered.update(places)
            held = next((found for number in places if (found := self._holdings.of_message(stored.id, number))), None)
            if held:
                self._counts["changed"] += self._holdings.claim(held, flags=item.flags or None)
                self._counts["recognised"] += 1
            else:
                self._holdings.add(places[-1], facts, MessageState(uid=0, flags=item.flags), stored)
                self._counts["new"] += 1
                added = True
        self._counts["downloaded"] += stored.size if added else 0
        self._unreported[0] += 1
        self._unreported[1] += stored.size
        if self._unreported[1] >= _REPORT_OCTETS:
            self._tell()

    def _tell(self) -> None:
        messages, octets = self._unreported
        self._unreported = [0, 0]
        if messages:
            self._observer(Advance(self._account, "", messages, octets))

    def _write_checkpoint(self) -> None:
        self._history.checkpoint(self._identity, self._holdings.partial(), self._notes)

    def _keep_what_there_is(self, error: BaseException) -> None:
        if not self._counts["new"]:
            return
        try:
            self._write_checkpoint()
        except BackupdError as second:
            error.add_note(f"and what was read so far could not be kept: {second}")

    def _conclude(self, stored_before: int) -> BackupReport:
        mailboxes = self._holdings.finish()
        return conclude(
            self._history,
            self._identity,
            mailboxes,
            self._problems,
            [],
            self._notes,
            stored_before=stored_before,
            counts=self._counts,
        )
