"""From the configuration to an app at a provider (backupd/oauth/app.py), with all that is left out filled in."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Literal

from backupd.oauth import app as known
from backupd.oauth.app import App, Endpoints

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.oauth import OAuth2Config


def app_of(config: Config, account: str) -> App | None:
    """The app by which the account's token is had; None for an account with a password. Raises UsageError."""
    found = config.account(account)
    server = found.imap or found.pop3
    if server is None or server.oauth2 is None:
        return None
    oauth2 = server.oauth2
    google, microsoft = _is_google(oauth2), oauth2.provider == "microsoft"
    return App(
        account=account,
        provider="google" if google else oauth2.provider or oauth2.issuer or oauth2.token_endpoint or "",
        grant=oauth2.grant,
        scopes=oauth2.scopes or _scopes(oauth2, "imap" if found.imap else "pop3"),
        client_id=oauth2.client_id or "",
        username=server.username,
        issuer=oauth2.issuer or "",
        endpoints=_endpoints(oauth2),
        client_secret=oauth2.client_secret.resolve if oauth2.client_secret else None,
        certificate=oauth2.certificate,
        private_key=oauth2.private_key.resolve if oauth2.private_key else None,
        service_key=oauth2.service_account_key.resolve if oauth2.service_account_key else None,
        subject=oauth2.subject or server.username,
        parameters=_parameters(oauth2, server.username),
        # Microsoft lets an app's port be any under this name alone, all others under the address (RFC 8252, 7.3, 8.3).
        redirect_host="localhost" if microsoft else "127.0.0.1",
        ca_file=oauth2.ca_file,
        unused=known.UNUSED_GOOGLE if google else known.UNUSED_MICROSOFT if microsoft else None,
        lifetime=oauth2.login_lifetime,
    )


def client_secret_expires(config: Config, account: str) -> date | None:
    """The last day of the app's secret, where the configuration says it. Raises UsageError."""
    found = config.account(account)
    server = found.imap or found.pop3
    return server.oauth2.client_secret_expires if server and server.oauth2 else None


def _is_google(oauth2: OAuth2Config) -> bool:
    elsewhere = oauth2.issuer or oauth2.token_endpoint
    return oauth2.provider == "google" or (oauth2.grant == "service_account" and not elsewhere)


def _endpoints(oauth2: OAuth2Config) -> Endpoints | None:
    """None where they are discovered. A service account's key says itself where its tokens are."""
    if oauth2.provider == "google":
        return known.GOOGLE if oauth2.grant == "user" else None
    if oauth2.provider == "microsoft":
        return known.microsoft(oauth2.tenant or "common")
    if oauth2.token_endpoint is None:
        return None
    return Endpoints(
        token=oauth2.token_endpoint,
        authorization=oauth2.authorization_endpoint or "",
        device=oauth2.device_authorization_endpoint or "",
        revocation=oauth2.revocation_endpoint or "",
    )


def _scopes(oauth2: OAuth2Config, protocol: Literal["imap", "pop3"]) -> tuple[str, ...]:
    if oauth2.provider == "google" or oauth2.grant == "service_account":
        return known.GMAIL_SCOPES
    if oauth2.provider == "microsoft":
        return known.exchange_scopes(protocol, oauth2.grant)
    return known.OPENID_SCOPES if oauth2.grant == "user" else ()


def _parameters(oauth2: OAuth2Config, username: str) -> tuple[tuple[str, str], ...]:
    """What a login page needs to be asked with to give a refresh token, and to know whom to greet."""
    hint = ("login_hint", username)
    if oauth2.provider == "google":
        return (hint, ("access_type", "offline"), ("prompt", "consent"))
    if oauth2.provider == "microsoft":
        return (hint,)
    return (hint, ("prompt", "consent"))  # OpenID Connect Core 1.0, 11: or offline_access is ignored
