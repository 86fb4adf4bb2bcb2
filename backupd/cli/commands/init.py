"""`backupd init`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from backupd.cli import output
from backupd.cli.context import Here
from backupd.errors import BackupdError


def command(*, context: Here) -> int:
    """Make the repository that the configuration names, and print the recovery kit: print it on paper, and keep it."""
    from backupd.operations.initialise import initialise
    from backupd.operations.locks import renew_locks
    from backupd.operations.opening import repository_secret

    context.not_at_a_copy("init")
    storage = context.storage()
    made = initialise(storage, repository_secret(context.config), config_path=context.config_file)
    if context.json:
        output.document(made)
    else:
        for text in made.kit.splitlines():
            output.line(text)
    if sys.stdout.isatty() and not context.json:
        context.note("the repository is there; put this page on paper: backupd cannot show it again")
    if storage.locks:
        try:
            with context.state() as state:
                renew_locks(storage, state, datetime.now(UTC))
        except BackupdError as error:  # the kit has been shown, and each backup tries it again
            output.remark(f"the repository is there, but what it holds could not be locked: {error}")
            return 1
    return 0
