"""Names of mailboxes that no server has, beside those of a server."""

from __future__ import annotations

import msgspec

from backupd.mail.names import split_levels
from backupd.model import Mailbox

PREFIX = "Imported"


def aside(mailbox: Mailbox) -> Mailbox:
    """The mailbox under a name that leaves its own one to a server's mailbox."""
    delimiter = mailbox.delimiter or b"/"
    raw = PREFIX.encode() + delimiter + mailbox.raw_name
    return msgspec.structs.replace(
        mailbox, raw_name=raw, name=f"{PREFIX}/{mailbox.name}", delimiter=delimiter, special_use=()
    )


def place(mailbox: Mailbox) -> tuple[bytes, ...]:
    """What tells whether a local mailbox and a server's are the same one to people: the levels of its name, without the
    prefix of `aside` and without the INBOX that some servers put all mailboxes below."""
    levels = [level.lower() for level in split_levels(mailbox.raw_name, mailbox.delimiter)]
    while levels[0] == PREFIX.lower().encode() and len(levels) > 1:
        levels = levels[1:]
    if levels[0] == b"inbox" and len(levels) > 1:
        levels = levels[1:]
    return tuple(levels)
