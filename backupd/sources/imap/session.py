"""One connection to an IMAP account, as the contract of sources wants it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.sources.base import Described, Discovered, Fetched, Identity, Known, Scan, Unreadable
from backupd.sources.imap import discovery, fetching, scanning
from backupd.sources.imap.link import Link


class ImapSession:
    """A `backupd.sources.base.Session`. Not thread-safe; an iterator must be read to its end before the next call."""

    def __init__(self, link: Link, host: str, port: int) -> None:
        self._link = link
        self._host, self._port = host, port

    @property
    def identity(self) -> Identity:
        """Which server this is."""
        connection = self._link.connection
        said = [connection.server[key] for key in (b"name", b"version") if connection.server.get(key)]
        return Identity(
            kind="imap",
            host=self._host,
            port=self._port,
            server=b" ".join(said).decode("utf-8", "replace"),
            capabilities=tuple(sorted(one.decode("ascii", "replace") for one in connection.capabilities)),
        )

    def discover(self) -> list[Discovered]:
        """All mailboxes the account has."""
        return discovery.discover(self._link)

    def scan(self, mailbox: Mailbox, known: Known | None) -> Scan:
        """Compare a mailbox with what is known of it."""
        return scanning.scan(self._link, mailbox, known)

    def describe(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
        """Facts and state of messages."""
        return fetching.describe(self._link, mailbox, uids)

    def headers(self, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
        """(UID, header) of messages."""
        return fetching.headers(self._link, mailbox, uids)

    def fetch(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched | Unreadable]:
        """Messages with their bytes."""
        return fetching.fetch(self._link, mailbox, uids)

    def expect_scans(self, wanted: Sequence[tuple[Mailbox, Known | None]]) -> None:
        """`scan` comes next for these, in this order."""
        scanning.expect(self._link, wanted)

    def expect_fetches(self, wanted: Sequence[tuple[Mailbox, UidSet]]) -> None:
        """`fetch` comes next for these, in this order."""
        fetching.expect(self._link, wanted)

    def close(self) -> None:
        """Log out and close; never raises."""
        self._link.connection.logout()
