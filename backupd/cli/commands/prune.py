"""`backupd prune`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.errors import UsageError

if TYPE_CHECKING:
    from backupd.operations.prune import PruneReport

INCOMPLETE = 3


def command(*, grace: str = "1d", context: Here) -> int:
    """Merge small packs and indexes into large ones, and remove those that an earlier prune merged.

    Needs the right to delete. Backups and restores may go on meanwhile, here and on other machines.

    Parameters
    ----------
    grace
        How long what is superfluous stays, so that whoever still reads it can end.
    """
    from backupd.cli.progress import shown
    from backupd.config.times import duration
    from backupd.operations.prune import prune

    try:
        period = duration(grace)
    except ValueError as error:
        raise UsageError(str(error), subject="--grace") from None
    with context.repository() as repository, shown(context) as observer, context.stopping() as stop:
        report = prune(repository, now=datetime.now(UTC), grace=period, observer=observer, stop=stop)
    code = INCOMPLETE if report.damaged else 0
    if context.json:
        output.document({"report": report, "exit_code": code})
    _tell(context, report)
    return code


def _tell(context: Context, report: PruneReport) -> None:
    for name in report.damaged:
        output.remark(f"{name} is damaged; `backupd repair` looks for a good one")
    for name in report.needed:
        context.note(f"{name} was marked and is needed: it stays")
    parts = []
    if report.removed:
        parts.append(f"{output.count(report.removed, 'object')} ({output.size(report.freed)}) removed")
    if report.packs:
        small = f"{output.count(report.packs, 'small pack')} ({output.size(report.octets)})"
        parts.append(f"{small} merged to {report.into}")
    if report.marked:
        parts.append(f"{output.count(report.marked, 'object')} superfluous from now on, to be removed by a later prune")
    if report.waiting:
        locked = f", locked until {report.locked_until:%Y-%m-%d %H:%M} UTC" if report.locked_until else ""
        parts.append(f"{output.count(report.waiting, 'object')} waiting to be removed{locked}")
    context.say(f"{report.repository}: {'; '.join(parts) if parts else 'nothing to do'}")
