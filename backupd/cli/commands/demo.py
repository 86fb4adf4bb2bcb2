"""`backupd demo`."""

from __future__ import annotations

from backupd.cli.context import Here


def command(*, context: Here) -> int:
    """Show the whole cycle on a mailbox of its own: snapshots, three disasters, restore, and proof that every byte is
    back. Needs no configuration, touches nothing of yours, and takes less than a minute.
    """
    from backupd.cli.demo.story import tell

    return tell(context)
