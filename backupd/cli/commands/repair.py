"""`backupd repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here

if TYPE_CHECKING:
    from backupd.operations.repair import RepairReport

INCOMPLETE = 3
_SHOWN = 20


def command(
    *, removed_since: str | None = None, quick: bool = False, dry_run: bool = False, context: Here
) -> int:
    """Put good objects in the place of damaged and missing ones, from copies, or from versions that the bucket kept.

    The exit code is 3 when something stays damaged or missing.

    Parameters
    ----------
    removed_since
        Bring back what was removed at this time or later, such as 2026-11-01T12:00, snapshots and all; and whatever a
        copy has and the repository has not.
    quick
        Do not read every object; only packs that are missing, or of a wrong size, are found.
    dry_run
        Show what would be put back, and change nothing.
    """
    from backupd.cli.progress import shown
    from backupd.operations.find_snapshot import moment
    from backupd.operations.opening import at_copy
    from backupd.operations.repair import repair

    since = moment(removed_since) if removed_since is not None else None
    with context.state() as state, shown(context) as observer, context.stopping() as stop:
        report = repair(
            context.storage(),
            [context.storage(at_copy(context.config, each.url)) for each in context.config.copies],
            context.open_repository,
            removed_since=since,
            quick=quick,
            dry_run=dry_run,
            state=state,
            observer=observer,
            stop=stop,
        )
    code = INCOMPLETE if report.lost else 0
    if context.json:
        output.document({"report": report, "exit_code": code})
    _tell(context, report)
    return code


def _tell(context: Context, report: RepairReport) -> None:
    did = "would put back" if report.dry_run else "put back"
    for each in report.mended[:_SHOWN]:
        source = "a version of it" if each.source == report.repository else each.source
        context.say(f"{did} {each.object}, which was {each.why}, from {source}")
    if len(report.mended) > _SHOWN:
        context.say(f"... and {len(report.mended) - _SHOWN:,} more")
    for lost in report.lost:
        output.remark(f"{lost.object} is {lost.why}, and nothing good was found to put in its place")
    for note in report.notes:
        context.note(note)
    read = f"{output.count(report.objects, 'object')} ({output.size(report.octets)}) read"
    amiss = f"{len(report.mended) + len(report.lost):,} amiss" if report.mended or report.lost else "nothing amiss"
    mended = f", {len(report.mended):,} {'can be ' if report.dry_run else ''}put back" if report.mended else ""
    context.say(f"{report.repository}: {read}, {amiss}{mended}")
    if report.lost:
        context.note("the next backup stores again what mail of it is still on the server")
