"""`backupd auth`: have somebody log in by OAuth2, tell how long logins hold, and end them.

Telling needs no key, no network and no library beyond the core's, so the daemon can ask `expiring` as often as it
likes, and warn before a login ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec
from cryptography import x509

from backupd.errors import BackupdError, UsageError
from backupd.oauth import device, expiry, redirect
from backupd.oauth.app import App
from backupd.oauth.store import Unreadable
from backupd.oauth.token import Answer, Facts, Login, logged_in
from backupd.operations.access_token import Clock, open_provider
from backupd.operations.finding import Finding
from backupd.operations.oauth_apps import app_of, client_secret_expires
from backupd.operations.opening import open_logins

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.oauth.provider import Provider

Way = Literal["device", "redirect"]


def _now() -> datetime:
    return datetime.now(UTC)


class Status(msgspec.Struct, frozen=True):
    """How an account's login stands. Times are None where nothing is known.

    Args:
        logged_in: when somebody logged in, or without a user, when the first token was had.
        refreshed: when the provider last gave a token; access_expires: until when that is good.
        login_ends: when somebody has to log in again if nothing changes; why: how that is known.
        warnings: what somebody should do something about.
    """

    account: str
    provider: str
    grant: str
    logged_in: datetime | None
    refreshed: datetime | None
    access_expires: datetime | None
    login_ends: datetime | None
    why: str
    warnings: list[Expiring]


class Expiring(msgspec.Struct, frozen=True):
    """Something that ends, or has ended, without which an account cannot be backed up. when: None for what is over."""

    account: str
    what: str
    remedy: str
    when: datetime | None
    over: bool


class LoggedIn(msgspec.Struct, frozen=True):
    """A login that was made. refreshable: whether it goes on when the first access token has expired."""

    account: str
    provider: str
    grant: str
    access_expires: datetime
    refreshable: bool
    login_ends: datetime | None
    why: str


class LoggedOut(msgspec.Struct, frozen=True):
    """A login that was ended. forgotten: there was one. revoked: the provider knows it no more; else why_not."""

    account: str
    forgotten: bool
    revoked: bool
    why_not: str


class Person(msgspec.Struct, frozen=True):
    """Whoever logs in, as a skin reaches them.

    Args:
        tell: shows what to do.
        not_it: hears why what was pasted is of no use.
        wait: waits so many seconds; whether they gave up meanwhile.
        typed: the file descriptor where they can paste an address; None for nowhere.
    """

    tell: Callable[[device.Invitation | redirect.Request], None]
    not_it: Callable[[str], None]
    wait: Callable[[float], bool]
    typed: int | None = None


def login(
    config: Config,
    account: str,
    person: Person,
    *,
    way: Way | None = None,
    port: int = 0,
    now: Clock = _now,
    clock: Callable[[], float] = time.monotonic,
    provider: Callable[[App], Provider] = open_provider,
) -> LoggedIn:
    """Have somebody log in, and store the login; for an account without a user, get a token and store it.

    Args:
        way: how; None for the easiest that the provider has.
        port: of redirect: where to listen; 0 for any that is free.

    Raises UsageError, LoginRefused, ConnectionFailed, CertificateRefused, ProtocolError, Interrupted, Busy, WrongKey,
    NoRepository, StorageError, ConfigError.
    """
    app, logins = _app(config, account), open_logins(config)
    asked = provider(app)
    with logins.lock(account), logins.replacing(account):
        logins.check_key()  # nobody shall log in for nothing
    answer = _answer(asked, person, way, port, clock)
    made = logged_in(app, answer, now())
    with logins.lock(account), logins.replacing(account) as commit:
        commit(made)
    end = expiry.end_of_login(app, made.facts) if app.grant == "user" else None
    return LoggedIn(
        account=account,
        provider=app.provider,
        grant=app.grant,
        access_expires=made.facts.access_expires,
        refreshable=made.facts.refreshable or app.grant != "user",
        login_ends=end.when if end else None,
        why=end.why if end else "",
    )


def _answer(asked: Provider, person: Person, way: Way | None, port: int, clock: Callable[[], float]) -> Answer:
    if asked.app.grant != "user":
        if way is not None:
            raise UsageError(
                f"nobody logs in with {asked.app.grant}",
                subject=asked.app.account,
                remedy="leave out --device and --redirect: a token is had all the same",
            )
        return asked.by_itself()
    if (way or ("device" if asked.endpoints.device else "redirect")) == "device":
        return device.log_in(asked, person.tell, wait=person.wait, clock=clock)
    return redirect.log_in(
        asked,
        person.tell,
        stopped=lambda: person.wait(0),
        clock=clock,
        typed=person.typed,
        not_it=person.not_it,
        port=port,
    )


def logout(config: Config, account: str, *, provider: Callable[[App], Provider] = open_provider) -> LoggedOut:
    """Revoke the login where the provider can, and forget it in any case. Raises UsageError, Busy, StorageError."""
    app, logins = _app(config, account), open_logins(config)
    with logins.lock(account):
        why_not = ""
        try:
            there = logins.read(account)
        except Unreadable as error:
            there, why_not = None, error.what
        except BackupdError as error:  # the repository: what is sealed stays so, and can be removed all the same
            there, why_not = None, str(error)
        if there is not None:
            why_not = _revoke(app, there, provider)
        forgotten = logins.forget(account)
    return LoggedOut(account, forgotten, forgotten and not why_not, why_not if forgotten else "")


def _revoke(app: App, there: Login, provider: Callable[[App], Provider]) -> str:
    """Why it could not be done; empty when it was."""
    if there.facts.identity != app.identity:
        return "it is of another provider or app than is configured now"
    try:
        asked = provider(app)
        if not asked.endpoints.revocation:
            return f"{app.provider} revokes nothing on request; its administrator can end the user's sessions"
        if there.tokens.refresh_token:
            asked.revoke(there.tokens.refresh_token, "refresh_token")
        else:
            asked.revoke(there.tokens.access_token, "access_token")
    except BackupdError as error:
        return error.what
    return ""


def _app(config: Config, account: str) -> App:
    app = app_of(config, account)
    if app is None:
        raise UsageError(
            "this account logs in by password", subject=account, remedy="give it an oauth2 section, or leave it so"
        )
    return app


# -- how logins stand --------------------------------------------------------------------------------------------------


def accounts_with_login(config: Config) -> list[str]:
    """The accounts that log in by OAuth2."""
    return [account for account in config.accounts if app_of(config, account)]


def status(config: Config, accounts: Iterable[str], now: datetime) -> list[Status]:
    """How the logins of these accounts stand. Raises UsageError for one with a password, StorageError."""
    return [_status(config, _app(config, account), now) for account in accounts]


def expiring(config: Config, now: datetime) -> list[Expiring]:
    """What of all accounts' logins has ended or will soon, the most urgent first. Raises StorageError."""
    found = [each for one in status(config, accounts_with_login(config), now) for each in one.warnings]
    return sorted(found, key=lambda each: (not each.over, each.when or now, each.account))


