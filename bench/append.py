"""The raw wire, the other way: append all mail of a spool to an account. No restore can beat it by much.

    python -m bench.append HOST PORT USERNAME SPOOL     (password in $BENCH_PASSWORD)

One connection, MULTIAPPEND and LITERAL+, a command for each 4 MiB.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.spool import read_spool
from tests.support.imap_wire import Delivery, Wire, quote


def append(host: str, port: int, username: str, password: str, spool: Path) -> None:
    """Append a whole spool, mailbox by mailbox."""
    with Wire(host, port, username, password, timeout=300) as wire:
        for mailbox, messages in read_spool(spool):
            if mailbox != "INBOX":
                wire.command(b"CREATE", quote(mailbox))
            wire.append(mailbox, (Delivery(raw) for raw in messages))


if __name__ == "__main__":
    host, port, username, spool = sys.argv[1:]
    append(host, int(port), username, os.environ["BENCH_PASSWORD"], Path(spool))
