"""`backupd restore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column
from backupd.errors import ServerError

if TYPE_CHECKING:
    from backupd.operations.restore import RestoreReport
    from backupd.operations.restore_task import RestoredMailbox
    from backupd.sources.base import Source

INCOMPLETE = 3


def command(
    snapshot: str,
    target: str,
    /,
    *,
    mailbox: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    missing_only: Annotated[bool, Parameter(show_default=False)] = False,
    into: str | None = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    context: Here,
) -> int:
    """Write a snapshot's mail to a server or to files. What is there already is not written again.

    Parameters
    ----------
    snapshot
        An id, the beginning of one, ACCOUNT@latest or ACCOUNT@2026-11-01T12:00.
    target
        imap:ACCOUNT, maildir:DIR, mbox:DIR, eml:DIR or zip:FILE.
    mailbox
        Only this mailbox and those below it, or those a pattern such as "Work/*" matches; may be repeated.
    missing_only
        Only messages that the account has nowhere any more.
    into
        Put all mailboxes below this one.
    dry_run
        Show what would be written, and write nothing.
    """
    from backupd.cli.progress import shown
    from backupd.operations.opening import target_opener
    from backupd.operations.restore import restore

    with context.repository(only_reads=True) as repository, context.state() as state:
        ref, _ = context.find(repository, snapshot)
        open_target = target_opener(context.config, target, into=into, secrets=repository.secrets)
        with shown(context) as observer, context.stopping() as stop, _naming(target):
            report = restore(
                repository,
                ref,
                open_target,
                mailboxes=mailbox or (),
                missing_only=missing_only,
                elsewhere=_elsewhere(context, target) if missing_only else None,
                dry_run=dry_run,
                state=state,
                observer=observer,
                stop=stop,
            )
    code = INCOMPLETE if any(map(_is_lacking, report.mailboxes)) or report.problems else 0
    if context.json:
        output.document({"report": report, "exit_code": code})
    else:
        _tell(context, report)
    return code


@contextmanager
def _naming(target: str) -> Iterator[None]:
    """Put the account's name before what a server's error says: host and port alone do not tell whose it is."""
    try:
        yield
    except ServerError as error:
        kind, _, account = target.partition(":")
        if kind == "imap":
            error.subject = f"{account}: {error.subject}" if error.subject else account
        raise


def _elsewhere(context: Context, target: str) -> Source | None:
    """The account that is restored to: a message that was moved to another mailbox there is not missing."""
    from backupd.operations.opening import open_source

    kind, _, account = target.partition(":")
    return open_source(context.config, account) if kind == "imap" else None


def _tell(context: Context, report: RestoreReport) -> None:
    verb = "TO WRITE" if report.dry_run else "WRITTEN"
    refused = any(each.refused for each in report.mailboxes)
    unreadable = any(each.unreadable for each in report.mailboxes)
    erased = any(each.erased for each in report.mailboxes)
    if not context.quiet:
        output.table(
            [
                Column("MAILBOX", shrink=True),
                Column("GOES TO", shrink=True),
                Column("MESSAGES", right=True),
                Column("THERE", right=True),
                Column(verb, right=True),
                *([Column("REFUSED", right=True)] if refused else []),
                *([Column("UNREADABLE", right=True)] if unreadable else []),
                *([Column("ERASED", right=True)] if erased else []),
            ],
            [
                (
                    each.name,
                    each.target_name,
                    f"{each.messages:,}",
                    f"{each.present:,}",
                    f"{_to_write(each) if report.dry_run else each.written:,}",
                    *([f"{each.refused:,}"] if refused else []),
                    *([f"{each.unreadable:,}"] if unreadable else []),
                    *([f"{each.erased:,}"] if erased else []),
                )
                for each in report.mailboxes
            ],
            ["yellow" if _is_lacking(each) else "" for each in report.mailboxes],
        )
        output.line()
    context.say(summary(report))
    for problem in report.problems:
        where = f"{problem.mailbox} UID {problem.uid}" if problem.uid is not None else problem.mailbox
        output.remark(f"{where}: {problem.what}")
    if unreadable:
        context.note("what could not be read is damaged: `backupd repair` mends it, or says what is lost")


def _is_lacking(mailbox: RestoredMailbox) -> bool:
    return bool(mailbox.refused or mailbox.unreadable or mailbox.altered)


def _to_write(mailbox: RestoredMailbox) -> int:
    return mailbox.messages - mailbox.present - mailbox.unreadable - mailbox.erased


def summary(report: RestoreReport) -> str:
    """One line about a restore."""
    present = sum(each.present for each in report.mailboxes)
    written = sum(each.written for each in report.mailboxes)
    erased = sum(each.erased for each in report.mailboxes)
    unreadable = sum(each.unreadable for each in report.mailboxes)
    left_out = f"{erased:,} left out, for {'it was' if erased == 1 else 'they were'} erased"
    if report.dry_run:
        to_write = sum(map(_to_write, report.mailboxes))
        would = f"{output.count(to_write, 'message')} would be written, {present:,} are there"
        would += f", {unreadable:,} cannot be read" if unreadable else ""
        would += f", {left_out}" if erased else ""
        return f"{report.target}: {would}; nothing was changed (dry run)"
    refused = sum(each.refused for each in report.mailboxes)
    altered = sum(each.altered for each in report.mailboxes)
    said = [f"{output.count(written, 'message')} written", f"{present:,} were there"]
    said += [f"{altered:,} of them with something left out"] if altered else []
    said += [f"{refused:,} refused"] if refused else []
    said += [f"{unreadable:,} could not be read"] if unreadable else []
    said += [left_out] if erased else []
    return f"{report.target}: {', '.join(said)}"
