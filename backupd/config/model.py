"""What can be configured. Each field's description is its documentation, in the JSON Schema as well."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from backupd.config.daemon import Hours, Maintenance, Share
from backupd.config.health import Health
from backupd.config.secrets import KeyFile, Name, Secret
from backupd.config.sections import AccountName, Address, FilePath, Seconds, Section, wrong
from backupd.config.servers import ImapConfig, Pop3Config
from backupd.config.sizes import Rate, Size
from backupd.config.telling import LogConfig, NotifyConfig, PingsConfig
from backupd.config.times import Duration, Objective, Schedule, usual_objective
from backupd.errors import ConfigError, UsageError

Count = Annotated[int, Field(ge=0, le=100_000)]


class ObjectLock(Section):
    """Locks that keep stored objects from being destroyed; the bucket must have been made with Object Lock."""

    mode: Literal["compliance", "governance"]
    """compliance: nobody can shorten a lock; governance: those can who have the right to bypass it."""
    keep: Duration
    """How long an object is locked, a day or more; locks of what is still needed are made longer in time."""

    @field_validator("keep")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(days=1):
            raise ValueError("too short to be of use; write 1d or more")
        return value


class S3(Section):
    """Access to an S3 bucket. Credentials not given here are found as boto3 finds them."""

    endpoint_url: Name | None = None
    """Address of the service, unless it is Amazon's."""
    region: Name | None = None
    """Region, such as us-east-1."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket is named: in the path, or in the host's name; auto: path where endpoint_url is given."""
    storage_class: Name | None = None
    """Storage class of new objects; one that can be read at once."""
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """Have the service encrypt new objects once more at rest; backupd's own encryption does not depend on it."""
    kms_key: Name | None = None
    """Id of the key for aws:kms, unless it is the account's default."""
    object_lock: ObjectLock | None = None
    """Lock new objects, so that nobody can destroy them."""
    ca_file: FilePath | None = None
    """PEM file with the certificate authorities to believe instead of the usual ones."""
    profile: Name | None = None
    """Profile of ~/.aws/config to take credentials and region from."""
    access_key_id: Name | None = None
    """Public part of the credentials."""
    secret_access_key: Secret | None = None
    """Secret part of the credentials."""
    session_token: Secret | None = None
    """Third part of credentials that expire; fetched again when they have."""
    timeout: Seconds = 60.0
    """Seconds the service may be silent."""
    retry_for: Duration = timedelta(minutes=5)
    """How long a request that fails is tried again before the command fails."""
    connections: int = Field(default=16, ge=1, le=256)
    """Most connections at once."""

    @field_validator("endpoint_url")
    @classmethod
    def _bare_endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("not the address of a service; write https://host:port, without user or password")
        return value

    @model_validator(mode="after")
    def _whole_credentials(self) -> S3:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise wrong("access_key_id", "access_key_id and secret_access_key belong together; add the other one")
        if self.session_token is not None and self.access_key_id is None:
            raise wrong("session_token", "it belongs to an access_key_id and a secret_access_key; add both")
        if self.profile is not None and self.access_key_id is not None:
            raise wrong("profile", "there is an access_key_id already; one of profile and access_key_id is enough")
        if self.kms_key is not None and self.encryption in (None, "AES256"):
            raise wrong("kms_key", "it is used with encryption: aws:kms alone; add that")
        return self


