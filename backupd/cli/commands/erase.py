"""`backupd erase`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column
from backupd.errors import UsageError

if TYPE_CHECKING:
    from backupd.mail.query import Query
    from backupd.operations.erase_report import EraseReport

INCOMPLETE = 3
_SHOWN = 20


def command(
    *account: str,
    query: str | None = None,
    reason: str | None = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    what_is_allowed: Annotated[bool, Parameter(show_default=False)] = False,
    although_locked: Annotated[bool, Parameter(show_default=False)] = False,
    finish: Annotated[bool, Parameter(show_default=False)] = False,
    yes: Annotated[bool, Parameter(show_default=False)] = False,
    context: Here,
) -> int:
    """Take messages out of every snapshot for good. `backupd prune` removes their octets; nothing brings them back.

    Parameters
    ----------
    account
        Look for them only in these accounts; what is found is erased in all that have the same message.
    query
        Which messages, such as from:ann@example.com.
    reason
        Why, for whoever misses them; it stays for ever, so leave the person's name out of it.
    dry_run
        Show what would go, and change nothing.
    what_is_allowed
        Erase what no hold and no lock keeps, and leave the rest; else nothing is erased then.
    although_locked
        Erase what a lock of the bucket keeps, too: now for all who read, and its octets when the lock ends.
    finish
        Erase nothing more, and finish what was erased while backups or other erasures were under way.
    yes
        Do not ask.
    """
    from backupd.mail.query import parse
    from backupd.operations.erase import erase

    context.not_at_a_copy("erase")
    wanted = _wanted(query, finish=finish)
    found = parse(query) if wanted and query is not None else None
    if found and reason is None and not dry_run:
        raise UsageError(
            "whoever misses these messages reads why they are gone", subject="--reason", remedy="write one"
        )
    if found and not (dry_run or yes) and (context.json or not sys.stdin.isatty()):
        raise UsageError("there is nobody to ask", subject="erase", remedy="add --yes, or --dry-run to see what goes")
    options: dict[str, object] = {"what_is_allowed": what_is_allowed, "although_locked": although_locked}
    if found and not (dry_run or yes):
        preview = _run(context, erase, found, account, reason, {**options, "dry_run": True})
        _table(preview)
        _tell(context, preview)
        if not preview.messages:
            return INCOMPLETE if preview.forbidden or preview.unread else 0
        if not _agreed(preview):
            context.say("nothing was erased")
            return 0
    report = _run(context, erase, found, account, reason, {**options, "dry_run": dry_run})
    code = INCOMPLETE if report.forbidden or report.unread else 0
    if context.json:
        output.document({"report": report, "exit_code": code})
        return code
    if dry_run:
        _table(report)
    _tell(context, report, finishing=finish)
    return code


def _wanted(query: str | None, *, finish: bool) -> bool:
    if finish == (query is not None):
        remedy = "write --query from:ann@example.com, or --finish alone"
        raise UsageError("which messages?", subject="--query", remedy=remedy)
    return not finish


def _run(
    context: Context, erase: object, query: Query | None, accounts: tuple[str, ...], reason: str | None,
    options: dict[str, object],
) -> EraseReport:  # fmt: skip
    import msgspec

    from backupd.cli.progress import shown

    with (
        context.repository() as repository,
        context.state() as state,
        shown(context) as observer,
        context.stopping() as stop,
    ):
        for name in accounts:
            if name not in context.config.accounts and not repository.refs(name):
                there = ", ".join(sorted(context.config.accounts)) or "none"
                raise UsageError(
                    "no account of this name, and no snapshot of one", subject=name, remedy=f"there are: {there}"
                )
        report: EraseReport = erase(  # type: ignore[operator]
            repository, query, accounts, reason=reason or "", state=state, now=datetime.now(UTC), observer=observer,
            stop=stop, **options,
        )  # fmt: skip
    return msgspec.structs.replace(report, copies=[each.url for each in context.config.copies])


def _agreed(report: EraseReport) -> bool:
    sys.stderr.write(f"Erase {output.count(report.messages, 'message')} for good? Nothing brings them back. [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _table(report: EraseReport) -> None:
    output.table(
        [
            Column("ID"),
            Column("ACCOUNT"),
            Column("MAILBOX"),
            Column("UID", right=True),
            Column("DATE"),
            Column("SNAPSHOTS", right=True),
            Column("FROM", shrink=True),
            Column("SUBJECT", shrink=True),
            *([Column("KEPT BY", shrink=True)] if report.forbidden else []),
        ],
        [
            (
                each.id[:16],
                each.account,
                each.mailbox,
                str(each.uid),
                output.mail_date(each.date),
                f"{each.snapshots:,}",
                each.sender,
                each.subject,
                *([each.kept_by] if report.forbidden else []),
            )
            for each in report.shown
        ],
        ["yellow" if each.kept_by else "" for each in report.shown],
    )
    if (more := report.messages + report.forbidden - len(report.shown)) > 0:
        output.line(f"and {more:,} more")


def _tell(context: Context, report: EraseReport, *, finishing: bool = False) -> None:
    for what in report.unread[:_SHOWN]:
        output.remark(f"not looked at: {what}")
    if len(report.unread) > _SHOWN:
        output.remark(f"... and {len(report.unread) - _SHOWN:,} more")
    if report.unread:
        again = "finish" if finishing else "erase"
        output.remark(f"mend that (`backupd repair`), and {again} again: what was not looked at may be meant")
    context.say(f"{report.repository}: {_erased(report, finishing=finishing)}")
    if report.unlisted:
        found = output.count(report.unlisted, "message")
        context.say(f"{found} that no snapshot lists {'would go' if report.dry_run else 'go'} with them")
    if report.forbidden:
        end = f"until {report.until:%Y-%m-%d %H:%M} UTC" if report.until else "until somebody ends that"
        context.say(f"{output.count(report.forbidden, 'message')} kept, the last {end}: {_kept_by(report)}")
    if report.goes:
        packs, go = output.count(report.packs, "pack"), "would go" if report.dry_run else "go"
        context.say(f"{output.size(report.goes)} in {packs} {go} with the next prunes")
    if report.anew:
        context.say(f"{output.size(report.anew)} of other mail were stored anew, as they shared blocks with it")
    if not report.dry_run and report.goes:
        context.note("run `backupd prune` now, and once more when its grace period is over")
        for url in report.copies:
            context.note(f"{url} has it all until `backupd copy` and then `backupd prune --copy {url}` have run, too")


def _erased(report: EraseReport, *, finishing: bool) -> str:
    seen = " of what could be looked at" if report.unread else ""
    if finishing:
        return "finished" if report.erasure or report.anew else f"nothing is left{seen} to be finished"
    if not report.messages:
        if report.forbidden:
            return "no message is meant that may be erased"
        return f"no message{seen} is meant, or all are gone"
    would = "would be " if report.dry_run else ""
    messages = f"{output.count(report.messages, 'message')} ({output.size(report.octets)})"
    snapshots = output.count(report.snapshots, "snapshot")
    return f"{messages} of {', '.join(report.accounts)}, in {snapshots}, {would}erased"


def _kept_by(report: EraseReport) -> str:
    reasons = dict.fromkeys(each.kept_by for each in report.shown if each.kept_by)
    shown = list(reasons)[:3]
    return "; ".join(shown) + (" and others" if len(reasons) > len(shown) else "")
