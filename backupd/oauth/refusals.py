"""What a provider's refusal means to the owner of an account, and what to do about it (RFC 6749, 5.2)."""

from __future__ import annotations

from backupd.errors import ConnectionFailed, LoginRefused, ServerError
from backupd.oauth.app import App
from backupd.wire.stream import show, without

_PASSING = {"temporarily_unavailable", "server_error", "slow_down", "too_many_requests"}
_APP = {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_client_metadata"}
_LONGEST_REASON = 300


class Refused(LoginRefused):
    """The provider gives no token. code: its word for why, such as invalid_grant."""

    def __init__(self, what: str, *, code: str, subject: str = "", remedy: str = "") -> None:
        super().__init__(what, subject=subject, remedy=remedy)
        self.code = code


def refusal(app: App, code: object, description: object, secrets: tuple[str, ...]) -> ServerError:
    """The error for a refusal. secrets: what the provider may repeat, and nobody shall see."""
    word = _shown(code, secrets, 60) or "no reason"
    said = _shown(description, secrets, _LONGEST_REASON)
    reason = f"{word}: {said}" if said else word
    if word in _PASSING:
        return ConnectionFailed(
            f"{app.provider} gives no token now: {reason}", subject=app.account, remedy="another try comes later"
        )
    return Refused(
        f"{app.provider} gives no token: {reason}", code=word, subject=app.account, remedy=_remedy(app, word)
    )


def _shown(value: object, secrets: tuple[str, ...], limit: int) -> str:
    """Words of the provider: its first line, without secrets. Microsoft lets trace ids follow in further ones."""
    if not isinstance(value, str):
        return ""
    hidden = without(value.encode("utf-8", "replace"), (secret.encode("utf-8", "replace") for secret in secrets))
    lines = hidden.strip().splitlines()
    return show(lines[0], limit) if lines else ""


def _remedy(app: App, code: str) -> str:
    if code in _APP and code != "unauthorized_client":
        what = {"service_account": "service_account_key"}.get(app.grant)
        return f"check {what or 'client_id, and client_secret or certificate: they expire'}"
    if code == "invalid_scope":
        return "check scopes, and what the app is allowed to ask for"
    if app.grant == "service_account":
        return "check service_account_key, subject, that the domain lets it read mail, and this machine's clock"
    if app.grant == "client_credentials":
        return "check that the app is allowed to read the mailbox, and its secret or certificate"
    if code == "unauthorized_client":
        return "check that the app is registered for this kind of login"
    return f"run: backupd auth login {app.account}"