class RepositoryConfig(Section):
    """Where the archive is, and what opens it."""

    url: Address
    """A directory, from the configuration's folder if relative, or s3://bucket/prefix."""
    passphrase: Secret | None = None
    """The passphrase; or else key_file."""
    key_file: KeyFile | None = None
    """Path of a key file or of an exported key; or where its text is, as for any secret."""
    keyless: bool = False
    """This machine holds no key, and can only copy, repair, and audit stored objects."""
    compression_level: int | None = Field(default=None, ge=1, le=19)
    """zstd level of what is stored from now on, 1 to 19; by default 3 when mail comes fast, else 9."""
    parity: Share | None = None
    """Parity stored with each object, such as 5%, from which `repair` heals bit rot; by default none."""
    s3: S3 | None = None
    """Access to the bucket, for an s3: address."""

    @model_validator(mode="after")
    def _one_key(self) -> RepositoryConfig:
        if self.passphrase is not None and self.key_file is not None:
            raise wrong("key_file", "there is a passphrase already; one of passphrase and key_file opens a repository")
        has_one = self.passphrase is not None or self.key_file is not None
        if self.keyless and has_one:
            raise wrong("keyless", "there is a passphrase or key_file; a machine that holds no key has neither")
        if not self.keyless and not has_one:
            raise ValueError("neither passphrase nor key_file; add one of them")
        return self

    def secret(self) -> str:
        """The passphrase, or the key file's text. Raises ConfigError."""
        source = self.passphrase or self.key_file
        if source is None:
            raise ConfigError(
                "this machine holds no key (repository.keyless), and this needs one",
                remedy="run it where there is a key; `copy`, `repair` and `audit --level storage` need none",
            )
        return source.resolve()


class Copy(Section):
    """Another repository, equal to the first."""

    url: Address
    """A directory, from the configuration's folder if relative, or s3://bucket/prefix."""
    s3: S3 | None = None
    """Access to the bucket, for an s3: address."""


class Retention(Section):
    """How long snapshots are kept; what none of these keeps is forgotten. Without any, all are kept."""

    keep_last: Count | None = None
    """The newest so many."""
    keep_hourly: Count | None = None
    """The last of each of the newest so many hours that have one."""
    keep_daily: Count | None = None
    """The last of each of the newest so many days (in UTC) that have one."""
    keep_weekly: Count | None = None
    """The last of each of the newest so many weeks that have one."""
    keep_monthly: Count | None = None
    """The last of each of the newest so many months that have one."""
    keep_yearly: Count | None = None
    """The last of each of the newest so many years that have one."""
    keep_within: Duration | None = None
    """All that are less than this, such as 7d, older than the newest."""


class Mailboxes(Section):
    """Which mailboxes are backed up: shell patterns over names, with "/" between levels."""

    include: tuple[str, ...] = Field(default=("*",), strict=False, min_length=1)
    """Take those that match one of these."""
    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """And leave out those that match one of these."""


class AccountConfig(Section):
    """An account: either imap or pop3."""

    imap: ImapConfig | None = None
    """An IMAP account."""
    pop3: Pop3Config | None = None
    """A POP3 account."""
    mailboxes: Mailboxes = Mailboxes()
    """Which mailboxes are backed up."""
    schedule: Schedule | None = None
    """When the daemon takes snapshots: "every 15 minutes", a cron line of five fields, or "continuous"."""
    watch: tuple[Name, ...] = Field(default=("INBOX",), strict=False, min_length=1)
    """With "continuous": mailboxes whose changes are waited for, where the server cannot tell of all (no NOTIFY)."""
    poll: Duration = timedelta(minutes=15)
    """With "continuous": how often all mailboxes are looked at besides."""
    objective: Objective | None = None
    """Oldest acceptable snapshot, in place of the default; status and audit say when it is missed."""
    retention: Retention | None = None
    """How long this account's snapshots are kept, in place of the default; {} keeps all."""

    @model_validator(mode="after")
    def _one_kind(self) -> AccountConfig:
        if self.imap is not None and self.pop3 is not None:
            raise wrong("pop3", "there is imap already; make this an account of its own")
        if self.imap is None and self.pop3 is None:
            raise ValueError("neither imap nor pop3; add one of them")
        return self


