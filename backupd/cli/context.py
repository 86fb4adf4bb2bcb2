"""What every command gets beside its own arguments: the global options, and what they lead to.

Everything is opened when it is first asked for, so that `backupd --help` imports and opens nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from backupd.cli import output
from backupd.errors import BackupdError, Busy, StateDamaged, StorageDenied, StorageFull, UsageError

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.operations.costs import Meter
    from backupd.operations.state import State
    from backupd.repository.repository import Repository
    from backupd.repository.snapshots import Snapshot, SnapshotRef
    from backupd.storage.base import Storage

Opened = TypeVar("Opened")

INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class Context:
    """The global options of one call. config_path: as given, None for the default. copy: which copy to work on, as
    given, None for the repository itself."""

    config_path: Path | None = None
    json: bool = False
    debug: bool = False
    quiet: bool = False
    copy: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _meters: list[tuple[Config, Meter]] = field(default_factory=list)

    @cached_property
    def config(self) -> Config:
        """The configuration; with --copy as if the copy was the repository. Raises ConfigError, UsageError."""
        from backupd.config import load

        config = load(self.config_path)
        if self.copy is None:
            return config
        from backupd.operations.opening import at_copy

        return at_copy(config, self.copy)

    def not_at_a_copy(self, command: str) -> None:
        """Raises UsageError where --copy was given to a command that adds to the repository."""
        if self.copy is not None:
            raise UsageError(
                f"`backupd {command}` works on the repository and on no copy of it",
                subject=self.copy,
                remedy="leave out --copy; `backupd copy` brings the copies up to date",
            )

    @property
    def config_file(self) -> Path:
        """The configuration file that is used."""
        from backupd.config import config_path

        return config_path(self.config_path)

    def storage(self, config: Config | None = None) -> Storage:
        """The place of the repository, which need not exist yet; of another configuration where one is given."""
        from backupd.operations.costs import Meter
        from backupd.operations.opening import open_repository_storage

        config = config or self.config
        storage = open_repository_storage(config)
        self._meters.append((config, Meter(storage)))
        return storage

    def open_repository(self) -> Repository:
        """The configured repository, for the caller to close. Raises NoRepository, WrongKey, ConfigError."""
        from backupd.operations.opening import open_repository

        storage = self.storage()
        return self._with_state(lambda: open_repository(self.config, storage))

    @contextmanager
    def repository(self, *, only_reads: bool = False) -> Iterator[Repository]:
        """The configured repository, open. Raises NoRepository, WrongKey, ConfigError; StateDamaged, StorageDenied and
        StorageFull of the state only for who adds to the repository.

        A state that cannot be had - it is another user's, its disk is full, a daemon holds a damaged one - is a
        temporary one for whoever only reads mail, who needs nothing that lasts, and may be in a hurry.
        """
        with ExitStack() as stack:
            try:
                repository = self.open_repository()
            except (StateDamaged, StorageDenied, StorageFull) as error:
                if not only_reads or not Path(error.subject).is_relative_to(self.config.state_dir):
                    raise
                stack.enter_context(self._temporary_state(error))
                repository = self.open_repository()
            yield stack.enter_context(repository)

    @contextmanager
    def _temporary_state(self, error: BackupdError) -> Iterator[None]:
        import tempfile

        config, meters = self.config, len(self._meters)
        with tempfile.TemporaryDirectory(prefix="backupd-state-") as folder:
            self.note(f"{error}; going on with a temporary one")
            self.__dict__["config"] = config.model_copy(update={"state_dir": Path(folder)})
            try:
                yield
            finally:
                self.__dict__["config"] = config
                del self._meters[meters:]

    def record_requests(self) -> None:
        """Put what buckets were asked for into the state. Only `status` needs it, so no command fails of it."""
        from datetime import UTC, datetime

        from backupd.operations.opening import open_state

        for config, meter in self._meters:
            if any(news := meter.news()):
                try:
                    with closing(open_state(config)) as state:
                        state.asked(meter.url, datetime.now(UTC).date(), news)
                except BackupdError as error:
                    self.note(f"requests could not be counted: {error}")

    @contextmanager
    def state(self) -> Iterator[State]:
        """The state directory, open. Raises StorageDenied, StorageFull."""
        from backupd.operations.opening import open_state

        state = self._with_state(lambda: open_state(self.config))
        try:
            yield state
        finally:
            state.close()

    def _with_state(self, open_it: Callable[[], Opened]) -> Opened:
        """Open what needs the state; where that is damaged, it is begun anew, for nobody should have to wait for a
        cache to be mended before a restore. Raises what opening raises."""
        from backupd.operations.state_files import daemon_lock, set_aside_damaged

        try:
            return open_it()
        except StateDamaged as error:
            folder = Path(self.config.state_dir)
            try:
                with daemon_lock(folder):
                    aside = set_aside_damaged(folder)
            except Busy:  # the daemon has it open, and does this at its next start
                raise error from None
            if aside is None:
                raise
            self.note(f"{error.what}; it is begun anew, and the damaged one is {aside}")
            return open_it()

    def find(self, repository: Repository, text: str) -> tuple[SnapshotRef, Snapshot]:
        """The snapshot that is meant; whoever meant an incomplete one is told. Raises UsageError."""
        from backupd.operations.find_snapshot import find

        ref, snapshot = find(repository, text, list(self.config.accounts))
        if snapshot.checkpoint:
            self.note(f"snapshot {ref.id} is of a backup that did not end: mail may be missing from it")
        elif not snapshot.complete:
            self.note(f"snapshot {ref.id} is not complete: {output.count(len(snapshot.problems), 'problem')}")
        return ref, snapshot

    def secret_files(self) -> list[Path]:
        """Files with secrets that the configuration refers to."""
        from backupd.config import secret_files

        return secret_files(self.config)

    def say(self, text: str = "") -> None:
        """A line of the result, on standard output; nothing with --json or --quiet."""
        if not (self.json or self.quiet):
            output.line(text)

    def note(self, text: str) -> None:
        """A remark on standard error; nothing with --quiet."""
        if not self.quiet:
            output.remark(text)

    @contextmanager
    def stopping(self) -> Iterator[threading.Event]:
        """While this lasts, SIGINT and SIGTERM set the event, so that the operation ends in order; the second one ends
        the process at once. Whatever happens, the repository stays valid.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            if self.stop.is_set():
                if sys.stderr.isatty():
                    sys.stderr.write(_SHOW_CURSOR)
                    sys.stderr.flush()
                os._exit(INTERRUPTED)
            self.stop.set()
            below = b"\n" if sys.stderr.isatty() else b""  # a progress bar, and the ^C that the terminal shows
            os.write(2, below + b"backupd: stopping in order; once more to stop at once\n")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self.stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


Here = Annotated[Context, Parameter(parse=False)]
"""The type of a command's `context`, which is not read from the command line."""
