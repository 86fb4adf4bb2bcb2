"""Accounts that are backed up as soon as their server tells of a change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from backupd.daemon.board import Board
from backupd.daemon.desk import Desk
from backupd.daemon.retrying import Cause
from backupd.daemon.timetable import CONTINUOUS
from backupd.daemon.watched import State
from backupd.daemon.watchtower import Watchtower
from backupd.errors import BackupdError
from backupd.operations.opening import imap_settings

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.model import AccountConfig

SETTLE_SECONDS = 0.1
"""What a server delivers in one go is one run."""
UNWATCHED_POLL = timedelta(minutes=2)
"""Where nobody tells of changes they are looked for, so often at least."""
_TOLD = ("notify", "idle")

log = structlog.get_logger("backupd.watching")


class Continuous:
    """Watches accounts, and asks for their backups.

    Args:
        replanned: called when another interval holds for an account, with its name.
    """

    def __init__(self, board: Board, desk: Desk, replanned: Callable[[str], None]) -> None:
        self._board, self._desk, self._replanned = board, desk, replanned
        self._watched: dict[str, AccountConfig] = {}
        self._states: dict[str, State] = {}
        self._tower = Watchtower(self._changed, self._state)

    def follow(self, config: Config) -> None:
        """Watch the accounts of this configuration; those that did not change are left in peace."""
        wanted = {
            name: account
            for name, account in config.accounts.items()
            if (account.schedule or config.schedule) == CONTINUOUS and account.imap is not None
        }
        for name in self._watched.keys() - wanted.keys():
            self._tower.remove(name)
            self._states.pop(name, None)
            self._board.update(name, watching="")
        for name, account in wanted.items():
            if self._watched.get(name) != account:
                self._tower.add(name, imap_settings(config, name), account.watch)
        self._watched = wanted

    def poll(self, name: str, account: AccountConfig) -> timedelta:
        """How often the account is looked at by itself."""
        if account.imap is None or self._states.get(name) in _TOLD:
            return account.poll
        return min(account.poll, UNWATCHED_POLL)

    def clock_was_set(self) -> None:
        """Time has passed that nobody noticed."""
        self._tower.wake()

    def close(self) -> None:
        """Watch nothing any more."""
        self._tower.close()

    # On the thread that watches

    def _changed(self, name: str) -> None:
        self._desk.request(name, delay=SETTLE_SECONDS)

    def _state(self, name: str, state: State, error: BackupdError | None) -> None:
        before = self._states.get(name)
        self._states[name] = state
        live = self._board.update(name, watching=state)
        if live is None:
            return
        if state in _TOLD and live.cause == Cause.NETWORK:
            self._desk.release(name)  # the server is there again
        if (state in _TOLD) != (before in _TOLD):
            self._replanned(name)
        if error is not None:
            log.warning("changes are not told of", account=name, watching=state, why=str(error))
        else:
            log.debug("watching", account=name, watching=state)
