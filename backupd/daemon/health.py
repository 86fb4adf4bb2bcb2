"""The daemon as those see it who ask how it is: before its repository is open, while it works, and on its way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from backupd.daemon.board import Board
from backupd.daemon.report import Facts, LastAudit, Queue, last_audits
from backupd.daemon.web import Actions, Web
from backupd.errors import BackupdError
from backupd.operations import audit_history, auth
from backupd.operations.costs import Costs
from backupd.operations.opening import open_repository_storage
from backupd.operations.state import State

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.daemon.engine import Engine

STARTING = "starting: the repository is not open yet"
STOPPING = "stopping"
_COSTS_SECONDS = 30.0
_TOKENS_SECONDS = 300.0

Kind = TypeVar("Kind")


class Health:
    """Answers from `__enter__` to `__exit__`.

    Args:
        actions: what may be asked of the daemon.
        alive: whether its work advances; asked when there is some.
    """

    def __init__(self, config: Config, actions: Actions, *, alive: Callable[[], bool] = lambda: True) -> None:
        """Raises StorageDenied, StorageFull."""
        self._config = config
        self._engine: Engine | None = None
        self._why = STARTING
        self._empty = Board()
        self._costs = _Remembered[Costs | None](self._ask_costs, None, _COSTS_SECONDS)
        self._tokens = _Remembered[Mapping[str, datetime]](self._ask_tokens, {}, _TOKENS_SECONDS)
        # A connection of its own: whoever asks how things stand keeps no backup waiting.
        self.state = State(Path(config.state_dir))
        self.facts = Facts(
            board=lambda: self._engine.board if self._engine else self._empty,
            state=self.state,
            objectives=self._objectives,
            not_ready=lambda: self._why,
            alive=lambda: self._engine is None or alive(),
            stored=self._costs,
            queue=lambda: Queue(*self._engine.behind()) if self._engine else Queue(),
            quiet=self._quiet,
            plans=self._plans,
            tokens=self._tokens,
            audits=self._audits,
        )
        self._web = Web(self.facts, actions, Path(config.state_dir))

    def __enter__(self) -> Self:
        """Raises Busy where another daemon works with this state directory, ConfigError, StorageDenied."""
        try:
            self._web.start(self._config.health)
        except BaseException:
            self.state.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._web.close()
        self.state.close()

    def waits(self, why: str) -> None:
        """No work can be done yet, and why."""
        self._why = why

    def works(self, engine: Engine) -> None:
        """The repository is open, and schedules run."""
        self._engine, self._config, self._why = engine, engine.config, ""

    def stops(self) -> None:
        """Nothing more is begun."""
        self._why = STOPPING

    def follow(self, config: Config) -> None:
        """Another configuration holds. Raises ConfigError, Busy, StorageDenied where it cannot be asked there."""
        self._web.follow(config.health)
        self._config = config

    def _objectives(self) -> dict[str, timedelta | None]:
        return self._config.objectives()

    def _quiet(self) -> datetime | None:
        return self._engine.quiet_until() if self._engine else None

    def _plans(self) -> None:
        if self._engine and not self._why:
            self._engine.show_plans()

    def _ask_costs(self) -> Costs | None:
        return self._engine.costs() if self._engine else None

    def _audits(self) -> list[LastAudit]:
        return last_audits(audit_history.latest(self.state, open_repository_storage(self._config).url))

    def _ask_tokens(self) -> dict[str, datetime]:
        return auth.ends(self._config)


class _Remembered(Generic[Kind]):
    """What a call gave, for so many seconds; and for longer where it fails."""

    def __init__(self, call: Callable[[], Kind], found: Kind, seconds: float) -> None:
        self._call, self._found, self._seconds = call, found, seconds
        self._lock = threading.Lock()
        self._until = 0.0

    def __call__(self) -> Kind:
        with self._lock:
            if time.monotonic() >= self._until:
                with suppress(BackupdError):  # state or repository is in trouble; runs say so
                    self._found = self._call()
                self._until = time.monotonic() + (self._seconds if self._found else 1.0)
            return self._found
