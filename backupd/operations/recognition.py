"""Recognising messages that are stored already, so that they are not downloaded again under another UID.

A UIDVALIDITY reset, a renamed mailbox and a MOVE all look alike: messages have gone from somewhere, and others have
come. Those that came are compared with those that went: the same EMAILID (RFC 8474) or X-GM-MSGID, or else the same
size, INTERNALDATE and header. With what was imported they are compared by size and header.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator

import msgspec

from backupd.mail.distinct import is_distinct
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox, MessageState
from backupd.operations.state import State
from backupd.repository.keys import Secrets
from backupd.repository.runs import MessageRow
from backupd.sources.base import Described, Session

_COLUMNS = "message, internaldate, size, fingerprint, server_id, envelopes, envelope"


class GoneMessages:
    """Messages that have gone from their places in this run. On disk when there are many, so memory stays bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # An empty name is a private temporary database that SQLite spills to disk.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(
            "CREATE TABLE gone (origin BLOB, message BLOB, internaldate BLOB, size INTEGER, fingerprint BLOB,"
            " server_id BLOB, envelopes BLOB, envelope INTEGER, dated INTEGER)"
        )
        self._database.execute("CREATE INDEX by_size ON gone (size, internaldate)")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, origin: bytes, rows: Iterable[MessageRow], *, dated: bool = True) -> None:
        """origin: raw name of the mailbox they were in. dated: whether the server gave their INTERNALDATE; what was
        imported or came by POP3 has gone from nowhere, and is recognised all the same."""
        values = [
            (
                origin,
                row.message,
                row.internaldate,
                row.size,
                row.fingerprint,
                row.server_id,
                row.envelopes,
                row.envelope,
                dated,
            )
            for row in rows
        ]
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO gone VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._database.execute("COMMIT")
            self._count += len(values)

    def candidates(self, size: int, internaldate: bytes) -> list[tuple[MessageRow, bool]]:
        """Messages of this size and date, or of no known date, and whether it is known; their UIDs mean nothing."""
        with self._lock:
            found = self._database.execute(
                f"SELECT {_COLUMNS}, dated FROM gone WHERE size=?1 AND internaldate=?2 AND dated"  # noqa: S608
                f" UNION ALL SELECT {_COLUMNS}, dated FROM gone WHERE size=?1 AND NOT dated LIMIT 100",
                (size, internaldate),
            ).fetchall()
        return [(MessageRow(0, *columns), bool(dated)) for *columns, dated in found]

    def messages(self, origin: bytes) -> Iterator[bytes]:
        """Message ids of all that have gone from this mailbox."""
        with self._lock:
            found = self._database.execute("SELECT message FROM gone WHERE origin=?", (origin,)).fetchall()
        return (message for (message,) in found)

    def origins(self) -> list[bytes]:
        """Raw names of the mailboxes that messages have gone from."""
        with self._lock:
            found = self._database.execute("SELECT DISTINCT origin FROM gone WHERE dated").fetchall()
        return [origin for (origin,) in found]

    def close(self) -> None:
        """Drop the temporary database."""
        self._database.close()


class Recogniser:
    """Finds the stored message behind a new UID."""

    def __init__(
        self,
        gone: GoneMessages,
        state: State,
        account: str,
        secrets: Secrets,
        *,
        relies: Callable[[MessageRow], bool],
        server_ids: bool,
    ) -> None:
        """relies: whether a message and its envelope are in the repository and stay there. server_ids: whether the
        server has EMAILID or X-GM-MSGID."""
        self._gone, self._state, self._account, self._secrets = gone, state, account, secrets
        self._relies, self._server_ids = relies, server_ids

    @property
    def useful(self) -> bool:
        """Whether looking can find anything."""
        return self._server_ids or len(self._gone) > 0

    def recognise(
        self, session: Session, mailbox: Mailbox, uids: UidSet
    ) -> Iterator[tuple[MessageRow, MessageState]]:
        """The messages among `uids` that are stored already."""
        likely: dict[int, tuple[Described, list[tuple[MessageRow, bool]]]] = {}
        for described in session.describe(mailbox, uids):
            facts = described.facts
            row = self._state.recall(self._account, facts.server_id) if facts.server_id else None
            # The state knows messages of snapshots that are forgotten by now.
            if row and self._relies(row):
                yield _at(row, described), described.state
            elif candidates := self._gone.candidates(facts.size, facts.internaldate):
                likely[facts.uid] = (described, candidates)
        if not likely:
            return
        for uid, header in session.headers(mailbox, UidSet.from_uids(likely)):
            if uid not in likely:
                continue
            described, candidates = likely.pop(uid)
            fingerprint = self._secrets.fingerprint(header)
            # Without a date to compare, the header itself must tell.
            undated = is_distinct(header)
            same = {
                row.message: row for row, dated in candidates if row.fingerprint == fingerprint and (dated or undated)
            }
            # Two different messages with one header, size and date: no telling which, so it is downloaded.
            if len(same) == 1:
                yield _at(next(iter(same.values())), described), described.state


def _at(row: MessageRow, described: Described) -> MessageRow:
    facts = described.facts
    return msgspec.structs.replace(
        row, uid=facts.uid, internaldate=facts.internaldate, server_id=facts.server_id or row.server_id
    )
