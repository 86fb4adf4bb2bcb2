"""A POP3 account as a source of mail."""

from __future__ import annotations

from backupd.sources.pop3.session import Session
from backupd.wire.pop3_connection import connect
from backupd.wire.pop3_settings import Pop3Settings


class Pop3Source:
    """A factory of sessions; a `backupd.sources.pop3.base.Pop3Source`."""

    def __init__(self, settings: Pop3Settings) -> None:
        self._settings = settings

    @property
    def address(self) -> str:
        """host:port, for messages."""
        return self._settings.address

    def open(self) -> Session:
        """Connect and log in. Raises ConnectionFailed, LoginRefused, CertificateRefused."""
        return Session(connect(self._settings), self._settings.host, self._settings.port)
