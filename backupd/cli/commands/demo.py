"""`backupd demo`."""

from __future__ import annotations

import importlib.util

from backupd.cli.context import Here
from backupd.errors import BackupdError

_EXTRA = ("imapclient", "pymap")


def command(*, context: Here) -> int:
    """Show the whole cycle on a mailbox of its own: snapshots, three disasters, restore, and proof that every byte is
    back. Needs no configuration, touches nothing of yours, and takes less than a minute.
    """
    if not all(map(importlib.util.find_spec, _EXTRA)):
        raise BackupdError("the demo needs a mail server and a mail program of its own", remedy="install backupd[demo]")
    from backupd.cli.demo.story import tell

    return tell(context)
