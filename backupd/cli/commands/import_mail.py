"""`backupd import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here

if TYPE_CHECKING:
    from backupd.operations.backup_report import BackupReport
    from backupd.operations.import_mail import ImportPlan

INCOMPLETE = 3


def command(
    account: str,
    path: Path,
    *,
    format: str | None = None,  # noqa: A002 - the option's name
    into: str = "",
    exact: bool = False,
    dry_run: bool = False,
    context: Here,
) -> int:
    """Take in mail from local files: a snapshot of the account with it beside what the account has already.

    Importing the same files again adds only what is new. Nothing is changed in the files.

    Parameters
    ----------
    account
        Its name in the configuration.
    path
        A mail program's profile or folder, a Maildir, an mbox file, a tree of .eml files ...
    format
        What it is, where that is not recognised; a wrong one is an error that lists all there are.
    into
        A mailbox below which all goes, such as "Old computer".
    exact
        Take every octet as it is in the files. Without it, lines that end with LF get CRLF, as mail has it on servers,
        and what mail programs wrote into messages for themselves is left out.
    dry_run
        Only tell what would be added, by mailbox.
    """
    from backupd.cli.progress import shown
    from backupd.operations.import_mail import import_mail, plan_import
    from backupd.sources.local import detect

    context.not_at_a_copy("import")
    context.config.account(account)
    found = detect.chosen(path, format)
    store = found.open(path, exact=exact)
    if dry_run:
        with context.repository() as repository:
            plans = plan_import(repository, store, account, into=into)
        _tell_plan(context, store.kind, plans)
        return 0
    with (
        context.repository() as repository,
        context.state() as state,
        shown(context) as observer,
        context.stopping() as stop,
    ):
        report = import_mail(repository, store, account, state=state, into=into, observer=observer, stop=stop)
    code = INCOMPLETE if report.problems else 0
    if context.json:
        output.document({"import": report, "format": found.name, "exit_code": code})
    _tell(context, store.kind, report)
    return code


def _tell(context: Context, kind: str, report: BackupReport) -> None:
    read = report.new + report.recognised
    said = [f"{report.account}: {kind}: {output.count(read, 'message')} read"]
    if report.snapshot is None:
        said.append("nothing is new")
    else:
        said.append(f"{report.new:,} added ({output.size(report.downloaded)})")
        if report.recognised:
            said.append(f"{report.recognised:,} were there already")
        if report.changed:
            said.append(f"{report.changed:,} of them with other flags")
        if report.vanished:
            said.append(f"{report.vanished:,} filed elsewhere")
        said.append(f"{output.size(report.stored)} stored, snapshot {report.snapshot[-8:]}")
    context.say(", ".join(said))
    for problem in report.problems:
        where = f"{problem.mailbox}: " if problem.mailbox else ""
        output.remark(f"{report.account}: {where}{problem.what}")
    for note in report.notes:
        context.note(f"{report.account}: {note}")


def _tell_plan(context: Context, kind: str, plans: list[ImportPlan]) -> None:
    if context.json:
        output.document({"kind": kind, "mailboxes": plans})
        return
    width = max((len(output.clean(plan.mailbox)) for plan in plans), default=0)
    for plan in plans:
        context.say(f"{output.clean(plan.mailbox):{width}}  {plan.messages:>9,} messages  {plan.new:>9,} new")
    new = sum(plan.new for plan in plans)
    context.say(f"{kind}: {output.count(new, 'message')} would be added")
