"""`backupd snapshots`, `ls` and `show`: what is in the repository. Nothing is changed, and no server is asked.

Lists need only metadata, so the writer role sees them too; what people wrote (sender, subject, the mail itself) needs
the reader role and is None without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from backupd.errors import BackupdError, Damaged, ObjectMissing, UsageError
from backupd.mail.headers import readable
from backupd.model import MessageState
from backupd.operations.erased import Count, ErasedNote, note
from backupd.operations.facts import Known, facts_of
from backupd.operations.protection import Protection
from backupd.operations.selection import readable_path
from backupd.repository import envelopes, segments
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope, MessageRow
from backupd.repository.snapshots import MailboxRecord, Snapshot, SnapshotRef, timestamp

_READERS = 8
_RUNS_KEPT = 16
_SHORTEST_ID = 4

Pair = tuple[MessageRow, MessageState]


class SnapshotLine(msgspec.Struct, frozen=True):
    """A snapshot in a list. time: when it began. damaged: why it cannot be read, and then the rest says nothing.
    kept: holds and pins that keep it from being forgotten. erased: messages that it lists and that were erased. state:
    all that holds of it, in words: first "complete", "incomplete", "partial" (of a run that did not end) or "damaged";
    then "loss", "erased", "pinned", "held"."""

    id: str
    account: str
    time: str
    ended: str
    complete: bool
    checkpoint: bool
    parent: str | None
    mailboxes: int
    messages: int
    octets: int
    problems: int
    losses: int
    damaged: str = ""
    kept: list[str] = []
    erased: int = 0
    state: list[str] = []


class MailboxLine(msgspec.Struct, frozen=True):
    """A mailbox in a list. path: with "/" between levels. missing: messages the server had and the snapshot lacks.
    erased: messages that were erased since."""

    name: str
    path: str
    special_use: list[str]
    subscribed: bool
    selectable: bool
    uidvalidity: int | None
    messages: int
    octets: int
    missing: int
    erased: int = 0


class MessageLine(msgspec.Struct, frozen=True):
    """A message in a list. id: of the message in the archive, hexadecimal. date: INTERNALDATE as the server wrote it.
    gone: it came by POP3, and the server no longer has it. erased: it is not in the archive any more, and why.
    damaged: why sender, subject and so on cannot be read, which says nothing of the message itself. from_, to, subject
    and attachments are None then, without the reader role, and of what was erased."""

    uid: int
    id: str
    date: str
    size: int
    flags: list[str]
    labels: list[str]
    gone: bool = False
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    subject: str | None = None
    attachments: list[str] | None = None
    erased: ErasedNote | None = None
    damaged: str = ""


class Unlisted(msgspec.Struct, frozen=True):
    """Messages of a mailbox that cannot be listed, from the first UID to the last, and why: a list is damaged."""

    first: int
    last: int
    messages: int
    why: str


def snapshots(
    repository: Repository, account: str | None = None, protection: Protection | None = None
) -> list[SnapshotLine]:
    """All snapshots, or an account's, oldest first. One that is damaged is in the list and says so.

    protection: what is known of holds; without it, the lines say nothing of what keeps them.
    """
    refs = repository.refs(account)
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda ref: _snapshot_line(repository, ref, account or ""), refs)
        pairs = [pair for pair in found if pair]
    if repository.erased.now.messages:
        pairs = list(_counted(repository, pairs))
    why = protection.reasons([known for _, known in pairs]) if protection else {}
    lines = (msgspec.structs.replace(line, kept=why.get(line.id, [])) for line, _ in pairs)
    return [msgspec.structs.replace(line, state=_state(line)) for line in lines]


def _state(line: SnapshotLine) -> list[str]:
    if line.damaged:
        health = "damaged"
    elif line.checkpoint:
        health = "partial"
    else:
        health = "complete" if line.complete else "incomplete"
    more = {
        "loss": line.losses,
        "erased": line.erased,
        "pinned": any(why.startswith("pinned") for why in line.kept),
        "held": any(why.startswith("hold ") for why in line.kept),
    }
    return [health, *(word for word, holds in more.items() if holds)]


def _snapshot_line(repository: Repository, ref: SnapshotRef, account: str) -> tuple[SnapshotLine, Known] | None:
    try:
        snapshot = repository.snapshot(ref)
    except ObjectMissing:  # forgotten since it was listed
        return None
    except Damaged as error:
        line = SnapshotLine(ref.id, account, timestamp(ref.time), "", False, False, None, 0, 0, 0, 0, 0, str(error))
        return line, Known(ref, None)
    return describe(ref, snapshot), Known(ref, facts_of(snapshot))


def _counted(
    repository: Repository, pairs: Iterable[tuple[SnapshotLine, Known]]
) -> Iterator[tuple[SnapshotLine, Known]]:
    """With what of each snapshot was erased: snapshots are read again, which is cheap beside their lists."""
    count = Count(repository)
    for line, known in pairs:
        try:
            erased = 0 if line.damaged else count.of_snapshot(repository.snapshot(known.ref))
        except ObjectMissing:  # forgotten meanwhile
            erased = 0
        yield msgspec.structs.replace(line, erased=erased), known


def describe(ref: SnapshotRef, snapshot: Snapshot) -> SnapshotLine:
    """A snapshot as a line of a list."""
    return SnapshotLine(
        id=ref.id,
        account=snapshot.account,
        time=snapshot.started,
        ended=snapshot.ended,
        complete=snapshot.complete,
        checkpoint=snapshot.checkpoint,
        parent=snapshot.parent,
        mailboxes=len(snapshot.mailboxes),
        messages=snapshot.messages,
        octets=snapshot.octets,
        problems=len(snapshot.problems),
        losses=len(snapshot.losses),
    )


def mailboxes(snapshot: Snapshot, repository: Repository | None = None) -> list[MailboxLine]:
    """The mailboxes of a snapshot, INBOX first and the others by name. repository: None where nobody wants to know what
    was erased."""
    count = Count(repository) if repository else None
    lines = [
        MailboxLine(
            name=record.mailbox.name,
            path=readable_path(record.mailbox),
            special_use=[_text(each) for each in record.mailbox.special_use],
            subscribed=record.mailbox.subscribed,
            selectable=record.mailbox.selectable,
            uidvalidity=record.status.uidvalidity,
            messages=record.messages,
            octets=record.octets,
            missing=len(record.missing),
            erased=count.of_mailbox(record) if count else 0,
        )
        for record in snapshot.mailboxes
    ]
    return sorted(lines, key=lambda line: (line.path.upper() != "INBOX", line.path.casefold(), line.path))


def find_mailbox(snapshot: Snapshot, text: str) -> MailboxRecord:
    """The mailbox of this name: as it is shown, with "/" between levels, or as the server writes it.

    Raises UsageError.
    """

    def named(record: MailboxRecord) -> tuple[str, ...]:
        return record.mailbox.name, readable_path(record.mailbox), _text(record.mailbox.raw_name)

    found = [record for record in snapshot.mailboxes if text in named(record)]
    if not found and text.upper() == "INBOX":
        found = [record for record in snapshot.mailboxes if record.mailbox.name.upper() == "INBOX"]
    if len(found) == 1:
        return found[0]
    if found:
        raws = " or ".join(_text(record.mailbox.raw_name) for record in found)
        raise UsageError("several mailboxes are shown by this name", subject=text, remedy=f"write {raws}")
    names = [line.path for line in mailboxes(snapshot)]
    more = f" and {len(names) - 10:,} more (`backupd ls` shows all)" if len(names) > 10 else ""
    there = f"there are {', '.join(names[:10])}{more}" if names else "it has no mailboxes"
    raise UsageError("no such mailbox in this snapshot", subject=text, remedy=there)


def messages(
    repository: Repository, record: MailboxRecord, unlisted: Callable[[Unlisted], None]
) -> Iterator[MessageLine]:
    """The messages of a mailbox by ascending UID, read as they are asked for. unlisted: told of what cannot be
    listed; the rest is."""
    lines = Lines(repository)
    for segment in record.segments:
        try:
            pairs = list(segments.read(repository, segment))
        except (Damaged, ObjectMissing) as error:
            unlisted(Unlisted(segment.first, segment.last, segment.messages, str(error)))
            continue
        for pair in pairs:
            yield lines.line(pair)


class Lines:
    """Makes lines of messages; envelopes are read in runs, and the last few runs are kept."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._runs: dict[bytes, list[Envelope]] = {}
        self.with_envelopes = repository.secrets.role is Role.READER

    def line(self, pair: Pair) -> MessageLine:
        """What a list shows of a message."""
        row, state = pair
        line = MessageLine(
            uid=row.uid,
            id=row.message.hex(),
            date=_text(row.internaldate),
            size=row.size,
            flags=[_text(flag) for flag in state.flags],
            labels=[_text(label) for label in state.labels],
            gone=state.gone,
            erased=note(self._repository.erased.now.messages.get(row.message)),
        )
        if not self.with_envelopes or line.erased:
            return line
        try:
            envelope = self.envelope(row)
        except (Damaged, ObjectMissing) as error:
            return msgspec.structs.replace(line, damaged=str(error))
        return msgspec.structs.replace(
            line,
            from_=readable(envelope.from_),
            to=readable(envelope.to),
            subject=readable(envelope.subject),
            attachments=[readable(name) for name in envelope.attachments],
        )

    def envelope(self, row: MessageRow) -> Envelope:
        """What the message's header said. Raises WrongKey without the reader role, Damaged, ObjectMissing."""
        run = self._runs.get(row.envelopes)
        if run is None:
            run = envelopes.read(self._repository, row.envelopes)
            while len(self._runs) >= _RUNS_KEPT:
                del self._runs[next(iter(self._runs))]
            self._runs[row.envelopes] = run
        try:
            return run[row.envelope]
        except IndexError:
            raise Damaged("an envelope is not in its run", subject=f"UID {row.uid}") from None


