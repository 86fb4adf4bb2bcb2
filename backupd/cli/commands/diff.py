"""`backupd diff`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Here

if TYPE_CHECKING:
    from backupd.operations.diff import Difference, FlagChange, MailboxDifference, Moved
    from backupd.operations.look import Lines, Pair

_FEW = 10


def command(
    before: str,
    after: str,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", show_default=False)] = False,
    context: Here,
) -> int:
    """Show what changed between two snapshots.

    Parameters
    ----------
    before
        An id, the beginning of one, ACCOUNT@latest or ACCOUNT@2026-11-01T12:00.
    after
        The later snapshot, named likewise.
    all_
        List every message, not only the first ten of each kind.
    """
    from backupd.operations import look
    from backupd.operations.diff import diff

    with context.repository(only_reads=True) as repository:
        (old_ref, old), (new_ref, new) = (context.find(repository, text) for text in (before, after))
        found = diff(repository, old, new)
        lines = look.Lines(repository)
        if context.json:
            output.document(
                {
                    "before": look.describe(old_ref, old),
                    "after": look.describe(new_ref, new),
                    **_document(found, lines),
                }
            )
            return 0
        for ref, snapshot in ((old_ref, old), (new_ref, new)):
            messages = output.count(snapshot.messages, "message")
            context.say(f"{ref.id}  {output.local_time(snapshot.started)}  {messages}")
        if not found.mailboxes and not found.moved:
            context.say("no difference")
        for place, mailbox in enumerate(found.mailboxes):
            if place or not context.quiet:
                output.line()
            _tell(mailbox, found.moved, lines, None if all_ else _FEW)
    return 0


def _tell(mailbox: MailboxDifference, moved: Sequence[Moved], lines: Lines, most: int | None) -> None:
    arrived = [each for each in moved if each.to_mailbox == mailbox.name]
    departed = [each for each in moved if each.from_mailbox == mailbox.name]
    counts = [
        (len(mailbox.new), "new"),
        (len(mailbox.gone), "gone"),
        (len(arrived), "moved here"),
        (len(departed), "moved away"),
        (len(mailbox.flags), "with other flags"),
    ]
    said = [*_said(mailbox), *(f"{number:,} {what}" for number, what in counts if number), *mailbox.properties]
    output.line(f"{mailbox.name}: {', '.join(said)}")
    _list("+", mailbox.new, lines, most)
    _list("-", mailbox.gone, lines, most)
    for each in arrived[:most]:
        output.line(f"  > {_message(each.after, lines)}  (from {each.from_mailbox})")
    _more(len(arrived), most)
    for change in mailbox.flags[:most]:
        output.line(f"  ~ {_message(change.after, lines)}  ({_flags(change)})")
    _more(len(mailbox.flags), most)


def _said(mailbox: MailboxDifference) -> list[str]:
    if mailbox.before is None:
        return ["new mailbox"]
    if mailbox.after is None:
        return ["mailbox is gone"]
    said = [f"renamed, was {mailbox.before.mailbox.name}"] if mailbox.renamed else []
    if mailbox.reset:
        said.append(f"UIDVALIDITY reset, {output.count(mailbox.recognised, 'message')} recognised")
    return said


def _list(mark: str, pairs: Sequence[Pair], lines: Lines, most: int | None) -> None:
    for pair in pairs[:most]:
        output.line(f"  {mark} {_message(pair, lines)}")
    _more(len(pairs), most)


def _more(number: int, most: int | None) -> None:
    if most is not None and number > most:
        output.line(f"    and {number - most:,} more (--all lists them)")


def _message(pair: Pair, lines: Lines) -> str:
    line = lines.line(pair)
    if line.erased:
        return f"{line.uid:>6}  {output.mail_date(line.date):16}  ({line.erased})"
    if line.damaged:
        return f"{line.uid:>6}  {output.mail_date(line.date):16}  {line.id[:16]}  (damaged)"
    about = line.id[:16] if line.subject is None else f"{line.from_ or '(no sender)'}: {line.subject or '(no subject)'}"
    return f"{line.uid:>6}  {output.mail_date(line.date):16}  {about}"


def _flags(change: FlagChange) -> str:
    old, new = (
        {flag.decode("utf-8", "backslashreplace") for flag in [*pair[1].flags, *pair[1].labels]}
        for pair in (change.before, change.after)
    )
    return " ".join([*(f"+{flag}" for flag in sorted(new - old)), *(f"-{flag}" for flag in sorted(old - new))])


def _document(found: Difference, lines: Lines) -> dict[str, object]:
    return {
        "mailboxes": [
            {
                "name": each.name,
                "before": each.before.mailbox.name if each.before else None,
                "after": each.after.mailbox.name if each.after else None,
                "uidvalidity_reset": each.reset,
                "recognised": each.recognised,
                "properties": each.properties,
                "new": [lines.line(pair) for pair in each.new],
                "gone": [lines.line(pair) for pair in each.gone],
                "flags": [
                    {"before": lines.line(change.before), "after": lines.line(change.after)} for change in each.flags
                ],
            }
            for each in found.mailboxes
        ],
        "moved": [
            {
                "from": each.from_mailbox,
                "to": each.to_mailbox,
                "before": lines.line(each.before),
                "after": lines.line(each.after),
            }
            for each in found.moved
        ],
    }