def ends(config: Config) -> dict[str, datetime]:
    """By account, when it can log in no more if nobody does anything, as far as that is known; a day is over when it
    begins. Raises StorageError."""
    logins = open_logins(config)
    known = {}
    for account in accounts_with_login(config):
        app = _app(config, account)
        times = [*_login_ends(app, logins.facts(account)), *(end for _, end, _ in _credentials(config, app) if end)]
        if times:
            known[account] = min(times)
    return known


def _login_ends(app: App, facts: Facts | None) -> Iterator[datetime]:
    if app.grant != "user" or facts is None or facts.identity != app.identity:
        return
    if facts.refused is not None:
        yield facts.refused
    if not facts.refreshable:
        yield facts.access_expires
    elif end := expiry.end_of_login(app, facts):
        yield end.when


def findings(config: Config, account: str, now: datetime) -> Iterator[Finding]:
    """What `doctor` says of an account's login; nothing of one with a password."""
    app = app_of(config, account)
    if app is None:
        return
    subject = f"account {account}"
    try:
        one = _status(config, app, now)
    except BackupdError as error:
        yield Finding("problem", subject, error.what, error.remedy)
        return
    for each in one.warnings:
        # That a login is over is a problem that trying it will tell.
        if not each.over or each.remedy != _log_in_again(account):
            yield Finding("problem" if each.over else "warning", subject, each.what, each.remedy)
    if one.logged_in is not None and not one.warnings:
        user = app.grant == "user"
        since = f"somebody logged in at {app.provider} on" if user else f"{app.provider} gives tokens since"
        ends = f"; the login ends on {one.login_ends:%Y-%m-%d} ({one.why})" if one.login_ends else ""
        yield Finding("ok", subject, f"{since} {one.logged_in:%Y-%m-%d}{ends}")


def _log_in_again(account: str) -> str:
    return f"run: backupd auth login {account}"


def _status(config: Config, app: App, now: datetime) -> Status:
    facts = open_logins(config).facts(app.account)
    mine = facts if facts is not None and facts.identity == app.identity else None
    end = expiry.end_of_login(app, mine) if mine and app.grant == "user" else None
    return Status(
        account=app.account,
        provider=app.provider,
        grant=app.grant,
        logged_in=mine.logged_in if mine else None,
        refreshed=mine.refreshed if mine else None,
        access_expires=mine.access_expires if mine else None,
        login_ends=end.when if end else None,
        why=end.why if end else "",
        warnings=list(_warnings(config, app, facts, now)),
    )


def _warnings(config: Config, app: App, facts: Facts | None, now: datetime) -> Iterator[Expiring]:
    found = expiry.warning(app, facts, now)
    if found is not None:
        yield Expiring(app.account, found.what, _log_in_again(app.account), found.when, found.over)
    for name, ends_on, remedy in _credentials(config, app):
        if ends_on is None:
            what = f"the certificate {app.certificate} cannot be read"
            yield Expiring(app.account, what, "it must be a PEM file", None, over=True)
        elif found := expiry.of_credential(name, ends_on.date(), now):
            yield Expiring(app.account, found.what, remedy, found.when, found.over)


def _credentials(config: Config, app: App) -> Iterator[tuple[str, datetime | None, str]]:
    """What the app proves itself by, its last day (None: it cannot be read), and what to do then."""
    if (day := client_secret_expires(config, app.account)) is not None:
        remedy = "make a new one at the provider, and put it and its client_secret_expires into the configuration"
        yield "the app's client secret", datetime(day.year, day.month, day.day, tzinfo=UTC), remedy
    if app.certificate is not None:
        try:
            until = x509.load_pem_x509_certificate(app.certificate.read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            until = None
        yield "the app's certificate", until, "make a new one, and name it to the provider and in the configuration"
