"""The section about logging in by OAuth2, in place of a password."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from backupd.config.secrets import KeyFile, Name, Secret
from backupd.config.sections import FilePath, Section, is_loopback, wrong
from backupd.config.times import Duration


def _endpoint(value: str) -> str:
    """An address of a provider: https, or http on this machine, where nobody can listen in."""
    try:
        parts = urlsplit(value)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, known = urlsplit(""), False
    if not known or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
        raise ValueError("not the address of a provider; write https://host/path, without user or password")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("http would send tokens in the open; write https")
    return value


def _issuer(value: str) -> str:
    if "?" in value:
        raise ValueError("not an issuer; write its address without ? and what follows")
    return value.rstrip("/")


def _day(value: object) -> date:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("not a day; write it as 2027-11-30") from None


Endpoint = Annotated[Name, AfterValidator(_endpoint)]
Issuer = Annotated[Endpoint, AfterValidator(_issuer)]
Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")])]
Scope = Annotated[Name, Field(pattern=r"^[!#-\[\]-~]+$")]


class OAuth2Config(Section):
    """Log in with access tokens of a provider. One of provider, issuer and token_endpoint says of which."""

    provider: Literal["google", "microsoft"] | None = None
    """A provider that is known already."""
    issuer: Issuer | None = None
    """Any OpenID provider, by the address it is found at; the rest is discovered."""
    token_endpoint: Endpoint | None = None
    """A provider that cannot be discovered: where it gives tokens. Needs those of the endpoints below that are used."""
    authorization_endpoint: Endpoint | None = None
    """Where users log in by browser (auth login --redirect)."""
    device_authorization_endpoint: Endpoint | None = None
    """Where a login on another device begins (auth login --device)."""
    revocation_endpoint: Endpoint | None = None
    """Where tokens are revoked (auth logout)."""
    tenant: Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")] | None = None
    """Of microsoft: the tenant's domain or id; common, organizations or consumers for apps of no single tenant."""
    grant: Literal["user", "client_credentials", "service_account"] = "user"
    """user: somebody logs in once (`backupd auth login`); client_credentials: the app itself may read the mailbox;
    service_account: an account of Google's for programs may read the mailbox of its domain's users."""
    client_id: Name | None = None
    """The app's id, as the provider gave it."""
    client_secret: Secret | None = None
    """The app's secret, if it has one."""
    client_secret_expires: Day | None = None
    """The last day of the app's secret, for a warning in time; providers do not tell."""
    certificate: FilePath | None = None
    """PEM file with the certificate by which the provider knows the app; together with private_key, in place of
    client_secret."""
    private_key: KeyFile | None = None
    """PEM file with the certificate's private key; or where its text is, as for any secret."""
    service_account_key: KeyFile | None = None
    """JSON file with the key of a service account; or where its text is, as for any secret."""
    subject: Name | None = None
    """Of service_account: the user whose mail is read, if it is not username."""
    scopes: tuple[Scope, ...] = Field(default=(), strict=False)
    """What is asked for; by default what reading mail needs."""
    login_lifetime: Duration | None = None
    """How long a login holds, where that is known and the provider does not say; for a warning in time."""
    ca_file: FilePath | None = None
    """PEM file with the certificate authorities to believe about the provider instead of the system's."""

    @model_validator(mode="after")
    def _one_provider(self) -> OAuth2Config:
        given = [name for name in ("provider", "issuer", "token_endpoint") if getattr(self, name) is not None]
        if not given and self.grant != "service_account":
            raise ValueError("no provider; add provider: google or microsoft, or issuer: https://...")
        if len(given) > 1:
            raise wrong(given[1], f"there is {_a(given[0])} already; one of the two is enough")
        if self.tenant is not None and self.provider != "microsoft":
            raise wrong("tenant", "only microsoft has tenants; take it away")
        if self.provider is not None:
            for name in ("authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint"):
                if getattr(self, name) is not None:
                    raise wrong(name, f"those of {self.provider} are known; take it away")
        return self

    @model_validator(mode="after")
    def _what_the_grant_needs(self) -> OAuth2Config:
        if self.grant == "service_account":
            return self._service_account()
        if self.service_account_key is not None:
            raise wrong("service_account_key", "it is used with grant: service_account alone; add that")
        if self.subject is not None:
            raise wrong("subject", "it is used with grant: service_account alone; username says whose mail is read")
        if self.client_id is None:
            raise wrong("client_id", "missing; add the id that the provider gave the app")
        if (self.certificate is None) != (self.private_key is None):
            there, lacking = ("private_key", "certificate")[:: 1 if self.certificate is None else -1]
            raise wrong(there, f"certificate and private_key belong together; add {lacking}")
        if self.certificate is not None and self.client_secret is not None:
            raise wrong("client_secret", "there is a certificate already; one of the two is enough")
        if self.client_secret_expires is not None and self.client_secret is None:
            raise wrong("client_secret_expires", "there is no client_secret; take it away")
        if self.grant == "client_credentials":
            if self.client_secret is None and self.certificate is None:
                raise wrong("grant", "client_credentials needs a client_secret, or certificate and private_key; add it")
            if self.provider == "google":
                raise wrong("grant", "Google does not let apps read mail so; use service_account")
            if self.provider == "microsoft" and self.tenant in (None, "common", "organizations", "consumers"):
                raise wrong("tenant", "client_credentials belong to one tenant; write its domain or id")
            if self.login_lifetime is not None:
                raise wrong("login_lifetime", "nobody logs in with client_credentials; take it away")
        return self

    def _service_account(self) -> OAuth2Config:
        if self.service_account_key is None:
            raise wrong("service_account_key", "missing; write the path of the JSON file with the account's key")
        if self.provider == "microsoft":
            raise wrong("grant", "service accounts are Google's; use client_credentials")
        for name in ("client_id", "client_secret", "client_secret_expires", "certificate", "private_key",
                     "login_lifetime"):  # fmt: skip
            if getattr(self, name) is not None:
                raise wrong(name, "a service account is known by its key alone; take it away")
        return self


def one_way_to_log_in(server: Any) -> None:
    """A server's section has a password or oauth2, and not both. Raises PydanticCustomError."""
    if server.oauth2 is None:
        if server.password is None:
            raise wrong("password", "missing; add it, or an oauth2 section")
        return
    if server.password is not None:
        raise wrong("oauth2", "there is a password already; one of password and oauth2 is how to log in")
    if server.authentication not in ("auto", "xoauth2", "oauthbearer"):
        raise wrong(
            "authentication",
            f"{server.authentication} sends a password, and oauth2 gives tokens; use auto, xoauth2 or oauthbearer",
        )


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
