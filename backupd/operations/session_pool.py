"""Sessions shared by the threads of one run: opened when needed, opened again when the network cuts them.

Retrying is decided here and nowhere else: work that fails with a `Transient` error (or an answer that makes no sense,
after which a connection cannot be trusted) is called again on a new session, until it has failed too often without
getting on. A pause that the server asks for is kept; one too long for a run to wait ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from backupd.errors import Interrupted, LoginRefused, ProtocolError, ServerError, Throttled, Transient
from backupd.operations.stopping import Stop
from backupd.sources.base import Session, Source
from backupd.wire.throttling import PATIENCE

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before each new try; after the last, the error counts."""

Result = TypeVar("Result", covariant=True)


class Work(Protocol[Result]):
    """Something to be done in a session. Called again after a failure, it goes on where it was."""

    @property
    def progress(self) -> int:
        """Grows as the work gets on; failures are only counted while it stands still."""
        ...

    def __call__(self, session: Session) -> Result: ...


class SessionPool:
    """Up to `source.connections` sessions. Safe to use from several threads."""

    def __init__(self, source: Source, *, stop: Stop) -> None:
        self._source, self._stop = source, stop
        self._limit = max(1, source.connections)
        self._open = 0
        self._idle: list[Session] = []
        self._changed = threading.Condition()
        self._ever = False

    @property
    def connections(self) -> int:
        """How many sessions may be open at once; fewer than configured when the server refused more."""
        return self._limit

    def run(self, work: Work[Result]) -> Result:
        """Do the work. Raises Interrupted when stopped while waiting, and the last error when trying again is no use.
        """
        failures, waited = 0, 0.0
        while True:
            before = work.progress
            try:
                session = self._take()
                try:
                    result = work(session)
                except BaseException as error:
                    self._give_back(session, broken=not _usable_after(error))
                    raise
                self._give_back(session)
                return result
            except Throttled as error:
                waited = error.pause if work.progress > before else waited + error.pause
                if waited > PATIENCE:
                    raise
                if self._stop.wait(error.pause):
                    raise Interrupted("stopped while the server wanted a pause") from error
            except ServerError as error:
                if not isinstance(error, Transient | ProtocolError) or not self._ever:
                    raise
                failures = 0 if work.progress > before else failures + 1
                if failures >= len(PAUSES):
                    raise
                if self._stop.wait(PAUSES[failures]):
                    raise Interrupted("stopped while waiting for the server") from error

    def _take(self) -> Session:
        with self._changed:
            while not self._idle and self._open >= self._limit:
                self._changed.wait()
            if self._idle:
                return self._idle.pop()
            self._open += 1
        return self._another() or self._take()

    def open_another(self) -> None:
        """Open a session that will be needed soon, if there may be more. An error is left to whoever then opens it."""
        with self._changed:
            if self._open >= self._limit:
                return
            self._open += 1
        try:
            session = self._another()
        except ServerError:
            return
        if session:
            self._give_back(session)

    def _another(self) -> Session | None:
        """A new session, which is counted already; None when the server wants no more than there are."""
        try:
            session = self._source.open()
        except BaseException as error:
            with self._changed:
                self._open -= 1
                # Servers limit connections, and say so in many ways: if others are open, do with those.
                enough = self._open > 0 and isinstance(error, Transient | LoginRefused)
                if enough:
                    self._limit = self._open
                self._changed.notify()
            if enough:
                return None
            raise
        self._ever = True
        return session

    def _give_back(self, session: Session, *, broken: bool = False) -> None:
        if broken:
            session.close()
        with self._changed:
            if broken:
                self._open -= 1
            else:
                self._idle.append(session)
            self._changed.notify()

    def close(self) -> None:
        """Close the idle sessions, all at once: each says goodbye and waits for the answer."""
        with self._changed:
            sessions, self._idle = self._idle, []
            self._open -= len(sessions)
        if sessions:
            with ThreadPoolExecutor(len(sessions), thread_name_prefix="goodbye") as threads:
                for session in sessions:
                    threads.submit(session.close)


class Once(Work[Result]):
    """Work that is done in one go."""

    progress = 0

    def __init__(self, call: Callable[[Session], Result]) -> None:
        self._call = call

    def __call__(self, session: Session) -> Result:
        return self._call(session)


def _usable_after(error: BaseException) -> bool:
    """Whether the session is in step after this error: a refusal is an answer like any other."""
    return isinstance(error, ServerError) and not isinstance(error, Transient | ProtocolError)
