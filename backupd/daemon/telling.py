"""From what happens in the daemon to what people are told."""

from __future__ import annotations

from typing import Protocol

from backupd.daemon.retrying import Cause
from backupd.operations.backup import BackupReport


class Telling(Protocol):
    """Who hears of what happens."""

    def succeeded(self, account: str, report: BackupReport) -> None: ...
    def failed(self, account: str, error: Exception, cause: Cause, failures: int) -> None: ...
    def job_succeeded(self, name: str, text: str) -> None: ...
    def job_failed(self, name: str, error: Exception) -> None: ...


class Nobody:
    """Nobody hears of it; it is in the log."""

    def succeeded(self, account: str, report: BackupReport) -> None:
        """An account was backed up."""

    def failed(self, account: str, error: Exception, cause: Cause, failures: int) -> None:
        """An account could not be backed up."""

    def job_succeeded(self, name: str, text: str) -> None:
        """A job was done."""

    def job_failed(self, name: str, error: Exception) -> None:
        """A job failed."""
