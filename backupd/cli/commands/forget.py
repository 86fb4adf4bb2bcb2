"""`backupd forget`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column
from backupd.errors import UsageError

if TYPE_CHECKING:
    from backupd.operations.forget import ForgetReport, Line
    from backupd.operations.retention import Rules
    from backupd.repository.repository import Repository


def command(
    account: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    /,
    *,
    snapshot: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    keep_last: int | None = None,
    keep_hourly: int | None = None,
    keep_daily: int | None = None,
    keep_weekly: int | None = None,
    keep_monthly: int | None = None,
    keep_yearly: int | None = None,
    keep_within: str | None = None,
    context: Here,
) -> int:
    """Remove the snapshots that no rule of `retention`, no hold and no pin keeps. `backupd prune` frees the space.

    Parameters
    ----------
    account
        These accounts; else all that are configured.
    snapshot
        Forget this one, whatever the rules say, also if it cannot be read; may be repeated.
    dry_run
        Show for each snapshot what keeps it, and remove nothing.
    keep_last
        In place of what is configured: the newest so many; 0 for none.
    keep_hourly
        The last of each of so many hours; and so on.
    keep_within
        All that are less than this, such as 7d, older than the newest.
    """
    from backupd.cli.progress import shown
    from backupd.operations.find_snapshot import find_ref
    from backupd.operations.forget import forget, forget_snapshots

    given = {
        "keep_last": keep_last, "keep_hourly": keep_hourly, "keep_daily": keep_daily, "keep_weekly": keep_weekly,
        "keep_monthly": keep_monthly, "keep_yearly": keep_yearly, "keep_within": _within(keep_within),
    }  # fmt: skip
    overrides = {key: value for key, value in given.items() if value is not None}
    if any(isinstance(value, int) and value < 0 for value in overrides.values()):
        raise UsageError("a number below 0 keeps nothing", remedy="write 0 for none")
    if snapshot and (account or overrides):
        raise UsageError("--snapshot names what goes; accounts and rules have no say in it", remedy="leave them out")
    with context.repository() as repository, context.state() as state, context.stopping() as stop:
        rules = {} if snapshot else _rules(context, repository, account or [], overrides)
        configured = list(context.config.accounts)
        refs = [find_ref(repository, each, configured) for each in snapshot or ()]
        with shown(context) as observer:
            options = {"state": state, "now": datetime.now(UTC), "dry_run": dry_run, "observer": observer, "stop": stop}
            if refs:
                report = forget_snapshots(repository, refs, accounts=configured, **options)  # type: ignore[arg-type]
            else:
                report = forget(repository, rules, **options)  # type: ignore[arg-type]
    if context.json:
        output.document({"report": report, "exit_code": 0})
    elif dry_run:
        _table(report, named=bool(refs))
    _tell(context, report, named=bool(refs))
    return 0


def _within(text: str | None) -> object:
    from backupd.config.times import duration

    try:
        return duration(text) if text is not None else None
    except ValueError as error:
        raise UsageError(str(error), subject="--keep-within") from None


def _rules(
    context: Context, repository: Repository, accounts: list[str], overrides: dict[str, object]
) -> dict[str, Rules]:
    import msgspec

    from backupd.operations.forget import rules_of

    for name in accounts:
        if name not in context.config.accounts and not repository.refs(name):
            there = ", ".join(sorted(context.config.accounts)) or "none"
            raise UsageError(
                "no account of this name, and no snapshot of one", subject=name, remedy=f"there are: {there}"
            )
    found = rules_of(context.config, accounts)
    return {name: msgspec.structs.replace(rules, **overrides) for name, rules in found.items()}


def _table(report: ForgetReport, *, named: bool) -> None:
    output.table(
        [
            Column("ID"),
            Column("TIME (UTC)"),
            Column("ACCOUNT"),
            Column("MESSAGES", right=True),
            Column(""),
            Column("WHY", shrink=True),
        ],
        [
            (
                line.id[-8:],
                line.time[:16].replace("T", " "),
                line.account,
                f"{line.messages:,}",
                "keep" if line.reasons else "locked" if line.locked_until else "forget",
                _why(line, "named" if named else "no rule keeps it"),
            )
            for line in report.snapshots
        ],
        ["" if line.reasons else "yellow" for line in report.snapshots],
    )


def _why(line: Line, going: str) -> str:
    if line.locked_until:
        return f"{going}; locked until {line.locked_until:%Y-%m-%d %H:%M}"
    return ", ".join(line.reasons) or f"{_kind(line)}{going}"


def _kind(line: Line) -> str:
    if line.damaged:
        return "cannot be read; "
    return "a backup that did not end; " if line.checkpoint else "" if line.complete else "not complete; "


def _tell(context: Context, report: ForgetReport, *, named: bool) -> None:
    for name in report.without_rules:
        context.note(f"{name}: there is no rule for it in retention, so all of its snapshots stay")
    for line in report.snapshots if named else ():
        if line.damaged and not line.locked_until:
            given_up = "would be given up" if report.dry_run else "is given up"
            whose = line.account or "an account that is not configured"
            context.note(f"{whose}: snapshot {line.id} cannot be read; with it that point in time {given_up}")
    did = "would be forgotten" if report.dry_run else "forgotten"
    text = f"{output.count(report.forgotten, 'snapshot')} {did}" + ("" if named else f", {report.kept:,} kept")
    if report.locked and report.locked_until:
        text += f", {report.locked:,} to go when their locks end, the last at {report.locked_until:%Y-%m-%d %H:%M} UTC"
    context.say(f"{report.repository}: {text}")
    if report.forgotten and not report.dry_run:
        context.note("`backupd prune` frees the space that only they needed")
