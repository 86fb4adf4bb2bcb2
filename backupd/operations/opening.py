"""From the configuration to the things it names: repository, accounts, targets, state."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from backupd.errors import UsageError
from backupd.oauth.store import Logins
from backupd.operations.access_token import AccessToken
from backupd.operations.daily_limit import LimitedPop3Source, LimitedSource, Meter
from backupd.operations.oauth_apps import app_of
from backupd.operations.state import State
from backupd.operations.token_keys import KEYS
from backupd.repository.keys import Secrets
from backupd.repository.parity_storage import ParityStorage
from backupd.repository.repository import Repository, unlock
from backupd.sources.base import Source
from backupd.sources.pop3.base import Pop3Source
from backupd.storage.base import Storage
from backupd.storage.opening import open_storage
from backupd.storage.s3_settings import S3Settings
from backupd.targets import parse
from backupd.targets.base import Target
from backupd.wire.bandwidth import Bandwidth
from backupd.wire.imap_settings import ImapSettings
from backupd.wire.pop3_settings import Pop3Settings
from backupd.wire.settings import Credentials, ServerSettings

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.model import S3, Copy
    from backupd.config.servers import ImapConfig, Pop3Config
    from backupd.storage.s3_probe import BucketFacts

Settings = TypeVar("Settings", bound=ServerSettings)


def open_repository_storage(config: Config) -> Storage:
    """The place of the repository, which need not exist yet, with parity where it is wanted. Raises ConfigError."""
    storage = open_storage(config.repository.url, s3_settings(config.repository.s3))
    return storage if config.repository.parity is None else ParityStorage(storage, config.repository.parity)


def probe_bucket(config: Config) -> Callable[[], BucketFacts] | None:
    """What tries what the repository's bucket does; None where it is in none."""
    if not config.repository.url.startswith("s3://"):
        return None
    from backupd.storage.s3 import S3Storage

    bucket = S3Storage(config.repository.url, s3_settings(config.repository.s3) or S3Settings())
    return lambda: bucket.probe(datetime.now(UTC))


def find_copy(config: Config, text: str) -> Copy:
    """The configured copy of this address, or of this number (from 1). Raises UsageError."""
    for number, each in enumerate(config.copies, 1):
        if text in (each.url, str(number)):
            return each
    known = ", ".join(each.url for each in config.copies)
    raise UsageError(
        "there is no such copy in the configuration",
        subject=text,
        remedy=f"there are: {known}" if known else "name one below copies:",
    )


def at_copy(config: Config, text: str) -> Config:
    """The configuration as if this copy was the repository. Raises UsageError.

    A copy has no parity: the other one is what heals it. Its state is its own: the copy may lack what the repository
    has, and what is known of the one misleads in the other.
    """
    copy = find_copy(config, text)
    repository = config.repository.model_copy(update={"url": copy.url, "s3": copy.s3, "parity": None})
    own = Path(config.state_dir) / "copies" / hashlib.sha256(copy.url.encode()).hexdigest()[:16]
    # To each of them, all the others are copies.
    first = type(copy).model_construct(url=config.repository.url, s3=config.repository.s3)
    others = (first, *(each for each in config.copies if each.url != copy.url))
    return config.model_copy(update={"repository": repository, "state_dir": own, "copies": others})


def s3_settings(s3: S3 | None) -> S3Settings | None:
    """How to reach a bucket. Secrets are fetched with the first request, and again when they have expired."""
    if s3 is None:
        return None
    lock = s3.object_lock
    return S3Settings(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        addressing=s3.addressing,
        storage_class=s3.storage_class,
        encryption=s3.encryption,
        kms_key=s3.kms_key,
        lock_mode="COMPLIANCE" if lock and lock.mode == "compliance" else "GOVERNANCE" if lock else None,
        lock_seconds=lock.keep.total_seconds() if lock else 0.0,
        ca_file=s3.ca_file,
        profile=s3.profile,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key.resolve if s3.secret_access_key else None,
        session_token=s3.session_token.resolve if s3.session_token else None,
        timeout=s3.timeout,
        retry_seconds=s3.retry_for.total_seconds(),
        connections=s3.connections,
    )


def repository_secret(config: Config) -> str:
    """The passphrase, or the text of the key file. Raises ConfigError."""
    return config.repository.secret()


def open_repository(config: Config, storage: Storage) -> Repository:
    """The repository in its storage, unlocked. Raises NoRepository, WrongKey, ConfigError."""
    secrets = unlock(storage, repository_secret(config))
    KEYS.learn(config.repository.url, secrets)
    # State keeps the index cache too; opening it makes the folder.
    state = open_state(config)
    state.close()
    return Repository(storage, secrets, cache=state.path, level=config.repository.compression_level)


def open_state(config: Config) -> State:
    """The state directory. Raises StateDamaged, StorageDenied, StorageFull."""
    return State(Path(config.state_dir))


