"""`backupd record list|export|accept`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Here
from backupd.cli.output import Column
from backupd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backupd.operations.record_listing import EntryLine

_SHOWN = 50
_FEW = 3


def list_command(
    *,
    last: int = _SHOWN,
    all: Annotated[bool, Parameter(show_default=False)] = False,  # noqa: A002 - the option is --all
    context: Here,
) -> int:
    """List what was done to the repository, the latest last. That nothing is missing, `backupd audit` proves.

    Parameters
    ----------
    last
        So many entries.
    all
        All of them.
    """
    from backupd.operations import record_listing

    if last < 1:
        raise UsageError("fewer than one entry are none", subject=f"--last {last}", remedy="write a number from 1")
    with context.repository() as repository:
        lines = record_listing.listed(repository, context.config.accounts, None if all else last)
    if context.json:
        output.document(lines)
        return 0
    rows = [
        (line.id[:8], output.local_time(line.time), line.kind, _accounts(line), _what(line)) for line in lines
    ]
    columns = [Column("ENTRY"), Column("TIME"), Column("WHAT"), Column("ACCOUNTS"), Column("", shrink=True)]
    output.table(columns, rows, ["" if line.signed else "red" for line in lines])
    return 0


def export_command(path: Path | None = None, /, *, context: Here) -> int:
    """Write the record's public key and its last entries. Kept where nobody who can change the repository can change
    it, it proves later, by `backupd audit --record FILE`, that nothing of what came before was taken away.

    Nothing is written while something is missing from the record already.

    Parameters
    ----------
    path
        The file; standard output when none is given.
    """
    from backupd.operations import record_listing

    with context.repository() as repository, context.state() as state:
        exported = record_listing.exported(repository, state, datetime.now(UTC))
    if path is not None:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(exported.text)
        except FileExistsError:
            raise UsageError(
                "there is a file already",
                subject=str(path),
                remedy="choose another name: the older one may prove more",
            ) from None
        except OSError as error:
            raise UsageError(f"this file cannot be written: {error}", subject=str(path)) from None
        context.note(f"written to {path}: keep it elsewhere")
    if context.json:
        output.document(exported)
    elif path is None:
        sys.stdout.write(exported.text)
    return 0


def accept_command(*, reason: str, context: Here) -> int:
    """Say that what the record and the repository disagree about has been looked into: what is gone is meant to be
    gone, and what is there to be there. That this was said, and why, is in the record from then on.

    Parameters
    ----------
    reason
        What came of it; it is stored encrypted.
    """
    from backupd.operations import record

    if not reason.strip():
        raise UsageError("a reason says to others, and to you next year, why", subject="--reason", remedy="write one")
    with context.repository() as repository, context.state() as state:
        found = record.accept(repository, state, datetime.now(UTC), reason)
    if context.json:
        output.document({"gone": found.gone, "there": found.there, "entries": found.entries, "pieces": found.pieces})
    for name in found.gone:
        context.say(f"accepted: {name} is gone")
    for name in found.there:
        context.say(f"accepted: {name} is there")
    if found.entries:
        context.say(f"accepted: {output.count(found.entries, 'entry', 'entries')} of the record lost")
    for name in found.pieces:
        context.say(f"accepted: {name} cannot be read")
    return 0


def _accounts(line: EntryLine) -> str:
    more = len(line.accounts) - _FEW
    return ", ".join(line.accounts[:_FEW]) + (f" and {more:,} more" if more > 0 else "")


def _what(line: EntryLine) -> str:
    parts = [] if line.signed else ["NOT SIGNED BY THIS REPOSITORY'S KEY"]
    for verb, some in (("added", line.adds), ("to be removed", line.going), ("removed", line.gone)):
        if some:
            shown = ", ".join(name[-8:] for name in some[:_FEW])
            more = f" and {len(some) - _FEW:,} more" if len(some) > _FEW else ""
            parts.append(f"{verb} {shown}{more}")
    parts += [f"{what} {text}" for what, text in line.words.items()]
    parts += _counted(line)
    parts += list(line.reasons.values())
    return "; ".join(parts)


def _counted(line: EntryLine) -> Iterator[str]:
    """What was counted: of a prune in its own words."""
    counts = dict(line.counts)
    if line.kind == "prune":
        removed, freed = counts.pop("removed", 0), counts.pop("freed", 0)
        if removed or freed:
            yield f"{output.count(removed, 'object')} ({output.size(freed)}) removed"
        if marked := counts.pop("marked", 0):
            yield f"{output.count(marked, 'object')} superfluous"
        moved, into = counts.pop("moved", 0), counts.pop("into", 0)
        if moved or into:
            yield f"{output.size(moved)} moved to {output.count(into, 'new pack')}"
        if joined := counts.pop("record", 0):
            yield f"{output.count(joined, 'object')} of the record joined"
    for what, number in counts.items():
        yield output.count(number, what.removesuffix("s"), what) if what.endswith("s") else f"{what} {number:,}"
