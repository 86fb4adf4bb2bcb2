"""What an account downloads is counted, and with a daily limit a run ends in order when that is used up.

Octets are counted where they come off the wire, and kept in the state every few MB, so that a killed process forgets
no more than that. Whether there is still room is looked at between messages: one that was begun is read to its end, so
that a message larger than what a day allows is one day's work, and not for ever the next day's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TypeVar, cast

from backupd.errors import Throttled
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.operations.budget import goes_on, hour_of, used
from backupd.operations.state import State
from backupd.sources.base import Described, Discovered, Fetched, Identity, Known, Scan, Session, Source, Unreadable
from backupd.sources.pop3.base import Header, Listed, Pop3Session, Pop3Source, Refused, Retrieved
from backupd.wire.bandwidth import Flow

SAVE_OCTETS = 4 << 20
_AS_MUCH_AS_COMES = 1 << 30

Item = TypeVar("Item")


class Meter:
    """Counts the octets of an account, whatever connection they come over; a `backupd.wire.bandwidth.Flow`.

    One serves one run. Thread-safe. Call `save` at the end.

    Args:
        limit: octets that may be downloaded within 24 hours; None for no limit.
        flow: what else is told of them.
        clock: gives aware times in UTC.
    """

    def __init__(
        self, state: State, account: str, *, limit: int | None, flow: Flow | None, clock: Callable[[], datetime]
    ) -> None:
        self._state, self._account, self.limit, self._flow, self._clock = state, account, limit, flow, clock
        self._lock = threading.Lock()
        self._unsaved = 0
        self._counted_until: datetime | None = None
        self._used = 0
        self._taken = 0

    @property
    def most(self) -> int:
        """Octets to be received or sent at once."""
        return self._flow.most if self._flow else _AS_MUCH_AS_COMES

    def received(self, octets: int) -> None:
        """Count them."""
        with self._lock:
            self._unsaved += octets
            if self._unsaved >= SAVE_OCTETS:
                self._save()
        if self._flow:
            self._flow.received(octets)

    def sent(self, octets: int) -> None:
        """Not counted: servers limit what is downloaded."""
        if self._flow:
            self._flow.sent(octets)

    def save(self) -> None:
        """Keep what was counted."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        if self._unsaved:
            self._state.downloaded(self._account, hour_of(self._clock()), self._unsaved)
            self._unsaved, self._counted_until = 0, None

    def check(self) -> None:
        """Raises Throttled when the limit is used up."""
        if self.limit is None:
            return
        with self._lock:
            now = self._clock()
            if self._counted_until is None or now >= self._counted_until:
                self._used = used(self._state.downloads(self._account), now)
                self._counted_until = hour_of(now) + timedelta(hours=1)
            if self._used + self._unsaved < self.limit:
                return
            self._save()
            by_hour = self._state.downloads(self._account)
            begins = goes_on(by_hour, now, self.limit)
            raise Throttled(
                f"the daily limit of {_size(self.limit)} is used up: {_size(used(by_hour, now))} in the last 24 hours",
                pause=max(1.0, (begins - now).total_seconds()),
                subject=self._account,
            )

    def checked(self, items: Iterator[Item], wanted: int) -> Iterator[Item]:
        """The items as long as the limit lasts. Raises Throttled after the one that used it up, unless it was the last
        of those wanted. Each run takes one, whatever it cost to find out what is new: else nothing would ever come.
        """
        with closing(cast("Generator[Item]", items)):
            while wanted > 0:
                if self._taken:
                    self.check()
                item = next(items, None)
                if item is None:
                    return
                self._taken += 1
                wanted -= 1
                yield item
            yield from items


class LimitedSource:
    """A source of which no more is read than the limit allows."""

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source, self._meter = source, meter

    @property
    def connections(self) -> int:
        """How many sessions may be open at once."""
        return self._source.connections

    def open(self) -> Session:
        """Connect and log in. Raises Throttled besides."""
        self._meter.check()
        return _LimitedSession(self._source.open(), self._meter)


class _LimitedSession:
    def __init__(self, session: Session, meter: Meter) -> None:
        self._session, self._meter = session, meter

    @property
    def identity(self) -> Identity:
        return self._session.identity

    def discover(self) -> list[Discovered]:
        return self._session.discover()

    def scan(self, mailbox: Mailbox, known: Known | None) -> Scan:
        return self._session.scan(mailbox, known)

    def describe(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Described]:
        return self._session.describe(mailbox, uids)

    def headers(self, mailbox: Mailbox, uids: UidSet) -> Iterator[tuple[int, bytes]]:
        return self._session.headers(mailbox, uids)

    def fetch(self, mailbox: Mailbox, uids: UidSet) -> Iterator[Fetched | Unreadable]:
        return self._meter.checked(self._session.fetch(mailbox, uids), len(uids))

    def expect_scans(self, wanted: Sequence[tuple[Mailbox, Known | None]]) -> None:
        self._session.expect_scans(wanted)

    def expect_fetches(self, wanted: Sequence[tuple[Mailbox, UidSet]]) -> None:
        self._session.expect_fetches(wanted)

    def close(self) -> None:
        self._session.close()


class LimitedPop3Source:
    """The same of a POP3 account."""

    def __init__(self, source: Pop3Source, meter: Meter) -> None:
        self._source, self._meter = source, meter

    @property
    def address(self) -> str:
        """host:port, for messages."""
        return self._source.address

    def open(self) -> Pop3Session:
        """Connect and log in. Raises Throttled besides."""
        self._meter.check()
        return _LimitedPop3Session(self._source.open(), self._meter)


class _LimitedPop3Session:
    def __init__(self, session: Pop3Session, meter: Meter) -> None:
        self._session, self._meter = session, meter

    @property
    def identity(self) -> Identity:
        return self._session.identity

    def listing(self) -> list[Listed]:
        return self._session.listing()

    def headers(self, numbers: Iterable[int]) -> Iterator[Header]:
        return self._session.headers(numbers)

    def retrieve(self, some: Iterable[Listed]) -> Iterator[Retrieved | Refused]:
        wanted = list(some)
        return self._meter.checked(self._session.retrieve(wanted), len(wanted))

    def delete(self, number: int) -> bool:
        return self._session.delete(number)

    def quit(self) -> None:
        self._session.quit()

    def close(self) -> None:
        self._session.close()


def _size(octets: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if octets >= unit:
            return f"{octets / unit:.3g} {name}"
    return f"{octets} B"
