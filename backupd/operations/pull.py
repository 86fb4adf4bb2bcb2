"""A snapshot of a POP3 account: what the server has, beside all that it once had and what was imported.

POP3 has one mailbox without history, and clients delete from it what they have read. So a message that the server no
longer has stays in the snapshots, marked as gone. Which message is which is told by UIDL and the size that LIST gives;
where that is new or says nothing, by header (TOP) and size; then by content. Nothing is downloaded that is known by
one of the first two, and nothing is believed to be known by less.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import msgspec

from backupd.errors import (
    BackupdError,
    ConnectionFailed,
    ConnectionLost,
    Interrupted,
    ProtocolError,
    ServerError,
    ServerRefused,
    Throttled,
    Transient,
)
from backupd.mail import arrival
from backupd.mail.distinct import is_distinct
from backupd.model import Mailbox, MailboxStatus, MessageFacts, MessageState, Problem
from backupd.operations.backup_report import COUNTS, BackupReport, conclude
from backupd.operations.backup_run import CHECKPOINT_SECONDS
from backupd.operations.chunk import STALLS, STRIKES
from backupd.operations.events import Advance, Observer, Plan
from backupd.operations.history import History
from backupd.operations.holdings import Held, Holdings
from backupd.operations.mend import mend
from backupd.operations.messages import MessageStore
from backupd.operations.pull_delete import Deletion
from backupd.operations.session_pool import PAUSES
from backupd.operations.state import State
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository
from backupd.repository.snapshots import MailboxRecord
from backupd.sources.base import Identity
from backupd.sources.pop3.base import Listed, Pop3Session, Pop3Source, Retrieved, hides, server_id
from backupd.turns import TURN
from backupd.wire.throttling import PATIENCE

INBOX = Mailbox(raw_name=b"INBOX", name="INBOX", delimiter=b"/", subscribed=True)
LONGEST_PAUSE = 900.0
"""Seconds: a server that wants to be left alone for longer is tried again with the next run."""
Kept = TypeVar("Kept")


class Pull:
    """One run, while it lasts."""

    def __init__(
        self,
        repository: Repository,
        source: Pop3Source,
        account: str,
        history: History,
        state: State,
        observer: Observer,
        stop: Stop,
        *,
        deletion: Deletion | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._repository, self._source, self._account, self._history = repository, source, account, history
        self._state, self._observer, self._stop, self._deletion = state, observer, stop, deletion
        self._checkpoint_seconds, self._last_checkpoint = checkpoint_seconds, time.monotonic()
        self._store = MessageStore(repository)
        self._identity: Identity | None = None
        self._strikes: Counter[bytes] = Counter()
        self._problems: dict[bytes, Problem] = {}
        self._notes: list[str] = []
        self._progress = self._stalls = 0
        self._hides = False
        self._before_last = 0
        self._digest = b""
        self._unchanged = self._mended = False
        self._counts = dict.fromkeys(COUNTS, 0)

    def run(self) -> BackupReport:
        """Do it all. Raises what pull() raises."""
        stored_before = self._repository.bytes_stored
        found = mend(self._repository, self._account, self._history.parent, self._state, self._history.started)
        if found.mailboxes is not None:
            self._history.mended(found.mailboxes)
        self._mended = found.mailboxes is not None
        self._notes += [*self._history.notes, *found.notes]
        try:
            if self._deletion:
                self._delete_what_is_safe(self._deletion)
            report: BackupReport | None = None
            while report is None:
                report = self._in_session(self._bring_in, lambda: self._keep(stored_before))
            if self._digest and self._history.newest and report.complete:
                self._state.remember_listing(self._account, self._digest, self._history.newest)
            self._state.mended(self._account, found.token)
            return report
        except BaseException as error:
            self._keep_what_there_is(error)
            raise
        finally:
            if "_holdings" in self.__dict__:
                self._holdings.close()

    @functools.cached_property
    def _holdings(self) -> Holdings:
        """What the last snapshot holds; read when it is needed."""
        records = [_local(record) for record in self._history.before().values()]
        if not any(record.mailbox.raw_name == INBOX.raw_name for record in records):
            records.insert(0, MailboxRecord(INBOX, MailboxStatus(uidnext=1), local=True))
        return Holdings(self._repository, records)

    # Sessions

    def _in_session(
        self, work: Callable[[Pop3Session], None], keep: Callable[[], Kept], *, confirmed: bool = False
    ) -> Kept:
        """Do this in a session; once more in another one when the connection is lost or the mailbox is in use.

        keep: makes safe what was read, before QUIT: servers there are that remove then what was read, or show it no
        more (Gmail; RFC 2449, 6.7: EXPIRE 0). confirmed: whether QUIT must be confirmed for all this to count.
        """
        failures = 0
        while True:
            before = self._progress
            try:
                session = self._source.open()
                try:
                    self._identity = session.identity
                    with TURN:
                        work(session)
                    kept = keep()
                    try:
                        session.quit()
                    except ServerError:
                        if confirmed:
                            raise
                finally:
                    session.close()
                return kept
            except ServerError as error:
                if not isinstance(error, Transient | ProtocolError):
                    raise
                failures = 0 if self._progress > before else failures + 1
                asked = error.pause if isinstance(error, ConnectionFailed | Throttled) else None
                longest = PATIENCE if isinstance(error, Throttled) else LONGEST_PAUSE
                if failures >= len(PAUSES) or (asked or 0) > longest:
                    raise
                if self._stop.wait(max(PAUSES[failures], asked or 0)):
                    raise Interrupted("stopped while waiting for the server", subject=self._account) from error

    def _delete_what_is_safe(self, deletion: Deletion) -> None:
        """Before the pull, which then sees what has gone. It must not keep the pull from being made."""

        def delete(session: Pop3Session) -> None:
            sure, _ = self._match(session.listing())
            deletion.delete(session, sure, self._history.parent_ref, self._history.started)

        if not deletion.is_due(self._history.started):
            return
        try:
            self._in_session(delete, lambda: None, confirmed=True)
            deletion.confirmed()
        except ServerError as error:
            if not isinstance(error, Transient | ProtocolError | ServerRefused):
                raise
            self._notes.append(f"what was to be deleted from the server may still be there: {error}")
        self._notes += deletion.notes
        if deletion.deleted:
            self._notes.append(
                f"{deletion.deleted:,} deleted from the server, as delete_after asks; the snapshots keep them"
            )

    # One session

    def _bring_in(self, session: Pop3Session) -> None:
        self._before_last = self._counts["new"]
        self._hides = hides(session.identity.host)
        listing = session.listing()
        self._digest = _digest(listing)
        self._unchanged = self._is_known()
        if self._unchanged:
            return
        _, unknown = self._match(listing)
        self._observer(Plan(self._account, len(unknown)))
        unknown = self._recognise(session, unknown)
        if not self._stop.is_set():
            self._retrieve(session, [each for each in unknown if _key(each) not in self._problems])
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._account, remedy="what was read is kept; the next run goes on")
        if not self._hides:
            self._counts["vanished"] += self._holdings.mark_gone()
            if not listing and self._counts["vanished"]:
                self._notes.append("the server lists no message at all; all that it had stay in the snapshot")

    def _is_known(self) -> bool:
        """Whether the last snapshot was taken of just this listing, and is complete."""
        parent = self._history.parent
        if parent is None or parent.checkpoint or parent.problems or self._mended or self._hides or not self._digest:
            return False
        if any(self._counts.values()):  # of a session before this one, in the same run
            return False
        return self._state.listed(self._account) == (self._digest, self._history.parent_id)

    def _match(self, listing: list[Listed]) -> tuple[list[tuple[Listed, Held]], list[Listed]]:
        """(messages that UIDL and size tell, with what is held of them; all others)."""
        self._holdings.release()
        times = Counter(map(server_id, listing))
        sure: list[tuple[Listed, Held]] = []
        unknown = []
        for listed in listing:
            name = server_id(listed)
            held = self._holdings.of_server_id(name) if listed.uidl and times[name] == 1 else []
            if len(held) == 1:
                self._counts["changed"] += self._holdings.claim(held[0], server_id=name)
                sure.append((listed, held[0]))
            else:
                unknown.append(listed)
        return sure, unknown

    def _recognise(self, session: Pop3Session, unknown: list[Listed]) -> list[Listed]:
        """Claim what is held under another name, by header and size; gives what has to be downloaded."""
        likely = {each.number: each for each in unknown if self._candidates(each)}
        if not likely:
            return unknown
        found = set()
        for header in session.headers(likely):
            if self._stop.is_set():
                break
            listed = likely[header.number]
            if header.octets is not None and is_distinct(header.octets):
                mark = self._repository.secrets.fingerprint(header.octets)
                same = [each for each in self._candidates(listed) if each.fingerprint == mark]
                # Two different messages with one header and size: no telling which, so it is downloaded.
                if len({each.message for each in same}) == 1:
                    self._holdings.claim(same[0], server_id=server_id(listed))
                    self._counts["recognised"] += 1
                    self._advance(1, 0)
                    found.add(header.number)
        return [each for each in unknown if each.number not in found]

    def _candidates(self, listed: Listed) -> list[Held]:
        return self._holdings.of_size(listed.size, server_id(listed))

    def _retrieve(self, session: Pop3Session, wanted: list[Listed]) -> None:
        done = 0
        try:
            for item in session.retrieve(wanted):
                listed = wanted[done]
                done += 1
                if isinstance(item, Retrieved):
                    self._take(listed, item)
                else:
                    self._give_up(listed, item.what)
                if self._stop.is_set():
                    return
                if time.monotonic() - self._last_checkpoint > self._checkpoint_seconds:
                    self._write_checkpoint()
        except (ConnectionLost, ProtocolError) as error:
            if done < len(wanted):
                self._strike(wanted[done], error)
            raise

    def _take(self, listed: Listed, item: Retrieved) -> None:
        stored = self._store.store(item.body)
        name = server_id(listed)
        if item.note:
            self._notes.append(f"message {listed.number}: {item.note}")
        if held := self._holdings.of_message(stored.id):
            self._holdings.claim(held, server_id=name)
            self._counts["recognised"] += 1
        else:
            date = arrival.internaldate(stored.header, otherwise=self._history.started)
            facts = MessageFacts(uid=0, internaldate=date, size=listed.size, server_id=name)
            self._holdings.add(self._holdings.box(INBOX), facts, MessageState(uid=0, flags=()), stored)
            self._counts["new"] += 1
            self._counts["downloaded"] += stored.size
        self._stalls = 0
        self._advance(1, stored.size)

    def _strike(self, listed: Listed, error: ServerError) -> None:
        """Blame the message that was next: servers send them in the order in which they were asked for."""
        self._strikes[_key(listed)] += 1
        if self._strikes[_key(listed)] >= STRIKES:
            self._give_up(listed, f"the connection failed {STRIKES} times at this message: {error.what}")
            if isinstance(error, ConnectionLost) and error.waited:
                self._stalls += 1
                self._progress -= self._stalls > STALLS

    def _give_up(self, listed: Listed, what: str) -> None:
        name = f" (UIDL {listed.uidl.decode('ascii', 'backslashreplace')})" if listed.uidl else ""
        self._problems[_key(listed)] = Problem(INBOX.name, None, f"message {listed.number}{name}: {what}")
        self._advance(1, 0)

    def _advance(self, messages: int, octets: int) -> None:
        self._progress += messages
        self._observer(Advance(self._account, INBOX.name, messages, octets))

    # The snapshot

    @property
    def _server(self) -> Identity:
        return self._identity or Identity("pop3", self._source.address, 0)

    def _keep(self, stored_before: int) -> BackupReport | None:
        """The snapshot; or a checkpoint and None, where another session may show more."""
        if self._hides and self._counts["new"] > self._before_last:
            self._write_checkpoint()
            return None
        return self._conclude(stored_before)

    def _write_checkpoint(self) -> None:
        """Everything that is stored by now, so that the next run need not read it again."""
        self._history.checkpoint(self._server, self._holdings.partial(), self._notes)
        self._last_checkpoint = time.monotonic()

    def _keep_what_there_is(self, error: BaseException) -> None:
        if not self._counts["new"]:
            return
        try:
            self._write_checkpoint()
        except BackupdError as second:
            error.add_note(f"and what was read so far could not be kept: {second}")

    def _conclude(self, stored_before: int) -> BackupReport:
        before = self._history.before()
        mailboxes = list(before.values()) if self._unchanged else self._holdings.finish()
        problems = sorted(self._problems.values(), key=lambda problem: problem.what)
        return conclude(
            self._history,
            self._server,
            mailboxes,
            problems,
            [],
            self._notes,
            stored_before=stored_before,
            counts=self._counts,
        )


def _key(listed: Listed) -> bytes:
    """What a message is called within a run, in whatever session."""
    return server_id(listed) if listed.uidl else b"%d %d" % (listed.number, listed.size)


def _digest(listing: list[Listed]) -> bytes:
    """What tells one listing from another; empty where names do not tell one message from another."""
    names = [server_id(listed) for listed in listing if listed.uidl]
    if len(set(names)) != len(listing):
        return b""
    return hashlib.sha256(b"\n".join([b"%d" % len(names), *names])).digest()


def _local(record: MailboxRecord) -> MailboxRecord:
    """The mailbox as one of ours; of an account that was backed up by IMAP before, it keeps its UIDs."""
    if record.local:
        return record
    return msgspec.structs.replace(record, local=True, missing=[], status=MailboxStatus(uidnext=record.status.uidnext))
