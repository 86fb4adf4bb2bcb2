"""Mail whose UIDs backupd gives: what POP3 brought, and what was imported. One account's, in one run.

No server says which message of the last snapshot is which of today's, so a run looks for each message it meets among
those that are held: by what POP3 calls it, by size and header, by content. What it finds it *claims*, each message
once, so that two copies of one message stay two. What it does not find it adds. Nothing is taken away but what turns up
elsewhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from backupd.model import Mailbox, MailboxStatus, MessageFacts, MessageState
from backupd.operations.messages import Stored
from backupd.operations.taking import Taking
from backupd.repository import segments
from backupd.repository.repository import Repository
from backupd.repository.segments import ROWS, Segment
from backupd.repository.snapshots import MailboxRecord

_MOST_WAITING = 8 * ROWS
"""Messages, of all mailboxes, whose rows are held in memory."""
_ALIKE = 100
"""Candidates of one size that are looked at; more come from an automaton, and are found by content."""

_SCHEMA = """
CREATE TABLE held (
    mailbox INTEGER, uid INTEGER, message BLOB NOT NULL, size INTEGER NOT NULL, fingerprint BLOB NOT NULL,
    server_id BLOB, flags BLOB NOT NULL, gone INTEGER NOT NULL, claimed INTEGER NOT NULL, fresh INTEGER NOT NULL,
    changed INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (mailbox, uid)) WITHOUT ROWID;
