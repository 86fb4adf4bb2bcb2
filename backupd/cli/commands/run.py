"""`backupd run`."""

from __future__ import annotations

from backupd.cli.context import Here


def command(*, context: Here) -> int:
    """Run as a daemon: take snapshots on schedule, care for the repository, and tell of trouble.

    SIGHUP reloads the configuration, SIGUSR1 backs all accounts up now, SIGTERM ends in order.
    """
    import faulthandler
    import os
    import signal
    import sys

    # Until the service listens, these two would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR1])

    import structlog

    from backupd.config import load
    from backupd.daemon.service import Service
    from backupd.daemon.supervisor import Supervisor

    context.not_at_a_copy("run")
    faulthandler.enable()  # the watchdog's SIGABRT has each thread say where it stands
    supervisor = Supervisor.from_environment(os.environ, tell=structlog.get_logger("backupd").warning)
    code = Service(lambda: load(context.config_path), supervisor=supervisor).run()
    # Threads that wait for silent servers would keep the process for as long as they do. What counts is stored.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
