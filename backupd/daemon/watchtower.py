"""Watches accounts for changes: one thread for all of them, and a few that log in.

An account has one connection where the server tells of all mailboxes (NOTIFY), and else one for each mailbox that is to
be watched (IDLE). Whatever breaks is made anew after a pause; and after each beginning the account counts as changed,
for something may have happened while nobody watched.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from backupd.daemon import watch_pauses
from backupd.daemon.connectors import THREADS, Connectors
from backupd.daemon.watched import Account, Line, State
from backupd.errors import BackupdError, ConnectionFailed
from backupd.sources.imap.watching import Watch, watch
from backupd.wire.imap_settings import ImapSettings

RENEWAL_SECONDS = (1200.0, 1500.0)
"""A sign of life is asked for after so many: servers may end a session that says nothing for 30 minutes (RFC 2177)."""
_LONGEST_SLEEP = 60.0
"""The clock goes on while the machine sleeps, and the selector's does not."""

_log = logging.getLogger(__name__)


class Gate(Protocol):
    """Bounds the connections to a host."""

    def acquire(self, host: str) -> bool:
        """Take a place, without waiting; False where there is none."""
        ...

    def release(self, host: str) -> None:
        """Give it back."""
        ...


class Watchtower:
    """Accounts that are watched. `add`, `remove` and `close` may be called from any thread, and return at once.

    Args:
        changed: told that something changed in an account; called on the thread that watches, so it must be quick.
        state: told how an account is watched when that changes, with what is wrong, if anything is; likewise.
        gate: bounds the connections to a host; none by default.
        connect: makes a connection, as `backupd.sources.imap.watching.watch` does.
        clock: seconds that only go forward, also while the machine sleeps. Call `wake` where it jumps.
        chance: a number from 0 to 1.
    """

    def __init__(
        self,
        changed: Callable[[str], None],
        state: Callable[[str, State, BackupdError | None], None],
        *,
        gate: Gate | None = None,
        connect: Callable[..., Watch | None] = watch,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        chance: Callable[[], float] = random.random,
        threads: int = THREADS,
    ) -> None:
        self._changed, self._state, self._gate = changed, state, gate
        self._connect, self._clock, self._chance = connect, clock, chance
        self._accounts: dict[str, Account] = {}
        self._connectors: Connectors[Line, Watch | None] = Connectors(
            self._reach, self._reached, lambda line: line.settings.host.lower(), threads=threads
        )
        self._todo: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Line]] = []
        self._numbers = itertools.count()
        self._again: set[Line] = set()
        self._selector = selectors.DefaultSelector()
        self._wake_up, self._woken = socket.socketpair()
        for each in (self._wake_up, self._woken):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # For any thread

    def add(self, account: str, settings: ImapSettings, mailboxes: Sequence[str] = ("INBOX",)) -> None:
        """Watch an account. One that is watched just so already is left in peace; else it begins anew.

        mailboxes: names for people, with "/" between levels. They count where the server cannot tell of all.
        """
        names = tuple(dict.fromkeys(("INBOX", *("INBOX" if one.upper() == "INBOX" else one for one in mailboxes))))
        self._do(lambda: self._add(Account(account, settings, names)))

    def remove(self, account: str) -> None:
        """Watch an account no longer. Nothing is told of it when this has been done, which may take a moment."""
        self._do(lambda: self._remove(account))

    def close(self, seconds: float = 5.0) -> None:
        """Say goodbye to all servers, for at most so long. What is being connected ends by itself."""
        if self._closed:
            return

        def end() -> None:
            self._closed = True

        self._do(end)
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def wake(self) -> None:
        """Look at the clock now."""
        try:
            self._wake_up.send(b"\0")
        except (BlockingIOError, OSError):
            return  # it is being woken, or closed

    def _do(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._todo.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="watchtower", daemon=True)
                self._thread.start()
        self.wake()

    # The thread that watches

    def _serve(self) -> None:
        try:
            while True:
                while self._todo:
                    self._todo.popleft()()
                if self._closed:
                    return
                self._ring()
                for line in self._ready():
                    self._look(line)
        except Exception:
            _log.exception("the watch of all accounts ended of an error in backupd itself")
            raise
        finally:
            self._end()

    def _ready(self) -> list[Line]:
        """Lines on which something may have come."""
        wait = 0.0 if self._again else _LONGEST_SLEEP
        if self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - self._clock()))
        ready, self._again = self._again, set()
        for key, _ in self._selector.select(wait):
            if key.fileobj is self._woken:
                while _drained(self._woken):
                    pass
            else:
                ready.add(key.data)
        return list(ready)

    def _ring(self) -> None:
        """Do what is due."""
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            at, _, line = heapq.heappop(self._timers)
            if line.gone or line.at != at:
                continue
            line.at = None
            if line.watch is None:
                self._ask(line)
                continue
            try:
                line.watch.tick(now)
            except BackupdError as error:
                self._lost(line, error)
            else:
                self._follow(line)

    def _look(self, line: Line) -> None:
        if line.gone or line.watch is None:
            return
        try:
            changed = line.watch.look(self._clock())
        except BackupdError as error:
            self._lost(line, error)
            return
        self._follow(line)
        if changed:
            self._tell(self._changed, line.account.name)

    def _follow(self, line: Line) -> None:
        """Bring timer and selector up to date with what the line waits for."""
        if (found := line.watch) is None:
            return
        if found.more:
            self._again.add(line)
        self._at(line, found.due)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if found.wants_to_write else 0)
        if self._selector.get_key(found.sock).events != events:
            self._selector.modify(found.sock, events, line)

    def _at(self, line: Line, at: float) -> None:
        if line.at != at:
            line.at = at
            heapq.heappush(self._timers, (at, next(self._numbers), line))

    # Accounts

    def _add(self, account: Account) -> None:
        known = self._accounts.get(account.name)
        if known and (known.settings, known.mailboxes) == (account.settings, account.mailboxes):
            return
        self._remove(account.name)
        self._accounts[account.name] = account
        self._begin(account, "INBOX")
        self._show(account)

    def _begin(self, account: Account, mailbox: str) -> None:
        line = Line(account.settings, mailbox, account)
        account.lines.append(line)
        self._ask(line)

    def _remove(self, name: str) -> None:
        if account := self._accounts.pop(name, None):
            for line in account.lines:
                self._drop(line)

    def _drop(self, line: Line) -> None:
        line.gone = True
        if self._connectors.forget(line):
            self._give_back(line)
        self._let_go(line, polite=True)

    def _ask(self, line: Line) -> None:
        """Have a connection made."""
        if self._gate and not line.holds_place:
            if not self._gate.acquire(line.settings.host.lower()):
                line.error = ConnectionFailed(
                    "not watched, for no more connections to this host are allowed",
                    subject=line.settings.address,
                    remedy="raise connections_per_host, if the server allows for more",
                )
                line.unable, line.failures = True, line.failures + 1
                pause = watch_pauses.grown(watch_pauses.CROWDED, line.failures, self._chance())
                self._at(line, self._clock() + pause)
                self._show(line.account)
                return
            line.holds_place = True
        self._connectors.ask(line)

    def _reach(self, line: Line) -> Watch | None:
        """On a thread of its own."""
        return self._connect(
            line.settings, line.mailbox, now=self._clock, interval=self._interval, notify=line.mailbox == "INBOX"
        )

    def _interval(self) -> float:
        first, last = RENEWAL_SECONDS
        return first + (last - first) * self._chance()

    def _reached(self, line: Line, found: Watch | Exception | None) -> None:
        """On the thread that connected."""
        self._todo.append(lambda: self._take(line, found))
        self.wake()
        if self._closed and isinstance(found, Watch):
            found.abandon()

    def _take(self, line: Line, found: Watch | Exception | None) -> None:
        if line.gone:
            if isinstance(found, Watch):
                found.close()
            self._give_back(line)
            return
        if isinstance(found, Exception):
            self._lost(line, found)
            return
        line.error, line.unable = None, found is None
        if found is None:
            self._give_back(line)
            self._at(line, self._clock() + watch_pauses.UNABLE_SECONDS)
            self._show(line.account)
            return
        line.watch, line.since = found, self._clock()
        self._selector.register(found.sock, selectors.EVENT_READ, line)
        self._follow(line)
        account = line.account
        if line.mailbox == "INBOX":
            further = [] if found.how == "notify" else list(account.mailboxes[1:])
            for other in [one for one in account.lines[1:] if one.mailbox not in further]:
                account.lines.remove(other)
                self._drop(other)
            there = {one.mailbox for one in account.lines}
            for mailbox in further:
                if mailbox not in there:
                    self._begin(account, mailbox)
        self._show(account)
        self._tell(self._changed, account.name)

    def _lost(self, line: Line, error: Exception) -> None:
        now = self._clock()
        if line.watch and now - line.since >= watch_pauses.STABLE_SECONDS:
            line.failures = 0
        self._let_go(line, polite=False)
        if not isinstance(error, BackupdError):
            _log.error("an account cannot be watched of an error in backupd itself", exc_info=error)
            error = BackupdError(f"an error in backupd itself: {type(error).__name__}", subject=line.account.name)
        line.error, line.unable = error, False
        line.failures += 1
        self._at(line, now + watch_pauses.pause(error, line.failures, self._chance()))
        self._show(line.account)

    def _let_go(self, line: Line, *, polite: bool) -> None:
        if found := line.watch:
            self._selector.unregister(found.sock)
            self._again.discard(line)
            found.close() if polite else found.abandon()
            line.watch = None
            self._give_back(line)
        elif not polite:
            self._give_back(line)

    def _give_back(self, line: Line) -> None:
        if self._gate and line.holds_place:
            line.holds_place = False
            self._gate.release(line.settings.host.lower())

    def _show(self, account: Account) -> None:
        """Tell how the account is watched, if that is news."""
        state, error = account.state
        now = (state, str(error) if error else "")
        if account.told != now:
            account.told = now
            self._tell(self._state, account.name, state, error)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001 - whoever is told must not end the watch of all others
            _log.exception("who was told of a watched account failed")

    def _end(self) -> None:
        self._closed = True
        self._connectors.close()
        for name in list(self._accounts):
            self._remove(name)
        while self._todo:  # connections made this moment, which nobody wants any more
            self._todo.popleft()()
        for name in list(self._accounts):
            self._remove(name)
        self._selector.close()
        self._wake_up.close()
        self._woken.close()


def _drained(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(4096))
    except BlockingIOError:
        return False
