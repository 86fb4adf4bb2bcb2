"""`backupd prune`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.errors import UsageError

if TYPE_CHECKING:
    from backupd.operations.prune import PruneReport

INCOMPLETE = 3
_SHARE = re.compile(r"(\d{1,2}|100)\s*%")
_SHOWN = 10


def command(
    *,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    max_unused: str = "5%",
    max_repack: str | None = None,
    grace: str = "1d",
    alone: Annotated[bool, Parameter(show_default=False)] = False,
    context: Here,
) -> int:
    """Free what no snapshot needs, and make few large objects of many small ones.

    Works in two steps: what is superfluous is noted now, and removed by a later prune. Needs the right to delete, and
    no key that reads mail. Backups and restores may go on meanwhile, here and on other machines.

    Parameters
    ----------
    dry_run
        Say what would be done, and change nothing.
    max_unused
        How much may stay unused in packs that are needed in part: a share of what is needed, or a size such as 500MB.
    max_repack
        Move no more than this, such as 10GB.
    grace
        How long what is superfluous stays, so that whoever still needs it can say so: 3h or more.
    alone
        Nobody else is at work, on any machine: remove at once what is superfluous.
    """
    from backupd.cli.progress import shown
    from backupd.config.times import duration
    from backupd.operations.prune import prune

    try:
        period = duration(grace)
    except ValueError as error:
        raise UsageError(str(error), subject="--grace") from None
    unused, most = _unused(max_unused), _size(max_repack, "--max-repack")
    with (
        context.repository() as repository,
        context.state() as state,
        shown(context) as observer,
        context.stopping() as stop,
    ):
        report = prune(
            repository,
            state=state,
            now=datetime.now(UTC),
            grace=period,
            alone=alone,
            dry_run=dry_run,
            max_unused=unused,
            max_repack=most,
            observer=observer,
            stop=stop,
        )
    code = INCOMPLETE if report.damaged or report.hindrances else 0
    if context.json:
        output.document({"report": report, "exit_code": code})
    _tell(context, report)
    return code


def _unused(text: str) -> float | int:
    if match := _SHARE.fullmatch(text.strip()):
        return int(match[1]) / 100
    found = _size(text, "--max-unused")
    return found if found is not None else 0


def _size(text: str | None, option: str) -> int | None:
    from backupd.config.sizes import size

    try:
        return None if text is None else 0 if text.strip() == "0" else size(text)
    except ValueError as error:
        raise UsageError(str(error), subject=option) from None


def _tell(context: Context, report: PruneReport) -> None:
    for name in report.damaged:
        output.remark(f"{name} is damaged; `backupd repair` looks for a good one")
    for text in report.hindrances[:_SHOWN]:
        output.remark(f"not all could be freed: {text}")
    if len(report.hindrances) > _SHOWN:
        more = output.count(len(report.hindrances) - _SHOWN, "reason")
        output.remark(f"... and for {more} more")
    for name in report.needed:
        context.note(f"{name} was marked and is needed: it stays")
    parts = [_removed(report), _superfluous(report), _moved(report), _waiting(report)]
    done = "; ".join(part for part in parts if part)
    context.say(f"{report.repository}: {done or 'nothing to do'}")
    if report.unused:
        why = ", as --max-repack let no more be moved" if report.over else ""
        context.say(f"{output.size(report.unused)} stay unused in packs that are needed in part{why}")
    if report.beside:
        beside = output.size(report.beside)
        context.say(f"{beside} (before compression) stay because they share a block with something that is needed")


def _removed(report: PruneReport) -> str:
    if not report.removed:
        return ""
    would = "would be " if report.dry_run else ""
    return f"{output.count(report.removed, 'object')} ({output.size(report.freed)}) {would}removed"


def _superfluous(report: PruneReport) -> str:
    parts = []
    if report.unneeded:
        packs = output.count(report.unneeded, "pack")
        parts.append(f"{packs} ({output.size(report.unneeded_octets)}) needed by no snapshot")
    if report.marked:
        would = "would be" if report.dry_run else "are"
        parts.append(f"{output.count(report.marked, 'object')} {would} superfluous, to be removed by a later prune")
    return "; ".join(parts)


def _moved(report: PruneReport) -> str:
    parts = []
    if report.packs:
        parts.append(f"{output.count(report.packs, 'small pack')} ({output.size(report.octets)})")
    if report.repacked:
        parts.append(f"{output.count(report.repacked, 'pack')} needed in part ({output.size(report.repacked_octets)})")
    would, into = "would be " if report.dry_run else "", output.count(report.into, "new pack")
    return f"{' and '.join(parts)} {would}moved to {into} ({output.size(report.moved)})" if parts else ""


def _waiting(report: PruneReport) -> str:
    if not report.waiting:
        return ""
    locked = f", locked until {report.locked_until:%Y-%m-%d %H:%M} UTC" if report.locked_until else ""
    return f"{output.count(report.waiting, 'object')} waiting to be removed{locked}"
