"""An account's access token, whenever somebody has to log in: the stored one, or a new one of the provider.

A refresh token may be good for one use. So only one process at a time uses it, under a lock; whoever waited for that
takes what the other has got; and the one that follows it is on the disk before anybody sees the access token that came
with it. Nothing of this is kept in memory: another process may have logged in or out since.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec

from backupd.errors import BackupdError, ConfigError, LoginRefused, Transient
from backupd.oauth.app import App
from backupd.oauth.refusals import Refused
from backupd.oauth.store import Commit, Logins, Unreadable
from backupd.oauth.token import Answer, Login, logged_in, refreshed

if TYPE_CHECKING:
    from backupd.oauth.provider import Provider

_OVER = {"invalid_grant", "interaction_required", "login_required", "consent_required"}
"""Refusals after which only a person can help."""
_JUST_NOW = timedelta(minutes=1)

Clock = Callable[[], datetime]


class Enough(Protocol):
    """Whether a stored token will do. lasting: for some minutes, too."""

    def __call__(self, there: Login, *, lasting: bool) -> bool: ...


def open_provider(app: App) -> Provider:
    """The app's provider. Raises ConfigError where the libraries for it are missing."""
    try:
        from backupd.oauth.provider import Provider
    except ImportError:
        raise ConfigError(
            "OAuth2 needs authlib and httpx2, which are not installed",
            subject=app.account,
            remedy="install backupd[oauth]",
        ) from None
    return Provider(app)


class AccessToken:
    """Gives an account's access token. Safe to use from several threads."""

    def __init__(
        self,
        app: App,
        logins: Logins,
        *,
        provider: Callable[[App], Provider] = open_provider,
        now: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._app, self._logins, self._open_provider, self._now = app, logins, provider, now

    def __call__(self) -> str:
        """A token that is good for some minutes at least, if the provider can be reached.

        Raises LoginRefused where somebody must log in, Busy, ConfigError, StorageError, and what Provider raises.
        """
        login = self._stored()
        if login is not None and login.facts.is_good(self._now(), lasting=True):
            return login.tokens.access_token
        return self._another(lambda there, *, lasting: there.facts.is_good(self._now(), lasting=lasting))

    def renewed(self, refused: str) -> str | None:
        """Another token than the one that a mail server has just refused; None when that was new. Raises as above."""
        login = self._stored()
        if login is None or login.tokens.access_token == refused:
            if login is not None and abs(self._now() - login.facts.refreshed) < _JUST_NOW:
                return None
            return self._another(lambda there, *, lasting: there.tokens.access_token != refused)
        return login.tokens.access_token

    def _stored(self) -> Login | None:
        """The stored login, if it can be used with this app."""
        try:
            login = self._logins.read(self._app.account)
        except Unreadable as error:
            if self._app.grant == "user":
                raise LoginRefused(error.what, subject=error.subject, remedy=error.remedy) from None
            return None
        # A token of another provider is none of this one's business.
        return login if login is not None and login.facts.identity == self._app.identity else None

    def _another(self, enough: Enough) -> str:
        """A new token, unless what is stored is enough by now. Ctrl-C does not tear asking and storing apart."""
        with ThreadPoolExecutor(1, thread_name_prefix="token") as undisturbed:
            return undisturbed.submit(self._renew, enough).result()

    def _renew(self, enough: Enough) -> str:
        app = self._app
        with self._logins.lock(app.account):
            login = self._stored()
            if login is not None and enough(login, lasting=True):
                return login.tokens.access_token
            if app.grant == "user" and (login is None or not login.tokens.refresh_token):
                raise _nobody(app, login)
            with self._logins.replacing(app.account) as commit:
                try:
                    answer = self._ask(login)
                except Refused as error:
                    self._note_refusal(login, error, commit)
                    raise
                except BackupdError as error:
                    if login is None or not isinstance(error, Transient) or not enough(login, lasting=False):
                        raise
                    return login.tokens.access_token
                now = self._now()
                after = logged_in(app, answer, now) if login is None else refreshed(login, answer, now)
                commit(after)
            return after.tokens.access_token

    def _ask(self, login: Login | None) -> Answer:
        provider = self._open_provider(self._app)
        if self._app.grant == "user" and login is not None:
            return provider.refresh(login.tokens.refresh_token)
        return provider.by_itself()

    def _note_refusal(self, login: Login | None, error: Refused, commit: Commit) -> None:
        """So that `auth status` can tell; the tokens stay, for a provider may think better of it."""
        if login is not None and self._app.grant == "user" and error.code in _OVER:
            refused = login.facts.refused or self._now()
            facts = msgspec.structs.replace(login.facts, refused=refused, refusal=error.code)
            commit(msgspec.structs.replace(login, facts=facts))


def _nobody(app: App, login: Login | None) -> LoginRefused:
    what = (
        "nobody has logged in yet" if login is None else "the token has expired, and there is none to refresh it with"
    )
    return LoginRefused(what, subject=app.account, remedy=f"run: backupd auth login {app.account}")