class Found(msgspec.Struct, frozen=True):
    """A message that was looked for, and the other places where the snapshot has it: (mailbox, UID). unread: lists that
    cannot be read, so that it may be elsewhere, too, or another be meant."""

    record: MailboxRecord
    pair: Pair
    also_in: list[tuple[str, int]] = []
    unread: int = 0


def find_message(repository: Repository, snapshot: Snapshot, text: str) -> Found:
    """The message that `text` names: MAILBOX:UID, or the beginning of its id in the archive. Raises UsageError, and
    Damaged where a list that may have it cannot be read."""
    mailbox, colon, uid = text.rpartition(":")
    if colon and uid.isascii() and uid.isdigit():
        return _by_uid(repository, find_mailbox(snapshot, mailbox), int(uid))
    prefix = text.lower()
    if len(prefix) < _SHORTEST_ID or prefix.strip("0123456789abcdef"):
        raise UsageError(
            "not a message", subject=text, remedy=f"write MAILBOX:UID, or at least {_SHORTEST_ID} digits of its id"
        )
    return _by_id(repository, snapshot, prefix)


def _by_uid(repository: Repository, record: MailboxRecord, uid: int) -> Found:
    for segment in record.segments:
        if segment.first <= uid <= segment.last:
            for pair in segments.read(repository, segment):
                if pair[0].uid == uid:
                    return Found(record, pair)
    why = "the server had it, but it could not be read" if uid in record.missing else "there is no message of this UID"
    raise UsageError(why, subject=f"{record.mailbox.name}:{uid}", remedy="`backupd ls SNAPSHOT MAILBOX` lists them")


