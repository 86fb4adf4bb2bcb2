"""`backupd run`: the process - signals, the main loop, the beginning and the end."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog

from backupd.daemon import logs
from backupd.daemon.engine import Engine
from backupd.daemon.health import Health
from backupd.daemon.notifying import Notifying
from backupd.daemon.pulse import Pulse
from backupd.daemon.supervisor import Supervisor
from backupd.daemon.worries import worries
from backupd.errors import BackupdError, StorageDenied, StorageUnavailable, Transient, UsageError
from backupd.operations.notices.notifier import Notifier
from backupd.operations.notices.weekly import Week
from backupd.operations.opening import open_state
from backupd.operations.state_files import daemon_lock, set_aside_damaged

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.operations.state import State

TICK_SECONDS = 1.0
PLANS_SECONDS = 10.0
OBJECTIVES_SECONDS = 30.0
WORRIES_SECONDS = 3600.0
CLOCK_SECONDS = 5.0
"""A difference between the clock on the wall and the one that only goes forward; less is time being kept."""
OPEN_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Between tries to open a repository that cannot be reached, as at boot; the last one over and over."""
OPEN_SECONDS = 900.0
"""A try may take so long: where the state is lost, the whole index is read."""

REPLY_SECONDS = 120.0
"""For the main loop to reload when it is asked over the control socket; what fetches secrets may take a minute."""

Command = Literal["stop", "reload", "trigger"]
_SIGNALS: dict[int, Command] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGHUP: "reload",
    signal.SIGUSR1: "trigger",
}

log = structlog.get_logger("backupd")


