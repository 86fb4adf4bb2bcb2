"""`backupd repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backupd.operations.audit_report import Affected
    from backupd.operations.repair_report import Lost, RepairReport

INCOMPLETE = 3
_SHOWN = 20


def command(
    *,
    removed_since: str | None = None,
    quick: bool = False,
    offline: bool = False,
    dry_run: bool = False,
    context: Here,
) -> int:
    """Put good objects in the place of damaged and missing ones, fetch lost mail again, and say what stays lost.

    Objects come from copies, from versions that the bucket kept, or from parity; messages from the mail server, if it
    still has them. The exit code is 3 when something stays lost.

    Parameters
    ----------
    removed_since
        Bring back what was removed at this time or later, such as 2026-11-01T12:00, snapshots and all; and whatever a
        copy has and the repository has not.
    quick
        Do not read every object; only packs that are missing, or of a wrong size, are found.
    offline
        Ask no mail server for messages that are lost.
    dry_run
        Show what would be put back and fetched, and change nothing.
    """
    from backupd.cli.progress import shown
    from backupd.operations import audit_opening
    from backupd.operations.find_snapshot import moment
    from backupd.operations.opening import at_copy, open_repository
    from backupd.operations.repair import repair

    config = context.config
    since = moment(removed_since) if removed_since is not None else None
    with context.state() as state, shown(context) as observer, context.stopping() as stop:
        report = repair(
            context.storage(),
            [context.storage(at_copy(config, each.url)) for each in config.copies],
            lambda storage: open_repository(config, storage),
            accounts=list(config.accounts),
            servers=None if offline else audit_opening.servers(config),
            removed_since=since,
            quick=quick,
            dry_run=dry_run,
            state=state,
            observer=observer,
            stop=stop,
        )
    code = 0 if report.is_whole else INCOMPLETE
    if context.json:
        output.document({"report": report, "exit_code": code})
    _tell(context, report, offline=offline)
    return code


def _tell(context: Context, report: RepairReport, *, offline: bool) -> None:
    for line in _some(list(_put_back(report)), "more"):
        context.say(line)
    for each in report.fetched:
        what = f"{output.count(each.messages, 'lost message')} ({output.size(each.octets)})"
        verb = "can be fetched again from the mail server" if report.dry_run else "fetched again from the mail server"
        context.say(f"{each.account}: {what} {verb}")
    if report.indexed:
        told = "would be told of in the index" if report.dry_run else "told of in the index again"
        context.say(f"{output.count(report.indexed, 'pack')} {told}")
    if report.parity:
        context.say(f"{output.count(report.parity, 'object')} {'would get' if report.dry_run else 'got'} parity")
    for line in _some([_lost(each) for each in report.lost], "more objects are lost"):
        output.remark(line)
    _tell_affected(report)
    for note in report.notes:
        context.note(note)
    read = f"{output.count(report.objects, 'object')} ({output.size(report.octets)}) read"
    amiss = f"{len(report.mended) + len(report.lost):,} amiss" if report.mended or report.lost else "nothing amiss"
    mended = f", {len(report.mended):,} {'can be ' if report.dry_run else ''}mended" if report.mended else ""
    context.say(f"{report.repository}: {read}, {amiss}{mended}{_messages(report)}")
    if offline and report.affected:
        context.note("no mail server was asked; without --offline, messages that are still there are fetched again")


def _lost(each: Lost) -> str:
    what = f"{each.account}: snapshot {each.object.rpartition('/')[2]}" if each.account else each.object
    return f"{what} is {each.why}, and nothing good was found to put in its place"


def _put_back(report: RepairReport) -> Iterator[str]:
    from backupd.operations.repair_report import PACKS, SERVER

    for each in report.mended:
        if each.source in (PACKS, SERVER):
            did = "can be done without" if report.dry_run else "is superfluous now, and removed"
            yield f"{each.object}, which was {each.why}, {did}: what it held is in other packs"
        else:
            source = "a version of it" if each.source == report.repository else each.source
            did = "would put back" if report.dry_run else "put back"
            yield f"{did} {each.object}, which was {each.why}, from {source}"


def _messages(report: RepairReport) -> str:
    if not report.damaged:
        return ""
    fetched = sum(each.messages for each in report.fetched)
    done = "can be fetched again" if report.dry_run else "fetched again"
    return f"; {output.count(report.damaged, 'message')} damaged, {fetched:,} {done}"


def _tell_affected(report: RepairReport) -> None:
    """What stays lost: a line for each mailbox, then the messages, as many as a person reads."""
    from backupd.operations.audit_snapshots import summed_up

    for finding in summed_up(report.affected, report.affected_more):
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        output.remark(f"{finding.subject}: {finding.what}{remedy}")
    for line in _some([_message(each) for each in report.affected], "more, see --json"):
        output.remark(line)


def _message(each: Affected) -> str:
    uids = f"UID {each.uid}" if each.uid == each.last else f"UIDs {each.uid} to {each.last}"
    shown = ", ".join(filter(None, (each.date, each.sender, each.subject)))
    snapshots = each.snapshots[-1] if each.snapshots else ""
    others = f" and {len(each.snapshots) - 1:,} before" if len(each.snapshots) > 1 else ""
    return f"{each.account}: {each.mailbox} {uids}: {each.what}{f' [{shown}]' if shown else ''}; in {snapshots}{others}"


def _some(lines: list[str], more: str) -> list[str]:
    left = len(lines) - _SHOWN
    return lines if left <= 0 else [*lines[:_SHOWN], f"... and {left:,} {more}"]