def open_source(
    config: Config,
    account: str,
    connections: int | None = None,
    *,
    meter: Meter | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Source:
    """Where the account's mail is read from by IMAP.

    Args:
        connections: fewer at once than configured.
        meter: counts what is downloaded, and ends it where its limit does.
        wait: some seconds that the server asks for; True when told to stop meanwhile.

    Raises UsageError for an unknown account, ConfigError.
    """
    from backupd.sources.imap.source import ImapSource

    configured = _imap(config, account).connections
    most = min(configured, connections or configured)
    source = ImapSource(_counted(imap_settings(config, account), meter), most, sleep=wait)
    return LimitedSource(source, meter) if meter and meter.limit else source


def open_pop3(config: Config, account: str, *, meter: Meter | None = None) -> Pop3Source:
    """Where the account's mail is read from by POP3. meter: as for `open_source`. Raises UsageError, ConfigError."""
    from backupd.sources.pop3.source import Pop3Source as Source

    source = Source(_counted(pop3_settings(config, account), meter))
    return LimitedPop3Source(source, meter) if meter and meter.limit else source


def _counted(settings: Settings, meter: Meter | None) -> Settings:
    return replace(settings, flow=meter) if meter else settings


def open_meter(
    config: Config, account: str, state: State, *, limited: bool = True, clock: Callable[[], datetime] | None = None
) -> Meter:
    """What counts the downloads of one run of the account. limited: whether its daily limit holds. Raises UsageError.
    """
    found = config.account(account)
    section = found.imap or found.pop3
    limit = section.octets_a_day if section and limited else None
    return Meter(state, account, limit=limit, flow=bandwidth(config), clock=clock or (lambda: datetime.now(UTC)))


def bandwidth(config: Config) -> Bandwidth | None:
    """The bound on what all connections to mail servers take together; the same for the same rate."""
    return None if config.bandwidth is None else _bandwidth(config.bandwidth)


@lru_cache(maxsize=8)
def _bandwidth(rate: int) -> Bandwidth:
    return Bandwidth(rate)


def pop3_settings(config: Config, account: str) -> Pop3Settings:
    """How to reach a POP3 account. Password or token are asked for at each login. Raises UsageError."""
    pop3 = config.account(account).pop3
    if pop3 is None:
        raise UsageError("this account is no POP3 account", subject=account)
    return Pop3Settings(
        host=pop3.host,
        username=pop3.username,
        **_credentials(config, account, pop3),
        port=pop3.port or 995,
        tls=pop3.tls,
        ca_file=pop3.ca_file,
        fingerprint=pop3.fingerprint or "",
        timeout=pop3.timeout,
        flow=bandwidth(config),
        authentication=pop3.authentication,
    )


def open_copies(config: Config) -> list[Storage]:
    """The places of all copies. Raises ConfigError."""
    return [open_storage(copy.url, s3_settings(copy.s3)) for copy in config.copies]


def target_opener(config: Config, text: str, *, into: str | None, secrets: Secrets) -> Callable[[], Target]:
    """What opens a target; it may be called again after a lost connection. Raises UsageError, ConfigError."""
    spec = parse.parse(text)
    where, below = Path(spec.place), into or ""
    match spec.kind:
        case "imap":
            from backupd.targets.imap.target import ImapTarget

            settings = imap_settings(config, spec.place)
            return lambda: ImapTarget(settings, secrets.fingerprint, into=below)
        case "maildir":
            from backupd.targets.maildir import MaildirTarget

            return lambda: MaildirTarget(where, secrets.fingerprint, into=below)
        case "mbox":
            from backupd.targets.mbox import MboxTarget

            return lambda: MboxTarget(where, secrets.fingerprint, into=below)
        case "eml":
            from backupd.targets.eml import EmlTarget

            return lambda: EmlTarget(where, secrets.fingerprint, into=below)
        case "zip":
            from backupd.targets.zip import ZipTarget

            return lambda: ZipTarget(where, secrets.fingerprint, into=below)


def imap_settings(config: Config, account: str) -> ImapSettings:
    """How to reach an IMAP account. Password or token are asked for at each login. Raises UsageError."""
    imap = _imap(config, account)
    return ImapSettings(
        host=imap.host,
        username=imap.username,
        **_credentials(config, account, imap),
        port=imap.port,
        tls=imap.tls,
        ca_file=imap.ca_file,
        fingerprint=imap.fingerprint or "",
        timeout=imap.timeout,
        flow=bandwidth(config),
        authentication=imap.authentication,
    )


def open_logins(config: Config) -> Logins:
    """The stored logins by OAuth2. The repository is opened for their key when it is needed, if it has not been yet."""
    url = config.repository.url

    def key() -> bytes:
        return KEYS.get(url, lambda: unlock(open_repository_storage(config), repository_secret(config)))

    return Logins(config.login_folder, key)


def _credentials(config: Config, account: str, server: ImapConfig | Pop3Config) -> Credentials:
    """What to log in with: asked for at each login, so a password that changes is no problem, and a token is good."""
    app = app_of(config, account)
    if app is not None:
        token = AccessToken(app, open_logins(config))
        return {"password": token, "renew": token.renewed}
    if server.password is None:
        raise UsageError("the account has neither password nor oauth2", subject=account)
    return {"password": server.password.resolve, "renew": None}


def _imap(config: Config, account: str):  # type: ignore[no-untyped-def]
    found = config.account(account)
    if found.imap is None:
        raise UsageError("this account has no imap: section", subject=account, remedy="give one that has")
    return found.imap
