"""`backupd ls`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column

if TYPE_CHECKING:
    from backupd.operations.look import MailboxLine, MessageLine, Unlisted
    from backupd.repository.repository import Repository
    from backupd.repository.snapshots import MailboxRecord, Snapshot, SnapshotRef

_LETTERS = {"\\seen": "S", "\\answered": "R", "\\flagged": "F", "\\draft": "D", "\\deleted": "T"}
_NAME_WIDTH = 20
_FEW = 10
INCOMPLETE = 3


def command(snapshot: str, mailbox: str | None = None, /, *, context: Here) -> int:
    """List a snapshot's mailboxes, or the messages of one.

    Parameters
    ----------
    snapshot
        An id, the beginning of one, ACCOUNT@latest or ACCOUNT@2026-11-01T12:00.
    mailbox
        Its name as `ls SNAPSHOT` shows it. Flags are in Maildir's letters: S seen, R replied, F flagged, D draft,
        T deleted; + stands for keywords.
    """
    from backupd.operations import look

    with context.repository(only_reads=True) as repository:
        ref, found = context.find(repository, snapshot)
        if mailbox is None:
            _mailboxes(context, repository, ref, found)
        else:
            return _messages(context, repository, ref, look.find_mailbox(found, mailbox))
    return 0


def _mailboxes(context: Context, repository: Repository, ref: SnapshotRef, snapshot: Snapshot) -> None:
    from backupd.operations import look

    lines = look.mailboxes(snapshot, repository)
    if context.json:
        output.document({"snapshot": look.describe(ref, snapshot), "mailboxes": lines})
        return
    output.table(
        [Column("MAILBOX", shrink=True), Column("MESSAGES", right=True), Column("SIZE", right=True), Column("")],
        [(line.path, f"{line.messages:,}", output.size(line.octets), _remarks(line)) for line in lines],
        ["yellow" if line.missing else "" for line in lines],
    )


def _remarks(line: MailboxLine) -> str:
    remarks = [*line.special_use]
    if not line.selectable:
        remarks.append("holds no messages")
    if line.missing:
        remarks.append(f"{line.missing:,} missing")
    if line.erased:
        remarks.append(f"{line.erased:,} erased")
    return " ".join(remarks)


def _messages(context: Context, repository: Repository, ref: SnapshotRef, record: MailboxRecord) -> int:
    from backupd.operations import look
    from backupd.repository.keys import Role

    unlisted: list[Unlisted] = []
    lines = look.messages(repository, record, unlisted.append)
    if context.json:
        return _stream_json(ref, record, lines, unlisted)
    if repository.secrets.role is not Role.READER:
        context.note("a writer's key opens no mail: senders and subjects are not shown")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    without = 0
    for line in lines:
        output.line(_cut(_message(line, width), width))
        without += bool(line.damaged)
    for each in unlisted[:_FEW]:
        output.remark(f"{_stretch(each)} cannot be listed: {each.why}")
    if more := unlisted[_FEW:]:
        output.remark(f"nor can {output.count(sum(each.messages for each in more), 'message')} after these")
    if without:
        output.remark(f"{output.count(without, 'message')} without sender and subject, for these cannot be read")
    return _amiss(without or unlisted)


def _stretch(some: Unlisted) -> str:
    return f"{output.count(some.messages, 'message')} with UIDs from {some.first} to {some.last}"


def _amiss(amiss: object) -> int:
    """The exit code."""
    if amiss:
        output.remark("`backupd audit` says what is damaged, and `backupd repair` mends it")
    return INCOMPLETE if amiss else 0


def _message(line: MessageLine, width: int | None) -> str:
    flags = "".join(letter for flag, letter in _LETTERS.items() if flag in {each.lower() for each in line.flags})
    gone = "-" if line.gone else ""
    keywords = "+" if any(flag.lower() not in _LETTERS for flag in line.flags) else ""
    start = f"{line.uid:>7}  {output.mail_date(line.date):16}  {output.size(line.size):>7}  {flags + keywords + gone:4}"
    if line.erased:
        return f"{start}  ({line.erased})"
    if line.damaged:
        return f"{start}  {line.id[:16]}  (damaged)"
    if line.from_ is None:
        return f"{start}  {line.id[:16]}"
    sender = output.clean(line.from_)
    return f"{start}  {_fit(sender, _NAME_WIDTH) if width else sender.ljust(_NAME_WIDTH)}  {line.subject}".rstrip()


def _fit(text: str, width: int) -> str:
    """Exactly so many cells of a terminal; some characters take two."""
    from rich.cells import cell_len, set_cell_size

    return text + " " * (width - cell_len(text)) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _cut(text: str, width: int | None) -> str:
    from rich.cells import cell_len

    text = output.clean(text)
    return _fit(text, width) if width and cell_len(text) > width else text


def _stream_json(
    ref: SnapshotRef, record: MailboxRecord, lines: Iterable[MessageLine], unlisted: list[Unlisted]
) -> int:
    """The document piece by piece: a mailbox of a million messages must not be held at once. When something fails
    in the middle, the document still ends well, and says so."""
    from backupd.errors import BackupdError

    head = output.encode({"snapshot": ref.id, "mailbox": record.mailbox.name, "count": record.messages})
    output.write_raw(head[:-1] + b',"messages":[')
    separator, end, without = b"\n", b"", False
    try:
        for line in lines:
            sys.stdout.buffer.write(separator + output.encode(line))
            separator = b",\n"
            without = without or bool(line.damaged)
    except BackupdError as error:
        end = b',"error":' + output.encode(output.describe_error(error))
        raise output.Told(error) from error
    finally:
        output.write_raw(b'],"unlisted":' + output.encode(unlisted) + end + b"}\n")
    return _amiss(without or unlisted)
