"""`backupd status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Here
from backupd.cli.output import Column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backupd.operations.costs import Costs
    from backupd.operations.status import AccountStatus

_STYLES = {"ok": "", "warning": "yellow", "critical": "red"}


def command(*, context: Here) -> int:
    """Show for each account when it was backed up last, and whether that is good enough; and what the repository holds,
    and its bucket was asked for. Asks no mail server.

    The exit code is 0 however the accounts stand.
    """
    from backupd.operations.notify import undelivered
    from backupd.operations.status import status

    objectives = {name: account.objective for name, account in context.config.accounts.items()}
    with context.repository() as repository, context.state() as state:
        found = status(repository, state, objectives, datetime.now(UTC))
        lost = undelivered(state)
    if context.json:
        output.document(found)
        return 0
    output.table(
        [
            Column("ACCOUNT", shrink=True),
            Column("STATE"),
            Column("BACKED UP"),
            Column("OBJECTIVE"),
            Column("MESSAGES", right=True),
            Column("SIZE", right=True),
            Column("LAST RUN"),
        ],
        [_row(account) for account in found.accounts],
        [_STYLES[account.level.value] for account in found.accounts],
    )
    for account in found.accounts:
        for reason in account.reasons:
            output.line(f"{account.account}: {reason}")
    for text in _costs(found.repository):
        context.say(text)
    if lost:
        messages = output.count(len(lost), "message")
        output.line(f"{messages} about trouble did not arrive, the last: {lost[-1].subject}; see backupd notify")
    return 0


def _row(account: AccountStatus) -> tuple[str, ...]:
    return (
        account.account,
        account.level.value,
        f"{output.age(timedelta(seconds=account.age))} ago" if account.age is not None else "never",
        output.age(timedelta(seconds=account.objective)) if account.objective else "none",
        f"{account.messages:,}",
        output.size(account.octets),
        account.last_run.outcome if account.last_run else "none",
    )


def _costs(costs: Costs) -> Iterator[str]:
    yield f"{costs.url}: {output.count(costs.objects, 'object')}, {output.size(costs.octets)}"
    if costs.requests is None:
        return
    if costs.requests.average is not None:
        days = output.count(costs.requests.days, "day")
        yield f"requests per day: {_requests(costs.requests.average)} (average of {days})"
    yield f"requests today: {_requests(costs.requests.today)}"


def _requests(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{counts[kind]:,.0f} {kind}" for kind in ("writes", "listings", "reads"))
