"""What can be configured. Each field's description is its documentation, in the JSON Schema as well."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from backupd.config.secrets import Secret
from backupd.errors import UsageError

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,6})\s*(s|min|m|h|d|w)\Z")
_EVERY = re.compile(r"every (\d{1,5} )?(second|minute|hour|day|week)s?\Z")
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z")
_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}\Z")


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    raise ValueError("a time is a number and s, m, h, d or w, such as 15m or 2d")


Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=0, le=100_000)]


def _path(value: Any) -> Any:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path is text")
    return Path(value).expanduser()


FilePath = Annotated[Path, BeforeValidator(_path, json_schema_input_type=str)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class S3(_Section):
    """Access to an S3 bucket. Credentials not given here are found as boto3 finds them."""

    endpoint_url: str | None = None
    """Address of the service, unless it is Amazon's."""
    region: str | None = None
    """Region, such as us-east-1."""
    access_key_id: str | None = None
    """Public part of the credentials."""
    secret_access_key: Secret | None = None
    """Secret part of the credentials."""


class RepositoryConfig(_Section):
    """Where the archive is, and what opens it."""

    url: str = Field(min_length=1)
    """A directory, or s3://bucket/prefix."""
    passphrase: Secret | None = None
    """The passphrase; or else key_file."""
    key_file: Secret | None = None
    """The text of a key file or an exported key, usually as {file: ...}."""
    compression_level: int | None = Field(default=None, ge=1, le=19)
    """zstd level of what is stored from now on, 1 to 19; the default is a good one."""
    s3: S3 | None = None
    """Access to the bucket, for an s3: address."""

    @model_validator(mode="after")
    def _one_key(self) -> RepositoryConfig:
        if (self.passphrase is None) == (self.key_file is None):
            raise ValueError("needs either passphrase or key_file")
        return self

    def secret(self) -> str:
        """The passphrase, or the key file's text. Raises ConfigError."""
        source = self.passphrase or self.key_file
        if source is None:
            raise UsageError("the repository has neither passphrase nor key_file")
        return source.resolve()


class Copy(_Section):
    """Another repository, equal to the first."""

    url: str = Field(min_length=1)
    """A directory, or s3://bucket/prefix."""
    s3: S3 | None = None
    """Access to the bucket, for an s3: address."""


class Retention(_Section):
    """How long snapshots are kept; what none of these keeps may be forgotten."""

    keep_last: Count | None = None
    """The newest so many."""
    keep_hourly: Count | None = None
    """The last of each of so many hours."""
    keep_daily: Count | None = None
    """The last of each of so many days."""
    keep_weekly: Count | None = None
    """The last of each of so many weeks."""
    keep_monthly: Count | None = None
    """The last of each of so many months."""
    keep_yearly: Count | None = None
    """The last of each of so many years."""
    keep_within: Duration | None = None
    """Everything younger than this, such as 7d."""


class _Server(_Section):
    host: str = Field(min_length=1)
    """Name or address of the server."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port; the default goes with tls."""
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    """implicit: TLS from the start; starttls: TLS before the login; none: only for this machine itself."""
    username: str = Field(min_length=1)
    """User name."""
    password: Secret
    """Password, or an access token for xoauth2 and oauthbearer."""
    ca_file: FilePath | None = None
    """PEM file with the certificate authorities to believe instead of the system's."""
    fingerprint: str | None = None
    """SHA-256 of the server's certificate; this one is accepted, and no other."""
    allow_plaintext: bool = False
    """Allow tls: none for a host that is not this machine. Everybody on the way can read password and mail."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds the server may be silent."""

    @field_validator("timeout", mode="before")
    @classmethod
    def _whole_seconds(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("fingerprint")
    @classmethod
    def _sha256(cls, value: str | None) -> str | None:
        if value is not None and not _FINGERPRINT.match(value):
            raise ValueError("a fingerprint is 64 hexadecimal digits, with or without colons")
        return value

    @model_validator(mode="after")
    def _no_secrets_in_the_open(self) -> _Server:
        if self.tls == "none" and not self.allow_plaintext and not _is_loopback(self.host):
            raise ValueError(
                f"tls: none would send the password in the open to {self.host}; use implicit or starttls, "
                "or allow_plaintext: true if that is what you want"
            )
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
    """A POP3 account."""

    @model_validator(mode="before")
    @classmethod
    def _default_port(cls, values: Any) -> Any:
        return _with_port(values, implicit=995, other=110)


class Mailboxes(_Section):
    """Which mailboxes are backed up: shell patterns over names, with "/" between levels."""

    include: tuple[str, ...] = Field(default=("*",), strict=False)
    """Take those that match one of these."""
    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """And leave out those that match one of these."""


class AccountConfig(_Section):
    """An account: either imap or pop3."""

    imap: ImapConfig | None = None
    """An IMAP account."""
    pop3: Pop3Config | None = None
    """A POP3 account."""
    mailboxes: Mailboxes = Mailboxes()
    """Which mailboxes are backed up."""
    schedule: str | None = None
    """When the daemon takes snapshots: "every 15 minutes", a cron line of five fields, or "continuous"."""
    objective: Duration | None = None
    """Oldest acceptable snapshot, such as 1h; status and audit say when it is missed."""

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str | None) -> str | None:
        if value is None or value == "continuous" or _EVERY.match(value) or len(value.split()) == 5:
            return value
        raise ValueError('a schedule is "every 15 minutes", a cron line of five fields, or "continuous"')

    @model_validator(mode="after")
    def _one_kind(self) -> AccountConfig:
        if (self.imap is None) == (self.pop3 is None):
            raise ValueError("needs either imap or pop3")
        return self


class Config(_Section):
    """The configuration file."""

    state_dir: FilePath = Path("/var/lib/backupd")
    """Folder for local state; all of it can be rebuilt."""
    repository: RepositoryConfig
    """Where the archive is, and what opens it."""
    copies: tuple[Copy, ...] = Field(default=(), strict=False)
    """Further repositories, equal to the first."""
    retention: Retention = Retention()
    """How long snapshots are kept."""
    accounts: dict[str, AccountConfig] = {}
    """Accounts by the names that commands use."""

    @field_validator("accounts")
    @classmethod
    def _names(cls, value: dict[str, AccountConfig]) -> dict[str, AccountConfig]:
        for name in value:
            if not _ACCOUNT.match(name):
                raise ValueError(f"{name!r} is no name for an account; use up to 64 letters, digits and . _ @ + -")
        return value

    def account(self, name: str) -> AccountConfig:
        """The account of this name. Raises UsageError, with the names there are."""
        if name not in self.accounts:
            known = ", ".join(self.accounts) or "none"
            raise UsageError("no such account in the configuration", subject=name, remedy=f"there are: {known}")
        return self.accounts[name]


def _with_port(values: Any, *, implicit: int, other: int) -> Any:
    if isinstance(values, dict) and values.get("port") is None:
        return {**values, "port": implicit if values.get("tls", "implicit") == "implicit" else other}
    return values


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
