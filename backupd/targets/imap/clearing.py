"""Removing again what a trial restore put into an account: mailboxes below a prefix of its own, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from backupd.targets.imap.listing import list_account
from backupd.targets.paths import levels_of_prefix
from backupd.wire.imap_commands import string
from backupd.wire.imap_connection import ImapConnection, ImapSettings
from backupd.wire.imap_connection import connect as connect_to


def clear(
    settings: ImapSettings, into: str, *, connect: Callable[[ImapSettings], ImapConnection] = connect_to
) -> list[bytes]:
    """Delete the mailboxes that a restore with this `into` made, and their subscriptions.

    Args:
        into: one level of ASCII letters, digits and hyphens, which nobody else uses.

    Returns the raw names of those that the server did not delete. Raises errors of the server.
    """
    (level,) = levels_of_prefix(into)
    connection = connect(settings)
    try:
        listed, namespace = list_account(connection)
        delimiter = namespace.delimiter or b"/"
        top = delimiter.join([*namespace.prefix, level])
        ours = [each.raw_name for each in listed if each.raw_name == top or each.raw_name.startswith(top + delimiter)]
        left = []
        for name in sorted(ours, key=len, reverse=True):  # those below first
            connection.wait(connection.send(b"UNSUBSCRIBE", string(name)))
            if connection.wait(connection.send(b"DELETE", string(name))).status.kind != b"OK":
                left.append(name)
        if not left:
            return []
        # Where a mailbox is only a level above others, it goes with the last of them (RFC 9051, 6.3.5).
        there = {each.raw_name for each in list_account(connection)[0]}
        return [name for name in left if name in there]
    finally:
        connection.logout()
