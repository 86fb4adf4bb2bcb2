"""`backupd snapshots`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Here
from backupd.cli.output import Column
from backupd.errors import Damaged, UsageError

if TYPE_CHECKING:
    from backupd.operations.look import SnapshotLine


def command(account: str | None = None, /, *, context: Here) -> int:
    """List snapshots, oldest first.

    Parameters
    ----------
    account
        Only this account's.
    """
    from backupd.operations import look
    from backupd.operations.protection import Protection

    with context.repository(only_reads=True) as repository:
        try:
            protection = Protection(repository, datetime.now(UTC))
        except Damaged as error:
            context.note(f"what is held is not known: {error}")
            protection = None
        lines = look.snapshots(repository, account, protection)
    if account and not lines and account not in context.config.accounts:
        there = ", ".join(sorted(context.config.accounts))
        raise UsageError(
            "no account of this name, and no snapshot of one", subject=account, remedy=f"there are {there}"
        )
    if context.json:
        output.document(lines)
        return 0
    output.table(
        [
            Column("ID"),
            Column("TIME"),
            Column("ACCOUNT", shrink=True),
            Column("MAILBOXES", right=True),
            Column("MESSAGES", right=True),
            Column("SIZE", right=True),
            Column("STATE"),
        ],
        [
            (
                line.id[-8:],
                output.local_time(line.time)[:16],
                line.account,
                f"{line.mailboxes:,}",
                f"{line.messages:,}",
                output.size(line.octets),
                _state(line),
            )
            for line in lines
        ],
        ["" if line.complete else "red" if line.damaged else "yellow" for line in lines],
    )
    for line in lines:
        if line.damaged:
            context.note(f"snapshot {line.id} cannot be read: {line.damaged}")
    return 0


def _state(line: SnapshotLine) -> str:
    """Its words, with numbers where there are any."""
    problems = f"incomplete ({output.count(line.problems, 'problem')})" if line.problems else "incomplete"
    shown = {"incomplete": problems, "erased": f"{line.erased:,} erased"}
    return ", ".join(shown.get(word, word) for word in line.state)
