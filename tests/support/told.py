"""What a watchtower tells, to be waited for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from backupd.errors import BackupdError

SECONDS = 30.0
"""Longer than anything here may take, on however busy a machine."""


class Told:
    """Hears of changes and states. states: the latest of each account; history: all of them, in their order."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.changes: Counter[str] = Counter()
        self.states: dict[str, tuple[str, BackupdError | None]] = {}
        self.history: list[tuple[str, str]] = []

    def changed(self, account: str) -> None:
        with self._news:
            self.changes[account] += 1
            self._news.notify_all()

    def state(self, account: str, state: str, error: BackupdError | None) -> None:
        with self._news:
            self.states[account] = state, error
            self.history.append((account, state))
            self._news.notify_all()

    def until(self, right: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait for this to be so. Raises AssertionError when it does not come."""
        with self._news:
            assert self._news.wait_for(right, seconds), self.history[-20:]

    def until_true(self, right: Callable[[], bool]) -> None:
        """The same of what nobody tells of."""
        until = time.monotonic() + SECONDS
        while not right():
            assert time.monotonic() < until, self.history[-20:]
            time.sleep(0.005)

    def is_in(self, state: str, *accounts: str, seconds: float = SECONDS) -> None:
        """Wait for all of these accounts to be watched so."""
        self.until(lambda: all(self.states.get(account, ("",))[0] == state for account in accounts), seconds)

    def after(self, account: str, act: Callable[[], object]) -> None:
        """Wait for the account to have changed after this was done, and not before."""
        while not self.quiet(0.3):
            pass
        before = self.changes[account]
        act()
        self.until(lambda: self.changes[account] > before)

    def quiet(self, seconds: float) -> bool:
        """Whether nothing at all is told for so long."""
        with self._news:
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                if self._news.wait(left):
                    return False
            return True
