"""When a login ends if nobody does anything, and whether somebody should do something about it now.

Pure: facts, rules and a time go in, words come out. What is known comes from three places: what the provider said with
the token, what it is known for (a login that is not used for so long ends), and what the configuration says.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import NamedTuple

from backupd.oauth.app import App
from backupd.oauth.token import Facts

SOON = timedelta(days=14)
_SHARE = 3
_DAY = timedelta(days=1)


class End(NamedTuple):
    """when: the login, or what it hangs on, is over. why: how that is known. whole: how long it lasts from new."""

    when: datetime
    why: str
    whole: timedelta


class Warning(NamedTuple):  # noqa: A001 - what it is
    """what: a sentence for the owner of the account. when: the end it speaks of; None for one that has come.
    over: whether backups fail already."""

    what: str
    when: datetime | None
    over: bool


def end_of_login(app: App, facts: Facts) -> End | None:
    """The first end of a user's login that is known of; None where nothing is."""
    ends = []
    if facts.refresh_expires is not None:
        whole = timedelta(seconds=facts.refresh_seconds or 0) or facts.refresh_expires - facts.logged_in
        ends.append(End(facts.refresh_expires, "the provider said so", whole))
    if app.lifetime is not None:
        ends.append(End(facts.logged_in + app.lifetime, "login_lifetime says so", app.lifetime))
    if app.unused is not None:
        ends.append(End(facts.refreshed + app.unused, f"if it is not used for {app.unused.days} days", app.unused))
    return min(ends, default=None)


def warning(app: App, facts: Facts | None, now: datetime) -> Warning | None:
    """What to tell the account's owner now; None as long as all is well. To be mended by `backupd auth login`."""
    if app.grant != "user":
        return None
    if facts is None:
        return Warning("nobody has logged in yet", None, over=True)
    if facts.identity != app.identity:
        return Warning("the login is of another provider or app than is configured now", None, over=True)
    if not facts.refreshable:
        over = now >= facts.access_expires
        when = None if over else facts.access_expires
        ends = "has expired" if over else f"ends in {left(facts.access_expires - now)}"
        return Warning(f"the login {ends}: the provider gave no refresh token", when, over)
    if facts.refused is not None:
        return Warning(f"the provider has refused the login since {facts.refused:%Y-%m-%d}", None, over=True)
    return _of_end(end_of_login(app, facts), now)


def _of_end(end: End | None, now: datetime) -> Warning | None:
    if end is None:
        return None
    if now >= end.when:
        return Warning(f"the login has expired ({end.why})", None, over=True)
    remaining = end.when - now
    if remaining <= min(SOON, end.whole / _SHARE):
        return Warning(f"the login expires in {left(remaining)} ({end.why})", end.when, over=False)
    if end.whole < _DAY:
        pause = f"any pause of {left(end.whole)} between backups ends it"
        return Warning(f"a login lasts only {left(end.whole)} here: {pause}", end.when, over=False)
    return None


def of_credential(name: str, ends: date, now: datetime) -> Warning | None:
    """What to tell of a client secret or certificate that is good until the end of this day; None while all is well."""
    days = (ends - now.date()).days
    if days < 0:
        return Warning(f"{name} has expired on {ends}", None, over=True)
    if days > SOON.days:
        return None
    when = datetime(ends.year, ends.month, ends.day, tzinfo=now.tzinfo)
    return Warning(f"{name} expires {'today' if not days else f'in {left(timedelta(days=days))}'}", when, over=False)


def left(span: timedelta) -> str:
    """A span of time in its largest unit, rounded down: 12 days, 5 hours, 1 minute."""
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(span.total_seconds()) // seconds
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