class Service:
    """The daemon, from its start to its end.

    Args:
        load: reads the configuration; called again to reload it. Raises ConfigError.
        supervisor: the service manager, if there is one.
    """

    def __init__(self, load: Callable[[], Config], supervisor: Supervisor | None = None) -> None:
        self._load = load
        self._supervisor = supervisor or Supervisor(None)
        self.pulse = Pulse()
        self._commands: queue.SimpleQueue[Command | _Reload] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._health: Health | None = None
        self._engine: Engine | None = None
        self._config: Config | None = None
        self._told: Notifying | None = None

    def run(self) -> int:
        """Run until told to end; the exit code.

        Raises ConfigError, NoRepository, WrongKey, StorageError when it cannot begin.
        """
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            self._config = config = self._load()
            logs.set_up(config.log.format, config.log.level)
            with (
                daemon_lock(config.state_dir) as state_is_there,
                closing(self._state(config)) as state,
                self._asked(config) as health,
                closing(Notifier(state, config, summary_of=self._week, log=structlog.get_logger("backupd.notices")))
                as notifier,
            ):
                self._health = health
                self._told = told = Notifying(notifier, self._in_force, self._last_good)
                self._engine = engine = self._open(config, health, told, notifier)
                if engine is None:
                    self._ended.set()
                    return 0
                engine.start()
                health.works(engine)
                told.running()
                log.info("running", accounts=len(engine.config.accounts), repository=engine.config.repository.url)
                self._supervisor.ready(engine.summary())
                with self._supervisor.feeding(self.pulse):
                    try:
                        self._loop(engine, notifier, told, state_is_there)
                    finally:
                        self._ended.set()
                began = time.monotonic()
                log.info("stopping")
                self._supervisor.stopping("stopping: what is under way writes a checkpoint")
                health.stops()
                if not engine.close():
                    log.warning("ended before a silent server did; the next start goes on from the last checkpoint")
                if not state_is_there():
                    # Nobody could ask us anything any more, a second daemon could begin, what we keep would be lost.
                    raise StorageDenied(
                        "the state was removed, or replaced, while the daemon ran",
                        subject=str(config.state_dir),
                        remedy="start it again: what is needed is built anew",
                    )
            log.info("stopped", seconds=round(time.monotonic() - began, 3))
            return 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _in_force(self) -> Config:
        if self._config is None:
            raise RuntimeError("there is no configuration before the start")
        return self._config

    def _last_good(self, account: str) -> datetime | None:
        live = self._engine.board.find(account) if self._engine else None
        return live.last_good if live else None

    def _week(self, begins: datetime, ends: datetime) -> Week:
        if self._engine is None:
            raise StorageUnavailable("the repository is not open yet")
        return self._engine.week(begins, ends)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._commands.put(_SIGNALS[number])

    def _asked(self, config: Config) -> Health:
        return Health(config, self, alive=self.pulse.healthy)

    def _state(self, config: Config) -> State:
        """The state; begun anew where it is damaged, which else only backups would find that fail of it."""
        self._supervisor.extend(OPEN_SECONDS)
        if (aside := set_aside_damaged(config.state_dir)) is not None:
            log.error("the state was damaged, and is begun anew", damaged=str(aside))
        return open_state(config)

    def _open(self, config: Config, health: Health, told: Notifying, notifier: Notifier) -> Engine | None:
        """The engine, however long the repository cannot be reached; None when told to end meanwhile."""
        tries = 0
        while True:
            self._supervisor.extend(OPEN_SECONDS)
            try:
                engine = Engine(config, told, pulse=self.pulse)
            except BackupdError as error:
                if not isinstance(error, Transient):
                    raise
                pause = OPEN_PAUSES[min(tries, len(OPEN_PAUSES) - 1)]
                tries += 1
                health.waits(f"the repository cannot be reached: {error}")
                self._supervisor.status(f"the repository cannot be reached: {error}")
                log.error("the repository cannot be reached", why=str(error), again_in=pause)
                told.repository_unreachable(error)
            else:
                told.repository_reachable()
                return engine
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                try:
                    command = self._commands.get(timeout=left)
                except queue.Empty:
                    break
                if command == "stop":
                    return None
                if command == "trigger":
                    break
                config, why = self._reread(config, health, told, notifier)
                if isinstance(command, _Reload):
                    command.reply.put(why)
                if why is None:
                    break

    def _reread(
        self, before: Config, health: Health, told: Notifying, notifier: Notifier
    ) -> tuple[Config, str | None]:
        """The configuration, read again before anything runs by it; if it is wrong, the one before, and why."""
        try:
            config = self._load()
            if config.state_dir != before.state_dir:
                raise UsageError(
                    "state_dir cannot change while the daemon runs", remedy="restart it: systemctl restart backupd"
                )
            health.follow(config)
        except BackupdError as error:
            return before, self._refused(error, told)
        self._config = config
        notifier.reconfigure(config)
        logs.set_up(config.log.format, config.log.level)
        log.info("configuration reloaded", accounts=len(config.accounts), repository=config.repository.url)
        return config, None

    def _refused(self, error: BackupdError, told: Notifying) -> str:
        log.error("the configuration was not reloaded; the one before stays", why=str(error))
        told.reload_refused(error)
        return str(error)

    def _loop(
        self, engine: Engine, notifier: Notifier, told: Notifying, state_is_there: Callable[[], bool]
    ) -> None:
        duties = [
            _Duty(PLANS_SECONDS, engine.tick),
            _Duty(PLANS_SECONDS, lambda: self._supervisor.status(engine.summary())),
            _Duty(OBJECTIVES_SECONDS, lambda: told.objectives(engine.board.accounts(), engine.overdue())),
            _Duty(WORRIES_SECONDS, lambda: self._worry(engine, notifier)),
        ]
        offset = _offset()
        while True:
            try:
                command: Command | _Reload | None = self._commands.get(timeout=TICK_SECONDS)
            except queue.Empty:
                command = None
            self.pulse.beat()
            if command == "stop":
                return
            if isinstance(command, _Reload):
                command.reply.put(self._reload(engine, notifier, told))
            elif command == "reload":
                self._reload(engine, notifier, told)
            elif command == "trigger":
                engine.trigger()
            now = _offset()
            if abs(now - offset) > CLOCK_SECONDS:
                engine.clock_was_set(now - offset)
            offset = now
            for duty in duties:
                duty.do(time.monotonic())
            if not state_is_there():
                return

    def _worry(self, engine: Engine, notifier: Notifier) -> None:
        for event in worries(engine.config, engine.state, datetime.now(UTC)):
            notifier.tell(event)

    def _reload(self, engine: Engine, notifier: Notifier, told: Notifying) -> str | None:
        """Read the configuration again and follow it; if it is wrong the old one stays, and this says why."""
        before = engine.config
        self._supervisor.reloading()
        try:
            config = self._load()
            if self._health:
                self._health.follow(config)
            try:
                engine.reload(config)
            except BackupdError:
                if self._health:
                    self._health.follow(before)
                raise
            self._config = config
            logs.set_up(config.log.format, config.log.level)
            notifier.reconfigure(config)
            told.running()
        except BackupdError as error:
            return self._refused(error, told)
        finally:
            self._supervisor.ready(engine.summary())
        return None

    # What is asked over the control socket, on its threads

    def trigger(self, names: Sequence[str]) -> Collection[str]:
        """Back these accounts up now, or all; names of those that there are not."""
        engine = self._engine
        return engine.trigger(names) if engine else names

    def reload(self) -> str | None:
        """Have the main loop read the configuration again; None, or why the old one stays."""
        asked = _Reload(queue.SimpleQueue())
        self._commands.put(asked)
        until = time.monotonic() + REPLY_SECONDS
        while time.monotonic() < until:
            try:
                return asked.reply.get(timeout=TICK_SECONDS)
            except queue.Empty:
                if self._ended.is_set():
                    return "the daemon is stopping"
        return "the main loop does not answer; the log tells more"


class _Duty:
    """What the main loop does every so many seconds, and goes on when it fails: a full disk must not end the daemon."""

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._seconds, self._call, self._next = seconds, call, 0.0

    def do(self, now: float) -> None:
        """Do it, if it is due. now: seconds that only go forward."""
        if now < self._next:
            return
        self._next = now + self._seconds
        try:
            self._call()
        except BackupdError as error:
            log.error("the main loop goes on after a failure", why=str(error))


class _Reload(NamedTuple):
    """Read the configuration again, and tell here what came of it."""

    reply: queue.SimpleQueue[str | None]


def _offset() -> float:
    """The clock on the wall, less the one that only goes forward (and stands still while the machine sleeps)."""
    return datetime.now(UTC).timestamp() - time.monotonic()
