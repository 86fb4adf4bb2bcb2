"""IMAP targets on the test servers."""

from __future__ import annotations

from backupd.targets.imap import ImapTarget
from backupd.wire.imap_settings import ImapSettings
from tests.support.dovecot_account import Account
from tests.support.restoring import fingerprint
from tests.support.scripted_imap import PASSWORD, USER, ScriptedImap


def target_of(account: Account, *, into: str = "") -> ImapTarget:
    """An account on a real server, to be restored to."""
    settings = ImapSettings(account.host, account.username, account.password, account.port, "none")
    return ImapTarget(settings, fingerprint, into=into)


def target_on(server: ScriptedImap, *, into: str = "") -> ImapTarget:
    """The account of a scripted server."""
    return ImapTarget(ImapSettings(server.host, USER, PASSWORD, server.port, "none"), fingerprint, into=into)
