"""`backupd init`."""

from __future__ import annotations

import sys

from backupd.cli import output
from backupd.cli.context import Here


def command(*, context: Here) -> int:
    """Make the repository that the configuration names, and print the recovery kit: print it on paper, and keep it."""
    from backupd.operations.initialise import initialise
    from backupd.operations.opening import repository_secret

    context.not_at_a_copy("init")
    made = initialise(context.storage(), repository_secret(context.config), config_path=context.config_file)
    if context.json:
        output.document(made)
        return 0
    for text in made.kit.splitlines():
        output.line(text)
    if sys.stdout.isatty():
        context.note("the repository is there; put this page on paper: backupd cannot show it again")
    return 0
