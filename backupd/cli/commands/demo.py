"""`backupd demo`."""

from __future__ import annotations

from backupd.cli.context import Here
from backupd.errors import BackupdError


def command(*, context: Here) -> int:
    """Show the whole cycle on a mailbox of its own: snapshots, three disasters, restore, and proof that every byte is
    back. Needs no configuration, touches nothing of yours, and takes less than a minute.
    """
    try:
        import imapclient  # noqa: F401 - the demo's mail program
    except ImportError:
        raise BackupdError("the demo needs a server of its own", remedy="install backupd[demo]") from None
    from backupd.cli.demo.story import tell

    return tell(context)
