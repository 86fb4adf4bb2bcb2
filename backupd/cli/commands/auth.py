"""`backupd auth login|status|logout`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Here
from backupd.cli.output import Column

if TYPE_CHECKING:
    from backupd.oauth.device import Invitation
    from backupd.oauth.redirect import Request
    from backupd.operations.auth import LoggedIn, Status

_NOBODY = "-"


def login_command(
    account: str,
    /,
    *,
    device: Annotated[bool, Parameter(show_default=False)] = False,
    redirect: Annotated[bool, Parameter(show_default=False)] = False,
    port: Annotated[int, Parameter(show_default=False)] = 0,
    context: Here,
) -> int:
    """Have somebody log in at the account's provider, and keep the login, encrypted, in state_dir.

    An account of client_credentials or a service_account needs no login: a token is had, as a test.

    Parameters
    ----------
    account
        Its name in the configuration.
    device
        Enter a code on another device, such as a phone.
    redirect
        Log in by a browser, here or elsewhere, whose last address can be pasted here.
    port
        Of --redirect: where the browser comes back to on this machine, if the provider must know; by default any.
    """
    from backupd.errors import UsageError
    from backupd.operations import auth

    context.not_at_a_copy("auth login")
    if device and redirect:
        raise UsageError("a login is either on another device or by a browser", remedy="give one of the two")
    way: auth.Way | None = "device" if device else "redirect" if redirect else None
    with context.stopping() as stop:
        person = auth.Person(tell=_tell, not_it=output.remark, wait=stop.wait, typed=_typed())
        done = auth.login(context.config, account, person, way=way, port=port)
    if context.json:
        output.document(done)
    context.say(_done(done))
    if not done.refreshable:
        output.remark(
            f"{account}: the provider gave no refresh token, so the login ends in "
            f"{output.age(done.access_expires - datetime.now(UTC))}; ask for one by scopes, often offline_access"
        )
    return 0


def status_command(*accounts: str, context: Here) -> int:
    """Show when which login ends, and what to do about it. Needs no key, and asks nobody.

    Parameters
    ----------
    accounts
        Their names in the configuration; none means all that log in by OAuth2.
    """
    from backupd.operations import auth

    names = list(dict.fromkeys(accounts)) or auth.accounts_with_login(context.config)
    now = datetime.now(UTC)
    found = auth.status(context.config, names, now)
    if context.json:
        output.document(found)
        return 0
    if not found:
        context.say("no account logs in by OAuth2")
        return 0
    columns = ("ACCOUNT", "PROVIDER", "LOGGED IN", "REFRESHED", "ACCESS TOKEN", "LOGIN ENDS")
    output.table(
        [Column(title, shrink=title in ("ACCOUNT", "PROVIDER")) for title in columns],
        [_row(one, now) for one in found],
        ["red" if any(each.over for each in one.warnings) else "yellow" if one.warnings else "" for one in found],
    )
    for one in found:
        for each in one.warnings:
            output.line(f"{each.account}: {each.what} ({each.remedy})")
    return 0


def logout_command(account: str, /, *, context: Here) -> int:
    """Revoke a login where the provider can, and forget it in any case.

    Parameters
    ----------
    account
        Its name in the configuration.
    """
    from backupd.operations import auth

    context.not_at_a_copy("auth logout")
    done = auth.logout(context.config, account)
    if context.json:
        output.document(done)
    if not done.forgotten:
        context.say(f"{account}: nobody is logged in")
    elif done.revoked:
        context.say(f"{account}: logged out; the provider knows the login no more")
    else:
        context.say(f"{account}: the login is forgotten here")
        output.remark(f"{account}: it was not revoked at the provider: {done.why_not}")
    return 0


def _typed() -> int | None:
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _tell(what: Invitation | Request) -> None:
    """What a person has to do, on standard error: standard output is for the result."""
    from backupd.oauth.device import Invitation

    minutes = output.age(timedelta(seconds=what.seconds))
    if isinstance(what, Invitation):
        lines = ["Open this address on any device, such as your phone:", "", f"    {what.address}", ""]
        lines += ["and enter this code there:", "", f"    {what.code}", ""]
        if what.complete:
            lines += ["Or open this one, which has the code in it:", "", f"    {what.complete}", ""]
        lines += [f"Log in there as the owner of the mail. Waiting for {minutes} at most; Ctrl-C gives up."]
    else:
        lines = ["Open this address in a browser, and log in as the owner of the mail:", "", f"    {what.address}", ""]
        lines += [f"In the end it leads to {what.back}, which is this machine. If your browser is on another one, the"]
        lines += ["page does not load: copy its whole address from the browser's address bar, and paste it here."]
        lines += [f"Waiting for {minutes} at most; Ctrl-C gives up."]
    for line in lines:
        sys.stderr.write(output.clean(line) + "\n")
    sys.stderr.flush()


def _done(done: LoggedIn) -> str:
    if done.grant != "user":
        return f"{done.account}: {done.provider} gives tokens; no login is needed"
    ends = f"; the login ends on {done.login_ends:%Y-%m-%d} ({done.why})" if done.login_ends else ""
    return f"{done.account}: logged in at {done.provider}{ends}"


def _row(one: Status, now: datetime) -> tuple[str, ...]:
    if one.access_expires is None:
        access = _NOBODY
    elif one.access_expires > now:
        access = f"for {output.age(one.access_expires - now)}"
    else:
        access = "expired" if any(each.over for each in one.warnings) else "renewed when needed"
    ends = f"{_day(one.login_ends)} ({one.why})" if one.login_ends else "never" if one.grant != "user" else "not known"
    return (
        one.account,
        one.provider,
        _day(one.logged_in) if one.logged_in else _NOBODY,
        f"{output.age(max(now - one.refreshed, timedelta()))} ago" if one.refreshed else _NOBODY,
        access,
        ends if one.logged_in else _NOBODY,
    )


def _day(when: datetime) -> str:
    return output.local_time(when.isoformat())[:16]
