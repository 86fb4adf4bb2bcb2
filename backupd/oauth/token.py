"""What a provider's token endpoint answered, and what of it is kept of an account's login.

Providers are strangers: what they send is checked here, once. Nothing here is shown with its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from backupd.errors import ProtocolError
from backupd.oauth.app import App
from backupd.redaction import learn

LONGEST_TOKEN = 16 * 1024
_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_TOKEN}}}\Z")
"""RFC 6749, appendix A.12 and A.17, without the space, which would end the token in a login."""
_LONGEST_SECONDS = 10 * 365 * 86_400
_MARGIN = timedelta(minutes=5)
_SHARE = 4
_ASSUMED = timedelta(hours=1)


@dataclass(frozen=True)
class Answer:
    """Tokens, as a provider gave them. Seconds are from the answer on; None: it does not say."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_in: float | None = None
    refresh_expires_in: float | None = None

    def __post_init__(self) -> None:
        _hide(self.access_token, self.refresh_token)


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be known of an account's login by whoever reads the state: no token.

    Args:
        identity: provider and app, see App.identity.
        logged_in: when somebody logged in; without a user, when the first token was had.
        refreshed: when the provider last gave a token.
        access_expires: until when the access token is good.
        refresh_expires: until when the provider said that the refresh token is good, if it said so.
        refresh_seconds: for how long it said so at the login.
        refreshable: whether there is a refresh token.
        refused, refusal: when and how the provider last refused the refresh token, if it has since the last success.
    """

    identity: str
    logged_in: datetime
    refreshed: datetime
    access_expires: datetime
    refresh_expires: datetime | None = None
    refresh_seconds: float | None = None
    refreshable: bool = False
    refused: datetime | None = None
    refusal: str = ""

    def is_good(self, now: datetime, *, lasting: bool) -> bool:
        """Whether the access token can be used. lasting: and will be for minutes; of a short-lived one, for a quarter
        of its time. A clock that was set back makes none good for longer than it was given for.
        """
        margin = min(_MARGIN, (self.access_expires - self.refreshed) / _SHARE) if lasting else timedelta()
        return self.refreshed - _MARGIN <= now < self.access_expires - margin


@dataclass(frozen=True)
class Tokens:
    """The secret part of a login."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        _hide(self.access_token, self.refresh_token)


class Login(msgspec.Struct, frozen=True):
    """An account's login, as it is stored."""

    facts: Facts
    tokens: Tokens


def read_answer(given: Mapping[str, Any], provider: str) -> Answer:
    """What a token endpoint sent (RFC 6749, 5.1). Raises ProtocolError for what makes no sense."""
    token, kind = given.get("access_token"), given.get("token_type", "Bearer")
    refresh = given.get("refresh_token") or ""
    if not isinstance(token, str) or not _TOKEN.match(token):
        raise _senseless("no access token that can be one", provider)
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _senseless("a token of a kind that mail servers do not know", provider)
    if not isinstance(refresh, str) or (refresh and not _TOKEN.match(refresh)):
        raise _senseless("no refresh token that can be one", provider)
    # refresh_token_expires_in: Google, Microsoft; refresh_expires_in: Keycloak, where 0 means that it does not expire.
    lasts = given.get("refresh_token_expires_in", given.get("refresh_expires_in"))
    return Answer(token, refresh, _seconds(given.get("expires_in")), _seconds(lasts))


def _hide(*tokens: str) -> None:
    """Whoever has a token in this process has it hidden in logs and messages."""
    for token in tokens:
        learn(token)


def _seconds(value: object) -> float | None:
    """A number, or text that is one, as some providers write it; None for all else, and for nothing left."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds <= _LONGEST_SECONDS else None


def _senseless(what: str, provider: str) -> ProtocolError:
    return ProtocolError(
        f"the provider sent {what}", subject=provider, remedy="check that issuer or token_endpoint is right"
    )


def logged_in(app: App, answer: Answer, now: datetime) -> Login:
    """A new login."""
    return Login(
        Facts(
            identity=app.identity,
            logged_in=now,
            refreshed=now,
            access_expires=_after(now, answer.expires_in) or now + _ASSUMED,
            refresh_expires=_after(now, answer.refresh_expires_in),
            refresh_seconds=answer.refresh_expires_in,
            refreshable=bool(answer.refresh_token),
        ),
        Tokens(answer.access_token, answer.refresh_token),
    )


def refreshed(login: Login, answer: Answer, now: datetime) -> Login:
    """The login after its refresh token was used. Without a new one the old one goes on (RFC 6749, 6), and without
    word of its end it ends when it was said to before: to warn once too early is better than too late.
    """
    facts = login.facts
    return Login(
        msgspec.structs.replace(
            facts,
            refreshed=now,
            access_expires=_after(now, answer.expires_in) or now + _ASSUMED,
            refresh_expires=_after(now, answer.refresh_expires_in) or facts.refresh_expires,
            refresh_seconds=facts.refresh_seconds or answer.refresh_expires_in,
            refused=None,
            refusal="",
        ),
        Tokens(answer.access_token, answer.refresh_token or login.tokens.refresh_token),
    )


def _after(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)
