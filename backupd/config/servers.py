"""Sections about mail servers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from backupd.config.oauth import OAuth2Config, one_way_to_log_in
from backupd.config.secrets import Name, Secret
from backupd.config.sections import FilePath, Seconds, Section, is_address, is_loopback, wrong
from backupd.config.sizes import Limit
from backupd.config.times import Duration

_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z")
_GMAIL = {
    "imap.gmail.com": 2 * 10**9,
    "imap.googlemail.com": 2 * 10**9,
    "pop.gmail.com": 10**9,
    "pop.googlemail.com": 10**9,
}
"""Google suspends accounts for a day that download more than 2,500 MB by IMAP or 1,250 MB by POP in one; the owner's
other devices count too."""

_NO_HOST = re.compile(r"[\s/@\[\]\\\0-\x1f]")


class _Server(Section):
    host: Name
    """Name or address of the server."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port; the default goes with tls."""
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    """implicit: TLS from the start; starttls: TLS before the login; none: only for this machine itself."""
    username: Name
    """User name."""
    password: Secret | None = None
    """Password, or an access token for xoauth2 and oauthbearer; or else oauth2."""
    oauth2: OAuth2Config | None = None
    """Log in with tokens of a provider, such as Google or Microsoft, in place of a password."""
    ca_file: FilePath | None = None
    """PEM file with the certificate authorities to believe instead of the system's."""
    fingerprint: str | None = None
    """SHA-256 of the server's certificate; this one is accepted, and no other."""
    allow_plaintext: bool = False
    """Allow tls: none for a host that is not this machine. Everybody on the way can read password and mail."""
    timeout: Seconds = 60.0
    """Seconds the server may be silent."""
    daily_limit: Limit | None = None
    """Most that is downloaded in 24 hours, such as 2GB, or none; by default 2GB from imap.gmail.com, 1GB from
    pop.gmail.com, and none elsewhere."""

    @field_validator("host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        if _NO_HOST.search(value) or (":" in value and not is_address(value)):
            raise ValueError("not a host; write its name or address alone, the port belongs to port")
        return value

    @field_validator("fingerprint")
    @classmethod
    def _sha256(cls, value: str | None) -> str | None:
        if value is not None and not _FINGERPRINT.match(value):
            raise ValueError("not a SHA-256 fingerprint; write 64 hexadecimal digits, with or without colons")
        return value

    @property
    def octets_a_day(self) -> int | None:
        """Most that may be downloaded in 24 hours; None for no limit."""
        if self.daily_limit is None:
            return _GMAIL.get(self.host.lower().rstrip("."))
        return self.daily_limit or None

    @model_validator(mode="after")
    def _no_secrets_in_the_open(self) -> _Server:
        if self.tls == "none" and not self.allow_plaintext and not is_loopback(self.host):
            raise wrong(
                "tls",
                f"none would send the password in the open to {self.host}; use implicit or starttls, "
                "or allow_plaintext: true if that is what you want",
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> _Server:
        one_way_to_log_in(self)
        return self


class ImapConfig(_Server):
    """An IMAP account."""

    connections: int = Field(default=4, ge=1, le=32)
    """Connections at once; providers allow 10 to 20, shared with the user's devices."""
    authentication: Literal["auto", "plain", "login", "xoauth2", "oauthbearer"] = "auto"
    """How to log in; auto takes what the server offers."""

    @model_validator(mode="before")
    @classmethod
    def _default_port(cls, values: Any) -> Any:
        return _with_port(values, implicit=993, other=143)


class Pop3Config(_Server):
    """A POP3 account. Its mail stays on the server, unless delete_after is given."""

    authentication: Literal["auto", "plain", "user", "apop", "xoauth2", "oauthbearer"] = "auto"
    """How to log in; auto takes what the server offers."""
    delete_after: Duration | None = None
    """Delete a message from the server when it has been in a snapshot for so long, a day or more, and has been proved
    to be whole in the repository and in every copy; by default nothing is ever deleted."""

    @field_validator("delete_after")
    @classmethod
    def _a_day_at_least(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(days=1):
            raise ValueError("too short to notice a mistake in time; write 1d or more")
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_port(cls, values: Any) -> Any:
        return _with_port(values, implicit=995, other=110)


def _with_port(values: Any, *, implicit: int, other: int) -> Any:
    if isinstance(values, dict) and values.get("port") is None:
        return {**values, "port": implicit if values.get("tls", "implicit") == "implicit" else other}
    return values
