"""The files of the local state beside the tables in it: locks, and what becomes of a damaged database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backupd.errors import Busy
from backupd.repository.index_cache import is_damage, sqlite_error

DATABASE = "state.sqlite"
DAEMON_LOCK = ".daemon"
"""No account's name begins with a dot."""


@contextmanager
def account_lock(folder: Path, account: str) -> Iterator[None]:
    """Only one backup of an account at a time. The lock goes with the process, however it ends. Raises Busy."""
    busy = Busy("another backup of this account is running", subject=account, remedy="wait until it has ended")
    with _lock_file(folder, f"{account}.lock", busy):
        yield


@contextmanager
def daemon_lock(folder: Path) -> Iterator[Callable[[], bool]]:
    """Only one daemon works with this state. The lock goes with the process, however it ends. Raises Busy.

    Gives what tells whether this is still the state that everybody else finds: it may be removed meanwhile, or
    another folder be mounted over it.
    """
    busy = Busy("another daemon runs with this state_dir", subject=str(folder), remedy="end it first, or leave it be")
    with _lock_file(folder, DAEMON_LOCK, busy) as descriptor:
        ours, place = os.fstat(descriptor), folder / "locks" / DAEMON_LOCK

        def is_there() -> bool:
            try:
                return os.path.samestat(ours, place.stat())
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError:  # nobody can tell: the next run will say what is wrong
                return True

        yield is_there


@contextmanager
def _lock_file(state: Path, name: str, busy: Busy) -> Iterator[int]:
    folder = state / "locks"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise sqlite_error(error, state) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield descriptor
    finally:
        os.close(descriptor)


def set_aside_damaged(folder: Path) -> Path | None:
    """Where the database is damaged, move it out of the way, so that it is built anew; where it is now, if it was.

    All of it is read. Only for who holds the daemon's lock: a daemon would go on with what was moved. An earlier
    damaged one is replaced: they may be large, and nobody needs them but for a look at what went wrong.

    Raises StorageDenied, StorageFull.
    """
    database = folder / DATABASE
    if not database.exists() or not _is_damaged(database):
        return None
    aside = database.with_name(f"{DATABASE}.damaged")
    try:
        # Its log first: without it a database may be whole, and never the other way round.
        for suffix in ("-wal", "-shm", ""):
            place = database.with_name(database.name + suffix)
            if place.exists():
                place.replace(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise sqlite_error(error, folder) from error
    return aside


def _is_damaged(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(database, timeout=60)) as opened:
            rows: list[tuple[str]] = opened.execute("PRAGMA quick_check(1)").fetchall()
            return rows != [("ok",)]
    except sqlite3.Error as error:  # whoever opens it next tells of all else
        return is_damage(error)
