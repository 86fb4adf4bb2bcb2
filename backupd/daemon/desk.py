"""Which account is backed up next: what the schedule, the server, a person and the retries ask for meets here.

An account is backed up by one thread at a time. What is asked for while it waits is one run, however often it is asked
for; what is asked for while it runs is one more run after it. Nothing is begun in quiet hours, before a hold ends or
beyond the budget, but for the hold and the quiet hours when a person asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from backupd.daemon.budget import Budget, Limits

_GLANCE_SECONDS = 30.0
"""Workers look again so often by themselves: quiet hours end by the clock on the wall, which may be set."""


class Place(NamedTuple):
    """host: whose connections count together. connections: how many the account would open."""

    host: str
    connections: int


@dataclass
class _Account:
    place: Place
    due: float | None = None
    held: float = 0.0
    by_hand: bool = False
    running: bool = False
    gap: float = 0.0


class Desk:
    """Requests, and the threads that work them off.

    Args:
        work: backs an account up over so many connections. It must not raise.
        quiet: seconds until the quiet hours end, 0 outside of them.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        work: Callable[[str, int], None],
        limits: Limits,
        *,
        quiet: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._quiet, self._clock = work, quiet, clock
        self._budget = Budget(limits)
        self._changed = threading.Condition()
        self._accounts: dict[str, _Account] = {}
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.resize(limits)

    def resize(self, limits: Limits) -> None:
        """Other limits from now on. What is under way goes on."""
        with self._changed:
            self._budget.limits = limits
            for number in range(len(self._threads), limits.accounts):
                self._threads.append(threading.Thread(target=self._serve, name=f"account-{number}", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()

    def set_accounts(self, places: Mapping[str, Place]) -> None:
        """These are the accounts from now on. A run of one that is not among them goes on to its end."""
        with self._changed:
            for name in self._accounts.keys() - places.keys():
                del self._accounts[name]
            for name, place in places.items():
                if name in self._accounts:
                    self._accounts[name].place = place
                else:
                    self._accounts[name] = _Account(place)
            self._changed.notify_all()

    def request(self, name: str, *, delay: float = 0.0, by_hand: bool = False) -> bool:
        """Back the account up, `delay` seconds from now at the latest; whether there is such an account."""
        with self._changed:
            account = self._accounts.get(name)
            if account is None:
                return False
            due = self._clock() + delay
            account.due = due if account.due is None else min(account.due, due)
            account.by_hand = account.by_hand or by_hand
            self._changed.notify_all()
            return True

    def hold(self, name: str, seconds: float) -> None:
        """Leave the account alone for so long, whatever is asked for; by hand it can be had all the same."""
        with self._changed:
            if account := self._accounts.get(name):
                account.held = self._clock() + seconds

    def release(self, name: str) -> None:
        """End the hold of an account: what it was held for is over."""
        with self._changed:
            if account := self._accounts.get(name):
                account.held = 0.0
                self._changed.notify_all()

    def space(self, name: str, seconds: float) -> None:
        """Let so much time pass between the end of this run of the account and the next, unless a person asks."""
        with self._changed:
            if account := self._accounts.get(name):
                account.gap = seconds

    def waiting(self) -> dict[str, float]:
        """Accounts with a run ahead of them, and in how many seconds it may begin."""
        with self._changed:
            now = self._clock()
            return {
                name: max(0.0, self._begins(account) - now)
                for name, account in self._accounts.items()
                if account.due is not None
            }

    def behind(self) -> tuple[int, float]:
        """How many accounts may begin now and wait for their turn, and for how many seconds the first of them has."""
        with self._changed:
            now, quiet = self._clock(), self._quiet() > 0
            since = [
                now - self._begins(account)
                for account in self._accounts.values()
                if account.due is not None and not account.running and (account.by_hand or not quiet)
            ]
        late = [seconds for seconds in since if seconds >= 0]
        return len(late), max(late, default=0.0)

    def running(self) -> set[str]:
        """Accounts that are being backed up."""
        with self._changed:
            return {name for name, account in self._accounts.items() if account.running}

    def close(self, seconds: float) -> bool:
        """Begin nothing more, and wait so long for what is under way; whether all has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _begins(self, account: _Account) -> float:
        due = account.due or 0.0
        return due if account.by_hand else max(due, account.held)

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (found := None if self._closed else self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait(self._patience())
                name, account, host, granted = found
            try:
                self._work(name, granted)
            finally:
                with self._changed:
                    account.running = False
                    account.held = max(account.held, self._clock() + account.gap)
                    account.gap = 0.0
                    self._budget.give_back(host, granted)
                    self._changed.notify_all()

    def _next(self) -> tuple[str, _Account, str, int] | None:
        """The account that has waited longest among those that may begin, and its connections, which are taken of this
        host: a reload may move the account to another one while it runs."""
        now, quiet = self._clock(), self._quiet() > 0
        ready = [
            (not account.by_hand, self._begins(account), name)
            for name, account in self._accounts.items()
            if account.due is not None
            and not account.running
            and self._begins(account) <= now
            and (account.by_hand or not quiet)
        ]
        for _, _, name in sorted(ready):
            account = self._accounts[name]
            if granted := self._budget.take(*account.place):
                account.due, account.by_hand, account.running = None, False, True
                return name, account, account.place.host, granted
        return None

    def _patience(self) -> float:
        """Seconds after which there may be something to begin that nobody announces."""
        now = self._clock()
        ahead = [
            begins - now
            for account in self._accounts.values()
            if account.due is not None and not account.running and (begins := self._begins(account)) > now
        ]
        return min([_GLANCE_SECONDS, *ahead])
