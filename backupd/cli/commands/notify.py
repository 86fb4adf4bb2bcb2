"""`backupd notify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column

if TYPE_CHECKING:
    from backupd.operations.notify import NotArrived, Notices, Open

FAILED = 1


def command(*, test: bool = False, context: Here) -> int:
    """Show who is told of trouble, which trouble is open, and messages that have not arrived.

    The exit code is 0 however that stands; with --test it is 1 when a message did not arrive.

    Parameters
    ----------
    test
        Send a test message to each target, and say for each whether it arrived.
    """
    from backupd.operations.notify import notices

    if test:
        return _test(context)
    with context.state() as state:
        found = notices(context.config, state)
    if context.json:
        output.document(found)
        return 0
    _show(context, found)
    return 0


def _test(context: Context) -> int:
    from backupd.operations.notify import try_targets

    results = try_targets(context.config)
    code = 0 if all(result.arrived for result in results) else FAILED
    if context.json:
        output.document({"results": results, "exit_code": code})
        return code
    if not results:
        context.say("nobody is told of trouble: there is nothing below notify: in the configuration")
    for result in results:
        where = f"{result.name} ({result.address})" if result.address else result.name
        if result.arrived:
            context.say(f"{where}: arrived")
        else:
            output.remark(f"{where}: not arrived: {result.why}")
    return code


def _show(context: Context, found: Notices) -> None:
    if not found.targets:
        context.say("nobody is told of trouble: there is nothing below notify: in the configuration")
    else:
        output.table(
            [Column("TARGET"), Column("ADDRESS", shrink=True), Column("ON"), Column("ACCOUNTS")],
            [(each.name, each.address, _on(each.on), ", ".join(each.accounts)) for each in found.targets],
        )
    for target in found.targets:
        if target.problem:
            output.remark(f"{target.name}: {target.problem}")
    if found.pings:
        context.say()
        rows = [(each.account or "all accounts", each.address or each.problem) for each in found.pings]
        output.table([Column("PING"), Column("ADDRESS", shrink=True)], rows)
    if found.open:
        context.say()
        output.table(
            [Column("TARGET"), Column("SINCE"), Column("TOLD"), Column("TROUBLE", shrink=True)],
            [
                (
                    each.target,
                    output.local_time(each.since),
                    output.local_time(each.told or "") or "not yet",
                    _what(each),
                )
                for each in found.open
            ],
        )
    for message in found.not_arrived:
        output.line(_not_arrived(message))


def _on(kinds: tuple[str, ...]) -> str:
    from backupd.config.telling import KINDS

    return "everything" if set(kinds) == set(KINDS) else ", ".join(kinds)


def _what(trouble: Open) -> str:
    who = ", ".join(trouble.subjects[:3])
    more = f" and {len(trouble.subjects) - 3} more" if len(trouble.subjects) > 3 else ""
    often = " (comes and goes)" if trouble.flapping else ""
    return f"{who}{more}: {trouble.what}{often}"


def _not_arrived(message: NotArrived) -> str:
    outcome = "given up" if message.given_up else "will be tried again"
    tries = output.count(message.attempts, "attempt")
    return f"{message.target}: not arrived, {outcome} after {tries}: {message.subject}: {message.why}"