CREATE INDEX by_message ON held (message, mailbox, uid) WHERE claimed = 0 AND dropped = 0;
CREATE INDEX by_server_id ON held (server_id, mailbox, uid) WHERE claimed = 0 AND dropped = 0;
CREATE INDEX by_size ON held (size, mailbox, uid) WHERE claimed = 0 AND dropped = 0;
"""
"""Only what is free is in the indexes: of ten thousand equal messages, each is claimed at once."""
_COLUMNS = "mailbox, uid, message, size, fingerprint, server_id, flags, gone"
_INSERT = f"INSERT INTO held ({_COLUMNS}, claimed, fresh) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_FREE = "claimed = 0 AND dropped = 0"


_Row = tuple[int, int, bytes, int, bytes, bytes | None, bytes, bool, bool, bool]


class Held(NamedTuple):
    """A message that is held. mailbox: its number among the holdings."""

    mailbox: int
    uid: int
    message: bytes
    size: int
    fingerprint: bytes
    server_id: bytes | None
    flags: tuple[bytes, ...]
    gone: bool


class _Box:
    """One mailbox of the holdings."""

    def __init__(self, repository: Repository, record: MailboxRecord) -> None:
        self.record = record
        self.base = list(record.segments)
        self.fresh: list[Segment] = []
        self.taking = Taking(repository)
        last = max((segment.last for segment in record.segments), default=0)
        self.uidnext = max(record.status.uidnext or 1, last + 1)


class Holdings:
    """The holdings of an account. Not thread-safe. Memory is bounded: what is held is in a temporary database."""

    def __init__(self, repository: Repository, records: Iterable[MailboxRecord]) -> None:
        """records: mailboxes of the last snapshot, in its order; those that are not local can be claimed from, and
        stay as they are."""
        self._repository = repository
        # An empty name is a private temporary database that SQLite spills to disk.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)
        # One transaction that never ends: nobody else sees it, and it goes with the run.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("BEGIN")
        self._free = 0
        self._added: list[_Row] = []
        self._boxes: list[_Box] = []
        self._numbers: dict[bytes, int] = {}
        self._waiting = 0
        for record in records:
            self._open(record)

    def close(self) -> None:
        """Drop the temporary database."""
        self._database.close()

    def _open(self, record: MailboxRecord) -> int:
        number = len(self._boxes)
        self._boxes.append(_Box(self._repository, record))
        self._numbers[record.mailbox.raw_name] = number
        self._free += record.messages
        for segment in record.segments:
            self._database.executemany(
                _INSERT,
                (
                    (
                        number, row.uid, row.message, row.size, row.fingerprint, row.server_id, b"\0".join(state.flags),
                        state.gone, False, False,
                    )
                    for row, state in segments.read(self._repository, segment)
                ),
            )  # fmt: skip
        return number

    # Looking

    def box(self, mailbox: Mailbox) -> int:
        """The number of a local mailbox; it is made if there is none of this name."""
        number = self._numbers.get(mailbox.raw_name)
        if number is None:
            number = self._open(MailboxRecord(mailbox, MailboxStatus(), local=True))
        return number

    def is_local(self, number: int) -> bool:
        """Whether messages can be added to this mailbox."""
        return self._boxes[number].record.local

    def find(self, raw_name: bytes) -> int | None:
        """The number of the mailbox of this name."""
        return self._numbers.get(raw_name)

    def of_server_id(self, server_id: bytes) -> list[Held]:
        """Messages, not claimed yet, that POP3 called so; the order is that in which they came."""
        return self._select("by_server_id", "server_id = ?", server_id)

    def of_size(self, size: int, server_id: bytes) -> list[Held]:
        """Messages, not claimed yet, of this size; or that POP3 called so, whatever their size."""
        found = {(each.mailbox, each.uid): each for each in self._select("by_size", "size = ?", size)}
        found |= {(each.mailbox, each.uid): each for each in self.of_server_id(server_id)}
        return list(found.values())

    def of_message(self, message: bytes, number: int | None = None) -> Held | None:
        """A message, not claimed yet, of this content; in this mailbox, or in any."""
        if number is None:
            found = self._select("by_message", "message = ?", message, most=1)
        else:
            found = self._select("by_message", "message = ? AND mailbox = ?", message, number, most=1)
        return found[0] if found else None

    def _select(self, index: str, condition: str, *values: object, most: int = _ALIKE) -> list[Held]:
        if not self._free:
            return []
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM held INDEXED BY {index} WHERE {condition} AND {_FREE}"  # noqa: S608
            f" ORDER BY mailbox, uid LIMIT {most}",
            values,
        )
        return [_held(row) for row in rows]

    # Changing

    def claim(self, held: Held, *, server_id: bytes | None = None, flags: tuple[bytes, ...] | None = None) -> bool:
        """This message was met. server_id, flags: what is known of it now. Whether that says anything new of it."""
        new_id = held.server_id if server_id is None else server_id
        new_flags = held.flags if flags is None else flags
        gone = held.gone and server_id is None
        self._free -= 1
        changed = (new_id, new_flags, gone) != (held.server_id, held.flags, held.gone) and self.is_local(held.mailbox)
        if not changed:
            self._database.execute(
                "UPDATE held SET claimed = 1 WHERE mailbox = ? AND uid = ?", (held.mailbox, held.uid)
            )
            return False
        self._database.execute(
            "UPDATE held SET claimed = 1, changed = 1, server_id = ?, flags = ?, gone = ?"
            " WHERE mailbox = ? AND uid = ?",
            (new_id, b"\0".join(new_flags), gone, held.mailbox, held.uid),
        )
        return True

    def drop(self, held: Held) -> None:
        """This message is elsewhere now, outside of the holdings."""
        self._free -= 1
        self._database.execute("UPDATE held SET dropped = 1 WHERE mailbox = ? AND uid = ?", (held.mailbox, held.uid))

    def release(self) -> None:
        """Begin anew to look: nothing is claimed."""
        self._insert()
        self._free += self._database.execute("UPDATE held SET claimed = 0 WHERE claimed").rowcount

    def mark_gone(self) -> int:
        """What POP3 once had and nobody claimed is gone from the server; how many were not known to be."""
        local = [number for number, box in enumerate(self._boxes) if box.record.local]
        marked = 0
        for number in local:
            marked += self._database.execute(
                f"UPDATE held SET gone = 1, changed = 1 WHERE mailbox = ? AND server_id >= x'{b'UIDL:'.hex()}'"  # noqa: S608
                f" AND server_id < x'{b'UIDL;'.hex()}' AND NOT gone AND {_FREE}",
                (number,),
            ).rowcount
        return marked

    def add(self, number: int, facts: MessageFacts, state: MessageState, stored: Stored) -> None:
        """A message that was not held. The UIDs of facts and state are put in place here."""
        box = self._boxes[number]
        uid, box.uidnext = box.uidnext, box.uidnext + 1
        facts, state = msgspec.structs.replace(facts, uid=uid), msgspec.structs.replace(state, uid=uid)
        fingerprint = box.taking.take(facts, state, stored)
        flags = b"\0".join(state.flags)
        self._added.append(
            (number, uid, stored.id, stored.size, fingerprint, facts.server_id, flags, state.gone, True, True)
        )
        if len(self._added) >= ROWS:
            self._insert()
        self._waiting += 1
        if box.taking.waiting >= ROWS:
            self._write(box)
        elif self._waiting >= _MOST_WAITING:
            self._write(max(self._boxes, key=lambda each: each.taking.waiting))

    def _insert(self) -> None:
        """What was added is claimed, and not to be found before `release`; so it can wait until there is more of it."""
        self._database.executemany(_INSERT, self._added)
        self._added.clear()

    def moved(self, covered: Iterable[int]) -> int:
        """Messages that nobody claimed, and that were added in another mailbox in this run, were moved there: they are
        dropped where they were, and what POP3 calls them goes with them. How many.

        covered: mailboxes that were looked through to the end. In others, only what came by POP3 is taken as moved:
        there it was not filed yet.
        """
        self._insert()
        sources = [number for number in covered if self.is_local(number)]
        others = [number for number, box in enumerate(self._boxes) if box.record.local and number not in sources]
        count = 0
        after = (-1, 0)
        while fresh := self._database.execute(
            "SELECT mailbox, uid, message FROM held WHERE fresh AND (mailbox, uid) > (?, ?)"
            " ORDER BY mailbox, uid LIMIT 1000",
            after,
        ).fetchall():
            after = fresh[-1][:2]
            count += sum(self._move(into, uid, message, sources, others) for into, uid, message in fresh)
        return count

    def _move(self, into: int, as_uid: int, message: bytes, sources: list[int], others: list[int]) -> bool:
        """Whether the message, which is new here, was somewhere else before."""
        for some, condition in ((sources, ""), (others, " AND server_id IS NOT NULL")):
            found = self._database.execute(
                "SELECT mailbox, uid, server_id, gone FROM held WHERE message = ? AND mailbox != ?"  # noqa: S608
                f" AND {_FREE}{condition} AND NOT fresh AND mailbox IN ({','.join(map(str, some))})"
                " ORDER BY mailbox, uid LIMIT 1",
                (message, into),
            ).fetchone()
            if found:
                mailbox, uid, server_id, gone = found
                self._database.execute("UPDATE held SET dropped = 1 WHERE mailbox = ? AND uid = ?", (mailbox, uid))
                if server_id is not None:
                    self._database.execute(
                        "UPDATE held SET server_id = ?, gone = ?, changed = 1 WHERE mailbox = ? AND uid = ?",
                        (server_id, gone, into, as_uid),
                    )
                return True
        return False

    # Writing

    def _write(self, box: _Box) -> None:
        self._waiting -= box.taking.waiting
        pairs = box.taking.rows()
        if pairs:
            box.fresh += segments.write(self._repository, [row for row, _ in pairs], [state for _, state in pairs])

    def partial(self) -> list[MailboxRecord]:
        """Everything that is stored by now, for a checkpoint."""
        for box in self._boxes:
            self._write(box)
        return [self._record(box, [*box.base, *box.fresh]) if box.fresh else box.record for box in self._boxes]

    def finish(self) -> list[MailboxRecord]:
        """The mailboxes for the snapshot; the same records where nothing changed."""
        self._insert()
        records = []
        for number, box in enumerate(self._boxes):
            self._write(box)
            some = [*box.base, *box.fresh]
            if self._database.execute(
                "SELECT 1 FROM held WHERE mailbox = ? AND (changed OR dropped) LIMIT 1", (number,)
            ).fetchone():
                some = [each for segment in some for each in self._changed(number, segment)]
            if some != box.base:
                some = segments.merge_tail(self._repository, some)
            records.append(self._record(box, some) if some != box.base else box.record)
        return records

    def _changed(self, number: int, segment: Segment) -> list[Segment]:
        """A segment as the run has left it."""
        found = self._database.execute(
            "SELECT uid, server_id, flags, gone, dropped FROM held"
            " WHERE mailbox = ? AND uid BETWEEN ? AND ? AND (changed OR dropped)",
            (number, segment.first, segment.last),
        ).fetchall()
        if not found:
            return [segment]
        news = {uid: (dropped, server_id, _split(flags), bool(gone)) for uid, server_id, flags, gone, dropped in found}
        pairs = []
        for row, state in segments.read(self._repository, segment):
            if row.uid in news:
                dropped, server_id, flags, gone = news[row.uid]
                if dropped:
                    continue
                row = msgspec.structs.replace(row, server_id=server_id)
                state = msgspec.structs.replace(state, flags=flags, gone=gone)
            pairs.append((row, state))
        return segments.write(self._repository, [row for row, _ in pairs], [state for _, state in pairs])

    def _record(self, box: _Box, some: list[Segment]) -> MailboxRecord:
        return MailboxRecord(
            mailbox=box.record.mailbox,
            status=MailboxStatus(uidnext=box.uidnext),
            segments=some,
            messages=sum(segment.messages for segment in some),
            octets=sum(segment.octets for segment in some),
            local=True,
        )


def _split(flags: bytes) -> tuple[bytes, ...]:
    return tuple(flags.split(b"\0")) if flags else ()


def _held(row: tuple[object, ...]) -> Held:
    mailbox, uid, message, size, fingerprint, server_id, flags, gone = row
    return Held(mailbox, uid, message, size, fingerprint, server_id, _split(flags), bool(gone))  # type: ignore[arg-type]
