"""Logging in on another device (RFC 8628): here a code is shown, there it is entered, and meanwhile we ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backupd.errors import ConnectionFailed, Interrupted, LoginRefused, ProtocolError, Transient, UsageError
from backupd.oauth.refusals import Refused
from backupd.oauth.token import Answer

if TYPE_CHECKING:
    from backupd.oauth.provider import Provider

_INTERVAL = 5.0
_LONGEST_INTERVAL = 60.0
_SHOWN = re.compile(r"[\x20-\x7e]{1,100}\Z")
_ADDRESS = re.compile(r"https?://[\x21-\x7e]{1,2000}\Z")


@dataclass(frozen=True)
class Invitation:
    """What a person must do. address: to be opened on any device. code: to be entered there. complete: an address with
    the code in it, or empty. seconds: how long that may take. interval: between two questions whether it is done.
    """

    address: str
    code: str
    complete: str
    seconds: float
    interval: float
    device_code: str = field(repr=False)


def read_invitation(said: Mapping[str, Any], provider: str) -> Invitation:
    """What a device endpoint said (RFC 8628, 3.2). Raises ProtocolError."""
    address = said.get("verification_uri", said.get("verification_url"))  # Google's draft lives on
    code, secret, complete = said.get("user_code"), said.get("device_code"), said.get("verification_uri_complete") or ""
    seconds, interval = said.get("expires_in", 600), said.get("interval", _INTERVAL)
    usable = (
        isinstance(address, str)
        and _ADDRESS.match(address)
        and isinstance(code, str)
        and _SHOWN.match(code)
        and isinstance(secret, str)
        and secret
        and isinstance(complete, str)
        and all(isinstance(each, int | float) and each == each for each in (seconds, interval))  # no NaN
    )
    if not usable:
        raise ProtocolError("the provider sent no code for a device that can be used", subject=provider)
    return Invitation(
        address=str(address),
        code=str(code),
        complete=complete if _ADDRESS.match(complete) else "",
        seconds=min(max(float(seconds), 1.0), 3600.0),
        interval=min(max(float(interval), 1.0), _LONGEST_INTERVAL),
        device_code=str(secret),
    )


def next_interval(interval: float, error: Exception) -> float | None:
    """Seconds to wait before the next question after this answer; None when it is the last (RFC 8628, 3.5)."""
    if isinstance(error, Refused):
        return interval if error.code == "authorization_pending" else None
    if isinstance(error, Transient):
        longer = interval * 2 if not _is_slow_down(error) else interval + 5
        return min(longer, _LONGEST_INTERVAL)
    return None


def _is_slow_down(error: Exception) -> bool:
    return isinstance(error, ConnectionFailed) and "slow_down" in error.what


def log_in(
    provider: Provider,
    tell: Callable[[Invitation], None],
    *,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> Answer:
    """Have somebody log in on another device.

    Args:
        tell: shows the person what to do.
        wait: waits so many seconds; whether we were stopped meanwhile.
        clock: seconds that only go forward.

    Raises what Provider does, Interrupted, and UsageError where the provider has no such way.
    """
    app = provider.app
    if not provider.endpoints.device:
        raise UsageError(
            f"{app.provider} has no login on another device for this", subject=app.account, remedy="use --redirect"
        )
    invitation = read_invitation(provider.begin_device(), app.provider)
    tell(invitation)
    until, interval = clock() + invitation.seconds, invitation.interval
    while clock() < until:
        if wait(interval):
            raise Interrupted("stopped before anybody had logged in", subject=app.account)
        try:
            return provider.device_token(invitation.device_code)
        except (LoginRefused, ConnectionFailed) as error:
            following = next_interval(interval, error)
            if following is None:
                raise _ended(error, app.account) from None
            interval = following
    raise LoginRefused("nobody has entered the code in time", subject=app.account, remedy="run the command once more")


def _ended(error: Exception, account: str) -> Exception:
    code = error.code if isinstance(error, Refused) else ""
    if code == "access_denied":
        return LoginRefused("the login was declined at the provider", subject=account, remedy="log in, and agree")
    if code == "expired_token":
        return LoginRefused("nobody has entered the code in time", subject=account, remedy="run the command once more")
    return error
