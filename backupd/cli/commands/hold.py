"""`backupd hold add|list|remove|accept-loss`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column

if TYPE_CHECKING:
    from backupd.operations.hold import HoldLine, PinLine


def add_command(what: str, /, *, reason: str, until: str | None = None, context: Here) -> int:
    """Keep a snapshot, or all of an account, from being forgotten.

    Parameters
    ----------
    what
        A snapshot, or the name of an account: then all of its snapshots are held, those to come too.
    reason
        Why; for whoever looks later. It is stored encrypted.
    until
        When the hold ends by itself, such as 2027-12-31.
    """
    from backupd.operations import hold
    from backupd.operations.find_snapshot import moment

    end = moment(until) if until is not None else None
    accounts = list(context.config.accounts)
    with context.repository() as repository, context.state() as state:
        line = hold.add(
            repository, what, accounts, reason=reason, until=end, by=_whoever(), state=state, now=datetime.now(UTC)
        )
    return _done(context, line, f"{_held(line)} is held{_until(line)}: {line.reason}")


def list_command(
    account: str | None = None,
    /,
    *,
    all: Annotated[bool, Parameter(show_default=False)] = False,  # noqa: A002 - the option is --all
    context: Here,
) -> int:
    """List what keeps snapshots from being forgotten: holds, and sudden losses that nobody has accepted.

    Parameters
    ----------
    account
        Only this account's.
    all
        Holds that were removed or have ended, and losses that were accepted, too: who said so, when, and why.
    """
    from backupd.operations import hold

    with context.repository() as repository, context.state() as state:
        found = hold.listed(repository, account, state=state, ended=all, now=datetime.now(UTC))
    if context.json:
        output.document(found)
        return 0
    rows = [
        (line.id[-8:], _held(line), output.local_time(line.created)[:16], _end(line), _why(line))
        for line in found.holds
    ]
    for pin in found.pins:
        held = ", ".join(each[-8:] for each in pin.pinned)
        why = f"sudden loss: {'; '.join(pin.what)}"
        rows.append(("tripwire", f"{pin.account} {held}", output.local_time(pin.time)[:16], "", why))
    for each in found.accepted:
        told = ", ".join(one[-8:] for one in each.snapshots)
        why = f"loss accepted{_by(each.by)}{f': {each.reason}' if each.reason else ''}"
        rows.append((each.id[-8:], f"{each.account} {told}", output.local_time(each.created)[:16], "accepted", why))
    columns = [Column("ID"), Column("KEEPS"), Column("SINCE"), Column("UNTIL"), Column("WHY", shrink=True)]
    styles = [*(_style(line) for line in found.holds), *("" for _ in found.pins), *("dim" for _ in found.accepted)]
    output.table(columns, rows, styles)
    return 0


def remove_command(hold_id: str, /, *, reason: str = "", context: Here) -> int:
    """End a hold. That there was one stays to be read, with both reasons.

    Parameters
    ----------
    hold_id
        The hold's id, as `backupd hold list` shows it, or the beginning of it.
    reason
        Why; it is stored encrypted.
    """
    from backupd.operations import hold

    with context.repository() as repository, context.state() as state:
        line = hold.remove(
            repository, hold_id, reason=reason, by=_whoever(), state=state, now=datetime.now(UTC)
        )
    return _done(context, line, f"{_held(line)} is not held any more by {line.id[-8:]}: {line.reason}")


def accept_loss_command(account: str, /, *, reason: str = "", context: Here) -> int:
    """Say that the sudden losses of an account are meant: they pin no snapshot any more, and status is silent.

    Parameters
    ----------
    account
        The account.
    reason
        Why; it is stored encrypted.
    """
    from backupd.operations import hold

    with context.repository() as repository, context.state() as state:
        found = hold.accept_loss(
            repository, account, state=state, reason=reason, by=_whoever(), now=datetime.now(UTC)
        )
    if context.json:
        output.document({"accepted": found})
    for each in found:
        context.say(f"{account}: accepted: {_lost(each)}")
    return 0


def _done(context: Context, line: HoldLine, text: str) -> int:
    if context.json:
        output.document(line)
    context.say(text)
    return 0


def _held(line: HoldLine) -> str:
    if line.snapshot is None:
        return f"{line.account}, all snapshots"
    return f"{line.account} {line.snapshot[-8:]}{', which is gone' if line.gone else ''}"


def _style(line: HoldLine) -> str:
    return "red" if line.gone else "dim" if line.state != "active" else ""


def _until(line: HoldLine) -> str:
    return f" until {output.local_time(line.until)[:16]}" if line.until else ""


def _end(line: HoldLine) -> str:
    return line.state if line.state == "released" else output.local_time(line.until or "")[:16]


def _why(line: HoldLine) -> str:
    """Why it is held, and by whom; and the same of its end."""
    said = f"{line.reason}{f' (by {line.by})' if line.by else ''}"
    if line.released is None:
        return said
    why = f": {line.released_reason}" if line.released_reason else ""
    return f"{said}; released {output.local_time(line.released)[:16]}{_by(line.released_by)}{why}"


def _by(who: str) -> str:
    return f" by {who}" if who else ""


def _whoever() -> str:
    """Who gives the command: the user and the machine, as far as they are known; with sudo, who used it."""
    import getpass
    import os
    import socket

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container may know no name of its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _lost(pin: PinLine) -> str:
    return f"{'; '.join(pin.what)}, as snapshot {pin.snapshot} tells"
