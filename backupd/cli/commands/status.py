"""`backupd status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column
from backupd.errors import BackupdError, NoDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backupd.config import Config
    from backupd.daemon.board import Job, Live
    from backupd.daemon.control import Control
    from backupd.daemon.report import AccountReport, DaemonReport, Report
    from backupd.operations.audit_state import Audit
    from backupd.operations.costs import Costs

ALONE = 3
"""Accounts of which the same is said in lines of their own, or that are named when there are more."""
_STYLES = {"ok": "", "warning": "yellow", "critical": "red"}


def command(*accounts: str, trouble: bool = False, context: Here) -> int:
    """Show for each account when it was backed up last, and whether that is good enough; where the daemon runs also
    what it does and when it does it next; and what the repository holds, and its bucket was asked for. Asks no mail
    server.

    The exit code is 0 however the accounts stand.

    Parameters
    ----------
    accounts
        Their names in the configuration; none means all.
    trouble
        Only accounts that are not ok.
    """
    for name in accounts:
        context.config.account(name)
    found = _from_daemon(context, accounts) or _from_repository(context, accounts)
    shown = [account for account in found.accounts if not trouble or account.level.value != "ok"]
    if context.json:
        import msgspec

        output.document(msgspec.structs.replace(found, accounts=shown))
        return 0
    _table(shown, running=found.daemon is not None)
    for text in _remarks(shown):
        output.line(text)
    if found.daemon:
        for text in _daemon(found.accounts, found.daemon):
            context.say(text)
    if found.repository:
        for text in _costs(found.repository):
            context.say(text)
    for text in _audits(context):
        context.say(text)
    for text in _undelivered(context):
        output.line(text)
    return 0


def _audits(context: Context) -> Iterator[str]:
    """The last audit of each level, unless it failed and a later one has made up for that; and what failed before,
    and no later one has made up for."""
    from backupd.operations import audit_history
    from backupd.operations.opening import open_repository_storage

    with context.state() as state:
        found = audit_history.latest(state, open_repository_storage(context.config).url)
    for level in sorted(found, key=lambda each: each.last.number, reverse=True):
        if level.made_up is None:
            yield f"last audit of the level {_audit(level.last)}"
        if level.failed not in (None, level.last):
            yield f"an audit of the level {_audit(level.failed)}; none since has looked at all of that again"


def _audit(audit: Audit) -> str:
    scope = audit.scope
    parts = [", ".join(scope.accounts)] if scope.accounts else []
    parts += [f"{100 * scope.budget:g}% of the bytes"] if scope.budget is not None else []
    parts += [f"since {output.local_time(scope.since.isoformat())[:16]}"] if scope.since else []
    some = f" ({'; '.join(parts)})" if parts else ""
    return f"{audit.level}{some}: {output.local_time(audit.started)}, {audit.outcome}"


def _undelivered(context: Context) -> Iterator[str]:
    from backupd.operations.notify import undelivered

    with context.state() as state:
        lost = undelivered(state)
    if lost:
        messages = output.count(len(lost), "message")
        yield f"{messages} about trouble did not arrive, the last: {lost[-1].subject}; see backupd notify"


def _from_daemon(context: Context, accounts: Sequence[str]) -> Report | None:
    """What the daemon says; None without one, with a word where there should be one."""
    if context.copy is not None:
        return None  # it works on the repository, not on its copies
    from backupd.daemon.control import Control

    control = Control(Path(context.config.state_dir))
    try:
        return control.status(accounts)
    except NoDaemon as error:
        if _is_expected(context.config, control):
            context.note(str(error))
    except BackupdError as error:
        context.note(str(error))
    return None


def _is_expected(config: Config, control: Control) -> bool:
    """Whether a daemon should run: one has, or there are schedules. Whoever has cron back up has neither."""
    sections = (config, *config.accounts.values())
    return control.has_been or any("schedule" in section.model_fields_set for section in sections)


def _from_repository(context: Context, accounts: Sequence[str]) -> Report:
    from backupd.daemon.report import without_daemon
    from backupd.operations.status import status

    objectives = context.config.objectives(accounts or None)
    with context.repository() as repository, context.state() as state:
        return without_daemon(status(repository, state, objectives, datetime.now(UTC)))


def _table(accounts: Sequence[AccountReport], *, running: bool) -> None:
    output.table(
        [
            Column("ACCOUNT", shrink=True),
            Column("STATE"),
            Column("BACKED UP"),
            Column("OBJECTIVE"),
            Column("MESSAGES", right=True),
            Column("SIZE", right=True),
            Column("NEXT RUN" if running else "LAST RUN"),
        ],
        [_row(account, running=running) for account in accounts],
        [_STYLES[account.level.value] for account in accounts],
    )


def _row(account: AccountReport, *, running: bool) -> tuple[str, ...]:
    last = account.last_run.outcome if account.last_run else "none"
    return (
        account.account,
        account.level.value,
        f"{_age(account.age)} ago" if account.age is not None else "unknown" if account.proved else "never",
        _age(account.objective) if account.objective else "none",
        f"{account.messages:,}",
        output.size(account.octets),
        _next(account) if running else last,
    )


def _age(seconds: float) -> str:
    return output.age(timedelta(seconds=seconds))


def _next(account: AccountReport) -> str:
    live = account.now
    if account.doing == "running":
        return f"running, {_share(live)}" if live.planned else "running"
    if account.doing == "waiting":
        return "waits"
    if account.doing == "held":
        return f"held, {_until(live.held_until)}"
    if live.watching in ("notify", "idle"):
        return "watched"
    return f"in {_until(live.next_run)}" if live.next_run else "none"


def _share(live: Live) -> str:
    return f"{min(99, 100 * live.messages // live.planned)}%"


def _until(time: datetime | None) -> str:
    return output.age(max(timedelta(), time - datetime.now(UTC))) if time else ""


def _since(time: datetime) -> str:
    return output.age(max(timedelta(), datetime.now(UTC) - time))


def _remarks(accounts: Sequence[AccountReport]) -> Iterator[str]:
    """What is to be said of each account; what is to be said of many is said once."""
    said: dict[str, list[str]] = {}
    for account in accounts:
        for text in _remarks_on(account):
            said.setdefault(text, []).append(account.account)
    for text, names in said.items():
        if len(names) <= ALONE:
            yield from (f"{name}: {text}" for name in names)
        else:
            yield f"{', '.join(names[:ALONE])} and {len(names) - ALONE:,} more: {text}"


def _remarks_on(account: AccountReport) -> Iterator[str]:
    from backupd.operations.status import remedy_for

    live = account.now
    for reason in account.reasons:
        remedy = remedy_for(reason, account.account)
        if reason != live.error:
            yield f"{reason} ({remedy})" if remedy else reason
    if live.failures:
        since = f" in {_since(live.failing_since)}" if live.failing_since and live.failures > 1 else ""
        again = f", next try in {_until(live.next_run)}" if live.next_run and account.doing != "running" else ""
        yield f"{live.error}; {output.count(live.failures, 'failure')}{since} ({live.cause}){again}"
    elif account.doing == "held":
        yield f"left alone for {_until(live.held_until)}: {live.held_for}"
    if account.doing == "running" and live.running_since:
        done = f", {live.messages:,} of {output.count(live.planned, 'message')} read" if live.planned else ""
        octets = f" ({output.size(live.octets)})" if live.octets else ""
        yield f"being backed up for {_since(live.running_since)}{done}{octets}"


def _daemon(accounts: Sequence[AccountReport], daemon: DaemonReport) -> Iterator[str]:
    if daemon.not_ready:
        yield f"daemon: {daemon.not_ready}"
    elif not daemon.alive:
        yield "daemon: its work does not advance; its log tells more: journalctl -u backupd"
    doing = [account.doing for account in accounts]
    counts = {
        "being backed up": doing.count("running"),
        "waiting": doing.count("waiting"),
        "held": doing.count("held"),
        "failing": sum(account.now.failures > 0 for account in accounts),
        "older than objective": sum(account.is_overdue for account in accounts),
    }
    said = [output.count(len(accounts), "account"), *(f"{count:,} {what}" for what, count in counts.items() if count)]
    yield f"daemon: running for {_since(daemon.since)}; {', '.join(said)}"
    if daemon.quiet_until:
        yield f"quiet hours until {output.local_time(daemon.quiet_until.isoformat())}: nothing is begun"
    for job in daemon.jobs:
        if text := _job(job):
            yield f"{job.name}: {text}"


def _job(job: Job) -> str:
    after = f"; next in {_until(job.next_run)}" if job.next_run else ""
    if job.running_since:
        return f"running for {_since(job.running_since)}"
    if not job.last_run or not job.outcome:
        return f"next in {_until(job.next_run)}" if job.next_run else ""
    what = "failed" if job.outcome == "failed" else "done"
    return f"{what} {_since(job.last_run)} ago{f': {job.text}' if job.text else ''}{after}"


def _costs(costs: Costs) -> Iterator[str]:
    noun = "pack" if costs.only_packs else "object"
    yield f"{costs.url}: {output.count(costs.objects, noun)}, {output.size(costs.octets)}"
    if costs.requests is None:
        return
    if costs.requests.average is not None:
        days = output.count(costs.requests.days, "day")
        yield f"requests per day: {_requests(costs.requests.average)} (average of {days})"
    yield f"requests today: {_requests(costs.requests.today)}"


def _requests(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{counts[kind]:,.0f} {kind}" for kind in ("writes", "listings", "reads"))
