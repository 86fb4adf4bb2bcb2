"""Which mailboxes the user of a Maildir is subscribed to: the files of Dovecot and Courier in its root.

Dovecot's has a name a line with the delimiter of its namespace, or, from version 2 of the file on, tabs between the
levels; Courier's has "INBOX." in front of every name.
"""

from __future__ import annotations

from backupd.sources.local.files import Folder

SUBSCRIPTIONS = "subscriptions"
_COURIER = "courierimapsubscribed"
_VERSION_2 = b"V\t2"


class Subscriptions:
    """What a user is subscribed to."""

    def __init__(self, dovecot: bytes | None, courier: bytes | None) -> None:
        self._names: set[tuple[bytes, ...]] = set()
        lines = (dovecot or b"").splitlines()
        if lines[:1] == [_VERSION_2]:
            self._names |= {tuple(line.split(b"\t")) for line in lines[1:]}
        else:
            self._names |= {tuple(line.split(separator)) for line in lines for separator in (b"/", b".")}
            self._names |= {(line,) for line in lines}
        for line in (courier or b"").splitlines():
            levels = line.split(b".")
            self._names |= {tuple(levels), tuple(levels[1:])}

    def has(self, levels: list[str]) -> bool:
        """Whether this mailbox is among them. levels: as they stand in the names of its folders."""
        name = tuple(level.encode("utf-8", "surrogateescape") for level in levels)
        return name in self._names or (name[0] == b"INBOX" and name[1:] in self._names)


def read_subscriptions(root: Folder) -> Subscriptions | None:
    """The subscriptions in a Maildir's root; None where nobody keeps any. Raises OSError."""
    dovecot, courier = root.read(SUBSCRIPTIONS), root.read(_COURIER)
    return None if dovecot is None and courier is None else Subscriptions(dovecot, courier)