def _by_id(repository: Repository, snapshot: Snapshot, prefix: str) -> Found:
    found: dict[bytes, list[tuple[MailboxRecord, Pair]]] = {}
    unread: list[BackupdError] = []
    low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    high = bytes.fromhex(prefix + "f" * (len(prefix) % 2)) + b"\xff" * 32
    lists = [(record, segment) for record in snapshot.mailboxes for segment in record.segments]
    for record, segment in lists:
        try:
            for pair in segments.read(repository, segment):
                if low <= pair[0].message <= high:
                    found.setdefault(pair[0].message, []).append((record, pair))
        except (Damaged, ObjectMissing) as error:  # others may have it
            unread.append(error)
    if len(found) > 1:
        some = ", ".join(each.hex()[: len(prefix) + 8] for each in list(found)[:5])
        raise UsageError(f"{len(found):,} messages begin so", subject=prefix, remedy=f"give more of it: {some}")
    for places in found.values():
        record, pair = places[0]
        return Found(record, pair, [(other.mailbox.name, row.uid) for other, (row, _) in places[1:]], len(unread))
    if unread:
        raise unread[0]
    raise UsageError(
        "no message of this id in the snapshot",
        subject=prefix,
        remedy="`backupd ls --json` shows ids; MAILBOX:UID names it, too",
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
