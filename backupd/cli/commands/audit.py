"""`backupd audit`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from backupd.cli import monitoring, output
from backupd.cli.context import Context, Here
from backupd.errors import StorageError, UsageError

if TYPE_CHECKING:
    from backupd.operations.audit_report import AuditedAccount, AuditReport, Wish
    from backupd.operations.state import State
    from backupd.repository.repository import Repository
    from backupd.storage.base import Storage

_BUDGET = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)\s*%?\Z")
_SHOWN = 20

LevelName = Literal["freshness", "metadata", "storage", "content", "source", "drill"]


def command(
    *account: str,
    level: LevelName | None = None,
    budget: str | None = None,
    since: str | None = None,
    full: Annotated[bool, Parameter(show_default=False)] = False,
    into: str | None = None,
    html: Path | None = None,
    record: Path | None = None,
    context: Here,
) -> int:
    """Prove that what is stored can be restored, and say what is damaged. Changes nothing in the repository.

    The first line is for monitors, and so is the exit code: 0 all is well, 1 warning, 2 critical, 3 unknown.

    Parameters
    ----------
    account
        Only these accounts; all when none is given.
    level
        How deep: freshness, metadata (the default), storage (the default without a key), content, source, drill. Each
        includes the ones before, as far as the key goes.
    budget
        The share of the stored bytes to read this time, such as 5%: what was read longest ago comes first.
    since
        Only snapshots of this time or later, such as 2026-11-01T12:00, and what was stored since then.
    full
        Let the drill restore whole accounts, and not a sample.
    into
        Let the drill restore to imap:ACCOUNT, below a mailbox of its own that is removed again, and not to a Maildir.
    html
        Write the report to this file, too, for people to read and print.
    record
        Compare the signed record with this file, which `backupd record export` wrote; on a host without a key, too.
    """
    from backupd.cli import audit_page
    from backupd.cli.progress import shown
    from backupd.operations import audit_opening, record_check, record_export
    from backupd.operations.audit import Means, audit
    from backupd.operations.opening import open_copies

    config = context.config
    wish = _wish(context, account, level, budget, since, full=full, exported=record is not None)
    if (full or into is not None) and wish.level != "drill":
        raise UsageError("this is about drills", subject="--full" if full else "--into", remedy="add --level drill")
    exported = record_export.load(record) if record is not None else None

    def clock() -> datetime:
        return datetime.now(UTC)

    with ExitStack() as stack:
        state = stack.enter_context(_state(context))
        means = Means(
            state,
            clock,
            open_copies(config),
            audit_opening.servers(config),
            audit_opening.scratch(config, into),
            record_check.checker(
                state, config.accounts, exported=exported, is_copy=context.copy is not None, clock=clock
            ),
            record_check.appender(state, clock) if context.copy is None else None,
            record_check.why_gone(state, clock),
        )
        observer, stop = stack.enter_context(shown(context)), stack.enter_context(context.stopping())
        storage = context.storage()
        opener = None if config.repository.keyless else _opener(context, storage, state, stack)
        report = audit(storage, opener, wish, means, observer=observer, stop=stop)
    if html is not None:
        audit_page.write(report, html)
    code = monitoring.CODES[report.outcome]
    if context.json:
        output.document({"line": monitoring.first_line(report), "report": report, "exit_code": code})
        return code
    output.line(monitoring.first_line(report))
    if not context.quiet:
        _tell(report)
    return code


def _wish(
    context: Context,
    accounts: tuple[str, ...],
    level: str | None,
    budget: str | None,
    since: str | None,
    *,
    full: bool,
    exported: bool,
) -> Wish:
    from backupd.operations.audit_report import Level, Wish
    from backupd.operations.find_snapshot import moment

    config = context.config
    usual = Level.STORAGE if config.repository.keyless else Level.METADATA
    return Wish(
        level=Level(level) if level else usual,
        objectives=config.objectives(accounts or None),
        alone=bool(accounts),
        budget=_share(budget) if budget is not None else None,
        since=moment(since) if since is not None else None,
        full=full,
        exported=exported,
    )


def _share(text: str) -> float:
    """A share from 0 to 1. Raises UsageError."""
    match = _BUDGET.match(text.strip())
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise UsageError("not a share of the bytes", subject=f"--budget {text}", remedy="write a percentage, as 5%")
    return share


@contextmanager
def _state(context: Context) -> Iterator[State | None]:
    """The state directory; None where it cannot be had, for what is in the repository can be judged without it."""
    with ExitStack() as opened:
        state = None
        try:
            state = opened.enter_context(context.state())
        except StorageError as error:
            context.note(f"{error}; going on without what earlier runs left")
        yield state


def _opener(context: Context, storage: Storage, state: State | None, stack: ExitStack) -> Callable[[], Repository]:
    """What opens the repository; without a state directory, with an index cache of its own."""

    def open_it() -> Repository:
        from backupd.operations.opening import open_repository

        if state is not None:
            return open_repository(context.config, storage)
        import tempfile

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backupd-audit-")))
        return open_repository(context.config.model_copy(update={"state_dir": folder}), storage)

    return open_it


def _tell(report: AuditReport) -> None:
    from backupd.cli.audit_page import coverage

    for finding in report.findings:
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        output.line(f"{finding.severity}: {finding.subject}: {finding.what}{remedy}")
    for each in report.affected[:_SHOWN]:
        uids = f"UID {each.uid}" if each.uid == each.last else f"UIDs {each.uid} to {each.last}"
        shown = f" {each.date or ''} {each.sender or ''}: {each.subject}" if each.subject is not None else ""
        some = f"{output.count(len(each.snapshots), 'snapshot')}, the newest {each.snapshots[-1]}"
        output.line(f"  {each.account}: {each.mailbox} {uids}{shown}: {each.what} ({some})")
    more = len(report.affected) - _SHOWN + report.affected_more
    if more > 0:
        output.line(f"  and {more:,} more; --json and --html list them")
    for account in report.accounts:
        for text in _about(account):
            output.line(f"{account.account}: {text}")
    for text in coverage(report):
        output.line(text)
    for text in report.left_out:
        output.line(f"not looked at: {text}")


def _about(account: AuditedAccount) -> Iterator[str]:
    """What was compared with the server, and what was restored."""
    if found := account.source:
        same = f"{output.count(found.agreed, 'message')} in {output.count(found.mailboxes, 'mailbox', 'mailboxes')}"
        since = f"{found.new:,} new, {found.gone:,} gone, {found.changed:,} changed"
        yield f"{same} as on the server, {found.bodies:,} compared byte by byte; since the snapshot {since}"
    if tried := account.drill:
        yield (
            f"{output.count(tried.messages, 'message')} ({output.size(tried.octets)}) restored to {tried.target} in "
            f"{tried.seconds:.1f} s, and compared"
        )
        how = "measured" if tried.full else "reckoned from this"
        total = f"{output.count(tried.total_messages, 'message')}, {output.size(tried.total_octets)}"
        yield f"restoring all of it ({total}) takes {tried.total_seconds:.1f} s, {how}"
