"""`backupd run`."""

from __future__ import annotations

from backupd.cli.context import Here


def command(*, context: Here) -> int:
    """Run as a daemon: take snapshots on schedule, care for the repository, and tell of trouble.

    SIGHUP reloads the configuration, SIGUSR1 backs all accounts up now, SIGTERM ends in order.
    """
    from backupd.config import load
    from backupd.daemon.service import Service

    context.not_at_a_copy("run")
    return Service(lambda: load(context.config_path)).run()
