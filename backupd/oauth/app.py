"""What a provider knows us as, where it is, and what is known of it without asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

Grant = Literal["user", "client_credentials", "service_account"]
Secret = Callable[[], str]


@dataclass(frozen=True)
class Endpoints:
    """Where a provider does what; empty: nowhere.

    Args:
        issuer: what the provider calls itself, if it is known to say so in answers (RFC 9207).
        authentication: ways in which apps may prove themselves, in the words of OpenID Connect; empty: not known.
    """

    token: str
    authorization: str = ""
    device: str = ""
    revocation: str = ""
    issuer: str = ""
    authentication: tuple[str, ...] = ()


@dataclass(frozen=True)
class App:
    """An app as it is registered with a provider, for one account. Secrets are functions, asked when they are used.

    Args:
        account: the account's name in the configuration, for messages.
        provider: google, microsoft, or the provider's address: tokens of one are never sent to another.
        issuer: where the endpoints are discovered, if they are not given.
        scopes: what is asked for.
        username: whose mailbox it is; shown to the provider, so that its login page has the name already.
        client_secret: the app's secret, or None for an app that cannot keep one.
        certificate: PEM file by which the provider knows the app, with its private_key; in place of a secret.
        service_key: JSON text of a service account's key, and subject: the user for whom it reads.
        parameters: what else the provider's login page wants to be asked with.
        redirect_host: this machine's name in the address that the login page leads back to.
        ca_file: PEM file with the authorities to believe about the provider; None for the system's.
        unused: after so long without use a login ends, if the provider has such a rule.
        lifetime: how long a login holds, where the configuration says so.
    """

    account: str
    provider: str
    grant: Grant
    scopes: tuple[str, ...]
    client_id: str = ""
    username: str = ""
    issuer: str = ""
    endpoints: Endpoints | None = None
    client_secret: Secret | None = field(default=None, repr=False)
    certificate: Path | None = None
    private_key: Secret | None = field(default=None, repr=False)
    service_key: Secret | None = field(default=None, repr=False)
    subject: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    redirect_host: str = "127.0.0.1"
    ca_file: Path | None = None
    unused: timedelta | None = None
    lifetime: timedelta | None = None

    @property
    def identity(self) -> str:
        """What a stored login belongs to: after a change of it, somebody has to log in again."""
        return f"{self.provider} {self.client_id}".strip()


GOOGLE = Endpoints(
    token="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
    authorization="https://accounts.google.com/o/oauth2/v2/auth",
    revocation="https://oauth2.googleapis.com/revoke",
    issuer="https://accounts.google.com",
    authentication=("client_secret_post",),
)
"""Google has a device endpoint, too, and gives no access to mail there: it is left out, so that nobody tries."""

UNUSED_GOOGLE = timedelta(days=180)
UNUSED_MICROSOFT = timedelta(days=90)


def microsoft(tenant: str) -> Endpoints:
    """Of a tenant, or of common, organizations or consumers. Microsoft has no endpoint to revoke a token."""
    base = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
    return Endpoints(
        token=f"{base}/token",
        authorization=f"{base}/authorize",
        device=f"{base}/devicecode",
        authentication=("client_secret_post",),
    )


GMAIL_SCOPES = ("https://mail.google.com/",)
OPENID_SCOPES = ("openid", "email", "offline_access")
_EXCHANGE = "https://outlook.office.com"


def exchange_scopes(protocol: Literal["imap", "pop3"], grant: Grant) -> tuple[str, ...]:
    """What Exchange Online wants for reading mail: by a user's leave, or by the app's own."""
    if grant == "client_credentials":
        return ("https://outlook.office365.com/.default",)
    return (f"{_EXCHANGE}/{'IMAP' if protocol == 'imap' else 'POP'}.AccessAsUser.All", "offline_access")
