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
_NAMED = 5
_ACCEPT = "and say so: `backupd record accept --reason ...`"
_REMOVE = "if no copy has a good one, remove the object yourself"
_LETTING_GO = {
    "keys/": f"a key slot that makes no sense opens nothing: {_REMOVE}; `backupd key add` makes another",
    "holds/": f"nothing is forgotten until each hold can be read: {_REMOVE}, hold again what is to be held, {_ACCEPT}",
    "erasures/": f"without it, what it erased may come back: {_REMOVE}, `backupd erase` it again, {_ACCEPT}",
    "log/": f"entries of the signed record are lost: {_REMOVE}, {_ACCEPT}",
}
"""What to do about an object of a kind that nothing else makes up for."""


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
    for line in _some(list(_put_back(report)), "more, see --json"):
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
    for line in _some([_lost(each, report) for each in report.lost], "more objects are lost, see --json"):
        output.remark(line)
    _tell_affected(report)
    for line in () if report.opened is False else ways_out(report):
        output.remark(line)
    for note in report.notes:
        context.note(note)
    read = f"{output.count(report.objects, 'object')} ({output.size(report.octets)}) read"
    amiss = f"{len(report.mended) + len(report.lost):,} amiss" if report.mended or report.lost else "nothing amiss"
    mended = f", {len(report.mended):,} {'can be ' if report.dry_run else ''}mended" if report.mended else ""
    context.say(f"{report.repository}: {read}, {amiss}{mended}{_messages(report)}")
    if offline and report.affected:
        context.note("no mail server was asked; without --offline, messages that are still there are fetched again")


def _lost(each: Lost, report: RepairReport) -> str:
    what = f"{each.account}: snapshot {each.object.rpartition('/')[2]}" if each.account else each.object
    verb = "would stay so" if report.dry_run else "stays so"
    why = "nothing good was found to put in its place"
    if each.object.startswith("packs/") and report.fetched:
        why += ", and not all that it held can be had from the mail server"
    return f"{what} is {each.why}, and {verb}: {why}"


def _put_back(report: RepairReport) -> Iterator[str]:
    """What has become of each object that was amiss, or would."""
    from backupd.operations.repair_report import PACKS, PARITY, SERVER

    for each in report.mended:
        would, is_gone = ("would be", "could be removed") if report.dry_run else ("was", "is removed")
        if each.source == SERVER:
            did = f"{is_gone}: what it held {'can be had' if report.dry_run else 'comes'} from the mail server"
        elif each.source == PACKS and each.object.startswith("index/"):
            did = f"{is_gone}: what it told {would} told anew from the packs"
        elif each.source == PACKS:
            did = f"{is_gone}: what it held is in other packs"
        elif each.source == PARITY:
            did = f"{would} put back from parity"
        else:
            source = "a version of it" if each.source == report.repository else each.source
            did = f"{would} put back from {source}"
        yield f"{each.object}: it {'is' if report.dry_run else 'was'} {each.why}, and {did}"


def ways_out(report: RepairReport) -> Iterator[str]:
    """What stays lost for certain, whose it is, and what to do so that audits are content again."""
    stays = "would stay" if report.dry_run else "stays"
    for each in report.concerned:
        whose = each.account or "an account that is not configured"
        if each.snapshots:
            some = f"{output.count(len(each.snapshots), 'snapshot')}: {_few(each.snapshots)}"
            lost = f"{output.count(each.messages, 'message')} of {_few(each.mailboxes)}, in " if each.messages else ""
            yield f"{whose}: {stays} lost: {lost}{some}"
        if each.unlisted:
            can = f"{output.count(each.unlisted, 'message')} can be restored as before"
            yield f"{whose}: {can}, but lists tell no sender and subject, and audits warn of it"
    if any(each.snapshots or each.unlisted for each in report.concerned):
        yield (
            "if no copy and no server has it any more, let go of it: `backupd backup` (from then on new snapshots list "
            "no lost mail), `backupd forget --snapshot ID` for each of these, `backupd repair` once more; "
            "then audits are content"
        )
    for prefix, way in _LETTING_GO.items():
        if any(each.object.startswith(prefix) for each in report.lost):
            yield way


def _few(some: list[str]) -> str:
    more = f" and {len(some) - _NAMED:,} more (see --json)" if len(some) > _NAMED else ""
    return ", ".join(some[:_NAMED]) + more


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
