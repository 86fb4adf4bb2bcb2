"""An IMAP account as a source of mail."""

from __future__ import annotations

import time
from collections.abc import Callable

from backupd.sources.imap.link import Link
from backupd.sources.imap.session import ImapSession
from backupd.sources.imap.throttle import Throttle
from backupd.wire.imap_connection import ImapSettings, connect
from backupd.wire.throttling import PATIENCE


class ImapSource:
    """A factory of sessions; a `backupd.sources.base.Source`. Its methods may be called from several threads.

    Args:
        connections: how many sessions may be open at once. Providers allow 10 to 20, shared with the user's devices.
        sleep: waits some seconds, when the server asks for a pause; True when told to stop meanwhile.
        patience: seconds of pauses in a row after which a throttled session is given up.
    """

    def __init__(
        self,
        settings: ImapSettings,
        connections: int = 4,
        *,
        sleep: Callable[[float], object] = time.sleep,
        patience: float = PATIENCE,
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._sleep = sleep
        self._patience = patience
        self._generations: dict[bytes, int | None] = {}

    @property
    def connections(self) -> int:
        """How many sessions may be open at once."""
        return self._connections

    def open(self) -> ImapSession:
        """Connect and log in. Raises ConnectionFailed, Throttled, LoginRefused, CertificateRefused."""
        throttle = Throttle(self._sleep, self._patience, self._settings.address)
        link = Link(connect(self._settings), throttle, self._generations)
        return ImapSession(link, self._settings.host, self._settings.port)
