"""The configuration as `backupd doctor` wants it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from backupd.cli.context import Context
from backupd.operations import auth, notify
from backupd.operations.doctor import Account, Patient
from backupd.operations.doctor_pop3 import check_pop3, forewarnings
from backupd.operations.doctor_server import Address, check_imap
from backupd.operations.opening import imap_settings, open_pop3, open_source, pop3_settings, probe_bucket
from backupd.repository import description, names


def patient(context: Context) -> Patient:
    """What there is to examine. Raises ConfigError."""
    config, now = context.config, datetime.now(UTC)
    accounts = {}
    for name, account in config.accounts.items():
        known = tuple(auth.findings(config, name, now))
        if account.imap:
            settings = imap_settings(config, name)
            address = Address(settings.host, settings.port, settings.tls, settings.trust)
            accounts[name] = Account(address, partial(check_imap, partial(open_source, config, name)), known)
        elif account.pop3:
            pop3 = pop3_settings(config, name)
            address = Address(pop3.host, pop3.port, pop3.tls, pop3.trust, "pop3")
            deletes = account.pop3.delete_after is not None
            known = (*known, *forewarnings(f"account {name}", pop3.host, pop3.username, deletes=deletes))
            look = partial(check_pop3, partial(open_pop3, config, name), deletes=deletes)
            accounts[name] = Account(address, look, known)
    url, keyless = config.repository.url, config.repository.keyless

    def count_snapshots() -> int:
        storage = context.storage()
        description.describe(storage)
        return sum(1 for _ in storage.list(names.SNAPSHOTS))

    return Patient(
        config_path=context.config_file,
        secret_files=context.secret_files(),
        state_dir=Path(config.state_dir),
        repository_url=url,
        repository_folder=None if "://" in url or keyless else Path(url),
        probe_bucket=None if keyless else probe_bucket(config),
        open_repository=context.open_repository,
        accounts=accounts,
        notifications=partial(notify.findings, config),
        count_snapshots=count_snapshots if keyless else None,
    )
