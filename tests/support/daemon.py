"""`backupd run` as a process of its own, and the lines of its log as they come."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from tests.support.command import SECONDS, Place, imap, kill
from tests.support.dovecot_account import Account
from tests.support.warm import Started


class Daemon:
    """`backupd run`, and the lines of its log as they come."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.process: Started = place.start("run")
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        streams = [stream for stream in (self.process.stdout, self.process.stderr) if stream]
        readers = [threading.Thread(target=self._follow, args=(stream,)) for stream in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    def _follow(self, stream: Iterator[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    @property
    def log(self) -> str:
        """All it has said so far."""
        with self._changed:
            return "".join(self._lines)

    def says(self, *words: str, after: int = 0) -> int:
        """Wait for a line with all these words; how many lines there are up to it."""

        def found() -> int:
            lines = enumerate(self._lines[after:], after + 1)
            return next((number for number, line in lines if all(word in line for word in words)), 0)

        with self._changed:
            self._changed.wait_for(lambda: found() or self.process.poll() is not None, SECONDS)
            assert found(), "".join(self._lines)
            return found()

    @property
    def lines(self) -> int:
        """How many lines there are."""
        with self._changed:
            return len(self._lines)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit code. What must hold of every process holds of its log."""
        kill(self.process, number)
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert "Traceback" not in self.log, self.log
        assert not any(secret in self.log for secret in self._place.secrets)
        return code


@contextmanager
def running(place: Place) -> Iterator[Daemon]:
    daemon = Daemon(place)
    try:
        daemon.says("running")
        yield daemon
    finally:
        if daemon.process.poll() is None:
            assert daemon.end() == 0


def configure(place: Place, accounts: dict[str, Account], **more: object) -> None:
    """The configuration of these accounts, with more keys at its top."""
    place.configure({name: imap(account, connections=2, timeout=10.0) for name, account in accounts.items()})
    document = msgspec.json.decode(place.config.read_bytes()) | {"schedule": "every 1 second"} | more
    place.config.write_bytes(msgspec.json.encode(document))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
