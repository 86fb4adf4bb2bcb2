"""From the configuration to what an audit needs of it: servers to compare with, and places for drills."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.errors import UsageError
from backupd.operations import opening
from backupd.operations.audit_scratch import ImapScratch, MaildirScratch, Scratch
from backupd.operations.audit_source import Servers
from backupd.operations.selection import Selection
from backupd.sources.base import Source
from backupd.sources.pop3.base import Pop3Source
from backupd.targets import parse
from backupd.targets.base import Fingerprint, Target

if TYPE_CHECKING:
    from backupd.config import Config


def servers(config: Config) -> Servers:
    """The servers of the configured accounts."""

    def imap(account: str) -> Source | None:
        found = config.accounts.get(account)
        return opening.open_source(config, account) if found and found.imap else None

    def pop3(account: str) -> Pop3Source | None:
        found = config.accounts.get(account)
        return opening.open_pop3(config, account) if found and found.pop3 else None

    def selection(account: str) -> Selection:
        chosen = config.account(account).mailboxes
        return Selection(chosen.include, chosen.exclude)

    return Servers(imap, pop3, selection)


def scratch(config: Config, into: str | None) -> Callable[[str], Scratch]:
    """Where drills restore to: a temporary Maildir, or `imap:ACCOUNT`. Raises UsageError for anything else."""
    if into is None:
        return lambda _account: MaildirScratch()
    spec = parse.parse(into)
    if spec.kind != "imap":
        raise UsageError(
            "a drill restores to a temporary Maildir or to an IMAP account",
            subject=f"--into {into}",
            remedy="leave it out, or write imap:ACCOUNT",
        )
    settings, source = opening.imap_settings(config, spec.place), opening.open_source(config, spec.place)

    def open_target(fingerprint: Fingerprint, prefix: str) -> Target:
        from backupd.targets.imap.target import ImapTarget

        return ImapTarget(settings, fingerprint, into=prefix)

    def remove(prefix: str) -> list[bytes]:
        from backupd.targets.imap.clearing import clear

        return clear(settings, prefix)

    def make(_account: str) -> Scratch:
        prefix = f"backupd-drill-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        return ImapScratch(spec.place, prefix, open_target, source, remove)

    return make
