"""`backupd show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here

if TYPE_CHECKING:
    from backupd.mail.outline import Outline
    from backupd.operations.look import Found, MessageLine


def command(
    snapshot: str,
    message: str,
    /,
    *,
    raw: Annotated[bool, Parameter(show_default=False)] = False,
    context: Here,
) -> int:
    """Show a message: where it is, its header, and its parts.

    Parameters
    ----------
    snapshot
        An id, the beginning of one, ACCOUNT@latest or ACCOUNT@2026-11-01T12:00.
    message
        MAILBOX:UID, or at least four digits of its id in the archive.
    raw
        Write the exact bytes of the message, and nothing else.
    """
    from backupd.errors import UsageError
    from backupd.mail.outline import outline
    from backupd.operations import look
    from backupd.operations.messages import MessageStore

    if raw and context.json:
        raise UsageError("--raw and --json exclude each other", remedy="leave one of them out")
    with context.repository(only_reads=True) as repository:
        ref, found = context.find(repository, snapshot)
        place = look.find_message(repository, found, message)
        if place.unread:
            lists = output.count(place.unread, "list")
            context.note(f"{lists} cannot be read: another message may be meant, or this one be elsewhere, too")
        body = MessageStore(repository).load(place.pair[0].message)
        chunks = [body] if isinstance(body, bytes) else body.chunks()
        if raw:
            for chunk in chunks:
                output.write_raw(chunk)
            return 0
        line = look.Lines(repository).line(place.pair)
        _tell(context, ref.id, place, line, outline(chunks))
    return 0


def _tell(context: Context, snapshot: str, place: Found, line: MessageLine, seen: Outline) -> None:
    from backupd.mail.headers import readable

    header = [(name.decode("ascii", "backslashreplace"), readable(value)) for name, value in seen.header]
    if context.json:
        output.document(
            {
                "snapshot": snapshot,
                "mailbox": place.record.mailbox.name,
                "also_in": [{"mailbox": mailbox, "uid": uid} for mailbox, uid in place.also_in],
                "message": line,
                "header": header,
                "parts": [part._asdict() for part in seen.parts],
            }
        )
        return
    for name, value in header:
        output.line(f"{name}: {value}")
    output.line()
    for part in seen.parts:
        text = f"{'  ' * part.depth}{part.content_type}"
        details = [part.filename, part.encoding, output.size(part.octets)]
        output.line(f"{text:<40}  {'  '.join(detail for detail in details if detail)}")
    output.line()
    flags = " ".join([*line.flags, *line.labels]) or "none"
    if line.gone:
        flags += "; gone from the POP3 server"
    where = [f"{place.record.mailbox.name} UID {line.uid}", *(f"{name} UID {uid}" for name, uid in place.also_in)]
    for name, value in (
        ("mailbox", ", ".join(where)),
        ("received", line.date or "the server did not say"),
        ("flags", flags),
        ("size", f"{line.size:,} octets"),
        ("id", line.id),
    ):
        output.line(f"{name:<10}{value}")