class Config(Section):
    """The configuration file."""

    state_dir: FilePath = Path("/var/lib/backupd")
    """Folder for local state; all of it can be rebuilt."""
    concurrency: int = Field(default=3, ge=1, le=64)
    """Accounts that are backed up at the same time, each over connections of its own."""
    connections_per_host: int = Field(default=32, ge=1, le=10_000)
    """Connections to one mail server that backups of all accounts may have open at once."""
    memory: Size = 256 << 20
    """Memory for the mail that is under way in all accounts together, such as 256MiB."""
    bandwidth: Rate | None = None
    """Most that all connections to mail servers take together in a second, in each direction, such as 10MB."""
    schedule: Schedule = "every 15 minutes"
    """When the daemon takes snapshots of accounts that have no schedule of their own."""
    objective: Objective | None = None
    """Oldest acceptable snapshot, such as 1h, or none; by default a day more than the schedule leaves between two runs,
    and at least two days."""
    quiet_hours: tuple[Hours, ...] = Field(default=(), strict=False)
    """Hours of the day, such as 08:00-18:00, in which the daemon begins nothing by itself."""
    maintenance: Maintenance = Maintenance()
    """What the daemon does with the repository beside backups."""
    health: Health = Health()
    """Where the daemon can be asked over HTTP how it is."""
    repository: RepositoryConfig
    """Where the archive is, and what opens it."""
    copies: tuple[Copy, ...] = Field(default=(), strict=False)
    """Further repositories, equal to the first."""
    retention: Retention = Retention()
    """How long snapshots are kept, of accounts that do not say so themselves."""
    log: LogConfig = LogConfig()
    """What the daemon writes to standard error."""
    notify: tuple[NotifyConfig, ...] = Field(default=(), strict=False)
    """Places that are told of trouble."""
    pings: PingsConfig | None = None
    """Addresses of a service that notices when backups stay away, such as Healthchecks."""
    accounts: dict[AccountName, AccountConfig] = Field(default={}, json_schema_extra={"additionalProperties": False})
    """Accounts by the names that commands use."""

    _file: Path | None = PrivateAttr(default=None)
    _secrets: tuple[tuple[str, Secret], ...] = PrivateAttr(default=())
    _login_folder: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: object) -> None:
        """A login is one, whichever copy of the repository is worked on: so its place is that of the first state_dir.
        """
        self._login_folder = self.state_dir / "logins"

    @property
    def login_folder(self) -> Path:
        """Where logins by OAuth2 are kept."""
        return self._login_folder

    @model_validator(mode="after")
    def _known_to_each_other(self) -> Config:
        for name in self.pings.accounts if self.pings else ():
            if name not in self.accounts:
                raise wrong("pings", f"there is no account {name}; name one of accounts")
        names = [each.name or str(number) for number, each in enumerate(self.notify, 1)]
        if len(set(names)) < len(names):
            raise wrong("notify", "two places of one name; give each its own")
        return self

    def read_from(self, file: Path, secrets: tuple[tuple[str, Secret], ...]) -> None:
        """Remember the file this was read from, and its secrets with their keys."""
        self._file, self._secrets = file, secrets

    def secrets(self) -> tuple[tuple[str, Secret], ...]:
        """All secrets, each with its key, such as repository.passphrase."""
        return self._secrets

    def warnings(self) -> list[str]:
        """What is not wrong and should be otherwise: secrets that others on this machine can read."""
        found = [
            f"{key}: {secret.path} can be read by others; chmod go= it"
            for key, secret in self._secrets
            if secret.path and _readable_by_others(secret.path)
        ]
        inline = [key for key, secret in self._secrets if secret.inline]
        if self._file and inline and _readable_by_others(self._file):
            found.append(f"{inline[0]}: {self._file} can be read by others; chmod go= it, or use {{file: ...}}")
        return found

    def account(self, name: str) -> AccountConfig:
        """The account of this name. Raises UsageError, with the names there are."""
        if name not in self.accounts:
            known = ", ".join(self.accounts) or "none"
            raise UsageError("no such account in the configuration", subject=name, remedy=f"there are: {known}")
        return self.accounts[name]


    def objectives(self, names: Iterable[str] | None = None) -> dict[str, timedelta | None]:
        """How old the newest backup of each of these accounts may be, or of all; None where nobody cares.

        Raises UsageError for a name that there is not.
        """
        return {name: self._objective(self.account(name)) for name in (self.accounts if names is None else names)}

    def _objective(self, account: AccountConfig) -> timedelta | None:
        wanted = account.objective or self.objective or usual_objective(account.schedule or self.schedule)
        return None if wanted == "none" else wanted


def _readable_by_others(path: Path) -> bool:
    """Whether the file's group or everybody may read it; False when it cannot be looked at."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
